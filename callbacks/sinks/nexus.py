"""Results as files: one NeXus file per run, and its object and probe as CXI beside it.

Files are composed in memory and then written in one go, so that a full disk is an ordinary error of writing
a file (HDF5 itself may fail late, on closing) and nothing half-written stays behind.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.constants import electron_volt

from ptychrome import __version__
from ptychrome.callbacks.files import OBJECT_PROBE_SUFFIX, write_atomically
from ptychrome.callbacks.results import Revision
from ptychrome.schema import FEATURES, MAP_LABELS, MAPS, SPECTRA, map_label

UNITS = {
    "energy": "eV",
    "y": "m",
    "x": "m",
    "object": "1",
    "absorbance": "1",
    "phase": "rad",
    "probe": "sqrt(photons)",
    "quality/error": "1",
} | {f"maps/{name}{suffix}": info.unit for name, info in MAPS.items() for suffix in ("", "_sigma")}
LABELS = {
    "absorbance": "absorbance μt",
    "phase": "phase",
    "energy": "photon energy",
    "clusters/label": "cluster",
    "clusters/probability": "probability of the cluster",
} | {name: info.label for name, info in SPECTRA.items()}
CONTENTS = "ptychrome_contents"
UNIT_SUFFIXES = {
    "_eV": "eV",
    "_Gy": "Gy",
    "_m": "m",
    "_s": "s",
    "fluence": "1/m^2",
    "frequency": "1/m",
}  # of the columns of tables


class NexusSink:
    """Writes each run once it is final; on closing, also those that never became final.

    Parameters
    ----------
    path : callable
        From a revision to the file, ``.nxs``.
    cxi : bool
        Also write ``<stem>_object_probe.cxi``: object and probe, one CXI entry per energy.
    """

    def __init__(self, path: Callable[[Revision], Path], *, cxi: bool = True) -> None:
        self._path = path
        self._cxi = cxi
        self._unwritten: dict[str, Revision] = {}

    def write(self, revision: Revision) -> None:
        """Take one revision; the final one is written.

        Raises
        ------
        ptychrome.callbacks.files.WriteError
            If the disk is full or the folder cannot be written. It is tried again in `close`.
        """
        self._unwritten[revision.raw_uid] = revision
        if revision.final:
            self._save(revision)

    def close(self) -> None:
        """Write what is still unwritten, marked as not final where more was to come.

        Raises
        ------
        ptychrome.callbacks.files.WriteError
            See `write`.
        """
        for revision in list(self._unwritten.values()):
            self._save(revision)

    def _save(self, revision: Revision) -> None:
        path = self._path(revision)
        write_nexus(path, revision)
        if self._cxi:
            write_object_probe(path.with_name(path.stem + OBJECT_PROBE_SUFFIX), revision)
        del self._unwritten[revision.raw_uid]


def write_nexus(path: Path, revision: Revision) -> None:
    """Write a revision as NeXus; viewers open on the chemical maps, or on the phase where there are none.

    Every array lies in ``/entry`` under its name in the vocabulary, a table is a group of its columns. The
    attributes of the results are on the root and on ``/entry``.

    Parameters
    ----------
    path : Path
    revision : Revision

    Raises
    ------
    ptychrome.callbacks.files.WriteError
        If the file cannot be written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        entry = _group(file, "entry", "NXentry")
        file.attrs["NX_class"] = "NXroot"
        file.attrs["default"] = "entry"
        file.attrs["creator"] = f"ptychrome {__version__}"
        file.attrs["file_name"] = path.name
        file.attrs["file_time"] = datetime.now(UTC).isoformat()
        for node in (file, entry):
            _set_attributes(node, revision)
        entry.attrs[CONTENTS] = _contents(revision)
        entry["title"] = revision.sample_name or revision.raw_uid
        entry["program_name"] = "ptychrome"
        entry["program_name"].attrs["version"] = __version__
        _group(entry, "sample", "NXsample")["name"] = revision.sample_name
        for name, array in revision.arrays.items():
            _write_array(entry, name, array, _label(name, revision))
        for name, columns in revision.tables.items():
            _write_table(entry, name, columns)
        _add_plots(entry)
    write_atomically(path, buffer.getbuffer())


def load_result(path: Path) -> Revision:
    """Read a file that `write_nexus` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Revision
        With the arrays under their names and the attributes as they were.

    Raises
    ------
    ValueError
        If the file is missing or not one of ours.
    """
    try:
        with h5py.File(path, "r") as file:
            entry = file["entry"]
            contents = json.loads(entry.attrs[CONTENTS])
            arrays = {name: entry[name][()] for name in contents["arrays"]}
            tables = {
                name: {column: entry[name][column][()] for column in columns}
                for name, columns in contents["tables"].items()
            }
            sample_name = entry["sample/name"].asstr()[()]
            uid, final = str(entry.attrs["raw_uid"]), bool(entry.attrs["final"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: not a result of ptychrome ({error}); expected a .nxs file") from error
    return Revision(uid, sample_name, contents["attributes"], arrays, tables, (), final)


def write_object_probe(path: Path, revision: Revision) -> None:
    """Write object and probe as CXI 1.6: an entry per measured energy, ascending, in SI units.

    ``entry_<i>/image_1/data`` is the transmission (ny, nx) complex64 with its coordinates,
    ``entry_<i>/instrument_1/beam_1/probe_guess`` the probe (modes, n, n) complex64, where a further
    reconstruction looks for its start, ``entry_<i>/instrument_1/source_1/energy`` the energy.

    Parameters
    ----------
    path : Path
    revision : Revision

    Raises
    ------
    ptychrome.callbacks.files.WriteError
        If the file cannot be written.
    """
    arrays = revision.arrays
    measured = np.flatnonzero(np.isfinite(arrays["object"]).any(axis=(1, 2)))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["cxi_version"] = 160
        file.attrs["creator"] = f"ptychrome {__version__}"
        file.attrs["raw_uid"] = revision.raw_uid
        file.attrs["default"] = "entry_1"
        for number, place in enumerate(measured, 1):
            entry = _group(file, f"entry_{number}", "NXentry")
            entry.attrs["default"] = "image_1"
            _group(entry, "sample_1", "NXsample")["name"] = revision.sample_name
            instrument = _group(entry, "instrument_1", "NXinstrument")
            source = _group(instrument, "source_1", "NXsource")
            _dataset(source, "energy", arrays["energy"][place] * electron_volt, "J")
            if "probe" in arrays:
                beam = _group(instrument, "beam_1", "NXbeam")
                _dataset(beam, "probe_guess", arrays["probe"][place], UNITS["probe"])
            _write_image(entry, arrays["object"][place], arrays["y"], arrays["x"])
    write_atomically(path, buffer.getbuffer())


def _write_image(entry: h5py.Group, transmission: np.ndarray, y_m: np.ndarray, x_m: np.ndarray) -> None:
    image = _group(entry, "image_1", "NXdata")
    _dataset(image, "data", transmission, "1")
    _dataset(image, "y", y_m, "m")
    _dataset(image, "x", x_m, "m")
    _dataset(image, "image_size", [np.ptp(x_m), np.ptp(y_m)], "m")
    image["data_type"] = "transmission"
    image["data_space"] = "real"
    image["dimensionality"] = 2
    image["is_fft_shifted"] = 0
    image.attrs["signal"] = "data"
    image.attrs["axes"] = ["y", "x"]


def _set_attributes(node: h5py.Group, revision: Revision) -> None:
    """One attribute each; nested ones as JSON."""
    for name, value in revision.attributes.items():
        node.attrs[name] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    node.attrs["raw_uid"] = revision.raw_uid
    node.attrs["final"] = revision.final


def _contents(revision: Revision) -> str:
    """What `load_result` needs to give back exactly this revision."""
    tables = {name: list(columns) for name, columns in revision.tables.items()}
    return json.dumps(
        {"attributes": dict(revision.attributes), "arrays": list(revision.arrays), "tables": tables}
    )


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.require_group(name)
    group.attrs.setdefault("NX_class", nx_class)
    return group


def _dataset(parent: h5py.Group, name: str, data: Any, units: str) -> h5py.Dataset:
    dataset = parent.create_dataset(name, data=data)
    dataset.attrs["units"] = units
    return dataset


def _label(name: str, revision: Revision) -> str | None:
    folder, _, key = name.rpartition("/")
    if folder == "maps" and key in MAP_LABELS:
        return map_label(key, revision.attributes.get("element", "V"))
    return LABELS.get(name)


def _write_array(entry: h5py.Group, name: str, array: np.ndarray, label: str | None) -> None:
    folder, _, key = name.rpartition("/")
    parent = _group(entry, folder, "NXcollection") if folder else entry
    dataset = _dataset(parent, key, array, UNITS.get(name, "1"))
    if label is not None:
        dataset.attrs["long_name"] = label
    if name == "clusters/centers":
        dataset.attrs["columns"] = list(FEATURES)
        dataset.attrs["units"] = [MAPS[feature].unit for feature in FEATURES]


def _write_table(entry: h5py.Group, name: str, columns: Mapping[str, np.ndarray]) -> None:
    group = _group(entry, name, "NXcollection")
    group.attrs["columns"] = list(columns)
    for column, values in columns.items():
        unit = next((unit for suffix, unit in UNIT_SUFFIXES.items() if column.endswith(suffix)), "1")
        _dataset(group, column, values, unit)


def _add_plots(entry: h5py.Group) -> None:
    """What viewers draw: links make NXdata groups of the arrays, without copies."""
    for stack in ("absorbance", "phase"):
        if stack in entry:
            _make_plot(entry, f"{stack}_stack", stack, ("energy", "y", "x"))
            entry.attrs["default"] = f"{stack}_stack"
    if "clusters/label" in entry:
        _make_plot(entry, "clusters", "label", ("y", "x"))
    if "maps" in entry:
        names = [name for name in MAPS if name in entry["maps"]]
        if names:
            _make_plot(entry, "maps", names[0], ("y", "x"))
            entry["maps"].attrs["auxiliary_signals"] = names[1:]
            entry.attrs["default"] = "maps"


def _make_plot(entry: h5py.Group, name: str, signal: str, axes: tuple[str, ...]) -> None:
    plot = entry.require_group(name)
    for key in (signal, *axes):
        if key not in plot:
            plot[key] = entry[key]
    plot.attrs["NX_class"] = "NXdata"
    plot.attrs["signal"] = signal
    plot.attrs["axes"] = list(axes)
