"""Stored measurements as documents: a set of CXI files, one per energy, becomes a Bluesky run.

Everything is checked before the first document, so that a set that cannot be used leaves no result behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import event_model
import numpy as np

from ptychrome.callbacks.files import OBJECT_PROBE_SUFFIX
from ptychrome.callbacks.sources.cxi_file import (
    BASIS,
    DARK,
    DETECTOR,
    ENERGY,
    I0,
    MASK,
    PROBE,
    TRANSLATION,
    CxiError,
    CxiFile,
    read_cxi_file,
)
from ptychrome.edges import edge_near
from ptychrome.schema import (
    DARK_SUFFIX,
    MASK_SUFFIX,
    PROBE_SUFFIX,
    START_KEY,
    ProbeModel,
    ScanMetadata,
    SignalKeys,
)

__all__ = ["CxiError", "CxiFile", "CxiSet", "documents", "read_cxi_set"]

SUFFIXES = (".cxi", ".h5")

SMALLEST_STEP_EV = 0.01  # far below any monochromator's band width: closer energies are the same one

Document = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class CxiSet:
    """Files of one detector geometry and different energies, ascending.

    Attributes
    ----------
    files : tuple of CxiFile
    """

    files: tuple[CxiFile, ...]

    @property
    def energies_eV(self) -> tuple[float, ...]:
        """Photon energies, ascending, eV."""
        return tuple(file.energy_eV for file in self.files)

    @property
    def extent_m(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(y, x) ranges of the sample's translation over all files, m."""
        x, y = np.concatenate([file.translation_m[:, :2] for file in self.files]).T
        return (float(y.min()), float(y.max())), (float(x.min()), float(x.max()))

    @property
    def name(self) -> str:
        """The sample's name, or that of the file or folder where the files have none."""
        first = self.files[0]
        path = first.path.resolve()
        return first.sample_name or (path.stem if len(self.files) == 1 else path.parent.name)


def read_cxi_set(paths: Sequence[Path]) -> CxiSet:
    """Read and check the headers of a CXI set, and look through all frames once, block by block.

    Parameters
    ----------
    paths : sequence of Path
        Files, and folders whose ``*.cxi`` and ``*.h5`` are taken.

    Returns
    -------
    CxiSet

    Raises
    ------
    CxiError
        If a file cannot be read, a field is missing, or fields do not fit together in a file or in the set.
    """
    files = sorted((read_cxi_file(path) for path in _files(paths)), key=lambda file: file.energy_eV)
    for one, next_one in pairwise(files):
        if next_one.energy_eV - one.energy_eV < SMALLEST_STEP_EV:
            raise CxiError(
                f"{next_one.path}: {ENERGY} is {next_one.energy_eV:.3f} eV as in {one.path}; "
                "expected one file per energy"
            )
    for file in files[1:]:
        _check_alike(files[0], file)
    return CxiSet(tuple(files))


def documents(cxi_set: CxiSet, *, probe: ProbeModel, sample_name: str = "") -> Iterator[Document]:
    """A set as a Bluesky run: energies outer, positions inner, frames by reference to the files.

    Parameters
    ----------
    cxi_set : CxiSet
    probe : ProbeModel
        The calculated start probe, for files that hold none.
    sample_name : str
        Instead of the one in the files.

    Yields
    ------
    name : str
    doc : mapping
        Valid against the schemas of event_model.
    """
    files = cxi_set.files
    i0 = None if files[0].i0 is None else "i0"
    keys = SignalKeys(image="cxi_image", energy="energy", x="stage_x", y="stage_y", i0=i0)
    element, edge = edge_near(cxi_set.energies_eV)
    metadata = ScanMetadata(
        element=element,
        edge=edge,
        energies_eV=cxi_set.energies_eV,
        positions_per_energy=tuple(len(file.translation_m) for file in files),
        extent_m=cxi_set.extent_m,
        geometry=files[0].geometry,
        probe=probe,
        keys=keys,
    )
    run = event_model.compose_run(
        metadata={
            "plan_name": "spectro_ptycho",
            "sample_name": sample_name or cxi_set.name,
            START_KEY: metadata.model_dump(mode="json"),
        }
    )
    yield "start", run.start_doc
    data_keys = _data_keys(files, keys)
    stream = run.compose_descriptor(
        name="primary",
        data_keys=data_keys,
        object_keys={"cxi": list(data_keys)},
        configuration={"cxi": _configuration(files[0], keys.image)},
    )
    yield "descriptor", stream.descriptor_doc
    first = 1
    for file in files:
        yield from _one_energy(file, run, stream, keys, first)
        first += len(file.translation_m)
    yield "stop", run.compose_stop()


def _one_energy(
    file: CxiFile,
    run: event_model.ComposeRunBundle,
    stream: event_model.ComposeDescriptorBundle,
    keys: SignalKeys,
    first: int,
) -> Iterator[Document]:
    """The frames of a file and their events, numbered from `first`."""
    count = len(file.translation_m)
    resource = event_model.compose_stream_resource(
        start=run.start_doc,
        mimetype="application/x-hdf5",
        uri=file.path.resolve().as_uri().replace("file://", "file://localhost", 1),
        data_key=keys.image,
        parameters={
            "dataset": file.dataset,
            "chunk_shape": [1, *file.geometry.shape],
            "join_method": "stack",
        },
    )
    yield "stream_resource", resource.stream_resource_doc
    datum = resource.compose_stream_datum(
        indices={"start": 0, "stop": count},
        seq_nums={"start": first, "stop": first + count},
        descriptor=stream.descriptor_doc,
    )
    yield "stream_datum", datum
    measured_at = file.path.stat().st_mtime
    for place in range(count):
        data = _readings(file, place, keys)
        event = stream.compose_event(
            data=data,
            timestamps=dict.fromkeys(data, measured_at),
            seq_num=first + place,
            time=measured_at,
            validate=False,  # all alike, and thousands
        )
        yield "event", event


def _readings(file: CxiFile, place: int, keys: SignalKeys) -> dict[str, float]:
    x, y, _ = file.translation_m[place].tolist()
    data = {keys.energy: file.energy_eV, keys.x: x, keys.y: y}
    if keys.i0 is not None and file.i0 is not None:
        data[keys.i0] = float(file.i0[place])
    return data


def _data_keys(files: Sequence[CxiFile], keys: SignalKeys) -> dict[str, Any]:
    def number(source: str, units: str) -> dict[str, Any]:
        return {"source": source, "dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": units}

    scalars = {
        keys.energy: number(ENERGY, "eV"),
        keys.x: number(TRANSLATION[0], "m"),
        keys.y: number(TRANSLATION[0], "m"),
    }
    if keys.i0 is not None:
        scalars[keys.i0] = number(I0[0], "1")
    image = {
        "source": files[0].dataset,
        "dtype": "array",
        "dtype_numpy": np.result_type(*(file.dtype for file in files)).str,
        "shape": list(files[0].geometry.shape),
        "units": "counts",
        "external": "STREAM:",
    }
    return {keys.image: image, **scalars}


def _configuration(file: CxiFile, image: str) -> dict[str, Any]:
    announced = {MASK_SUFFIX: file.mask, DARK_SUFFIX: file.dark, PROBE_SUFFIX: file.probe}
    data = {f"{image}_{suffix}": path for suffix, path in announced.items() if path is not None}
    return {
        "data": data,
        "timestamps": dict.fromkeys(data, file.path.stat().st_mtime),
        "data_keys": {key: {"source": "CXI file", "dtype": "string", "shape": []} for key in data},
    }


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files that `paths` name; what this package itself wrote into a folder is no measurement."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file
            for file in path.iterdir()
            if file.suffix in SUFFIXES and not file.name.endswith(OBJECT_PROBE_SUFFIX)
        )
        if not inside:
            raise CxiError(f"{path}: no CXI file in this folder; expected *.cxi or *.h5")
        found += inside
    if not found:
        raise CxiError("no CXI file named; expected files or folders")
    return found


def _check_alike(first: CxiFile, other: CxiFile) -> None:
    """One run has one detector and one list of signals."""
    a, b = first.geometry, other.geometry
    pairs: list[tuple[str, Any, Any]] = [
        (f"the frames' shape in {other.dataset}", a.shape, b.shape),
        (f"{DETECTOR}/distance", a.distance_m, b.distance_m),
        (f"{DETECTOR}/x_pixel_size or y_pixel_size", a.pixel_size_m, b.pixel_size_m),
        (BASIS, (a.row_step, a.column_step), (b.row_step, b.column_step)),
    ]
    for what, expected, found in pairs:
        if not np.allclose(expected, found, rtol=1e-6, atol=1e-12):  # what float32 keeps of a number
            raise CxiError(
                f"{other.path}: {what} is {found}, but {expected} in {first.path}; "
                "expected one detector geometry in a set"
            )
    present = [
        (MASK[0], first.mask, other.mask),
        (DARK[0], first.dark, other.dark),
        (PROBE[0], first.probe, other.probe),
        (" or ".join(I0), first.i0 is not None, other.i0 is not None),
    ]
    for what, expected, found in present:
        if expected != found:
            raise CxiError(
                f"{other.path}: {what} is {'there' if found else 'missing'}, unlike in {first.path}; "
                "expected the same optional fields in all files of a set"
            )
