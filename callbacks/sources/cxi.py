"""Stored measurements as documents: a set of CXI files, one per energy, becomes a Bluesky run.

Everything is checked before the first document, so that a set that cannot be used leaves no result behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model
import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)
import numpy as np
from numpy.typing import NDArray
from scipy.constants import electron_volt

from ptychrome.analysis.scan import DataError, Orientation
from ptychrome.callbacks.files import OWN_CXI_SUFFIX
from ptychrome.schema import (
    DARK_SUFFIX,
    MASK_SUFFIX,
    PROBE_SUFFIX,
    START_KEY,
    DetectorGeometry,
    ProbeModel,
    ScanMetadata,
    SignalKeys,
)

SUFFIXES = (".cxi", ".h5")

_DETECTOR = "/entry_1/instrument_1/detector_1"
_BEAM = "/entry_1/instrument_1/beam_1"
_ENERGY = "/entry_1/instrument_1/source_1/energy"
_DATA = (f"{_DETECTOR}/data", "/entry_1/data_1/data")
_TRANSLATION = ("/entry_1/sample_1/geometry_1/translation", "/entry_1/data_1/translation")
_BASIS = f"{_DETECTOR}/basis_vectors"
_MASK = (f"{_DETECTOR}/mask",)
_DARK = (f"{_DETECTOR}/data_dark", f"{_DETECTOR}/dark")
_PROBE = (f"{_BEAM}/probe_guess",)
_I0 = ("/entry_1/instrument_1/monitor_1/data", f"{_BEAM}/flux", f"{_BEAM}/total_flux")
_SAMPLE_NAME = "/entry_1/sample_1/name"

_LARGEST_ENERGY_J = 1e6 * electron_volt  # more is an energy in eV or keV, not an X-ray photon in joule
_SMALLEST_STEP_EV = 0.01  # far below any monochromator's band width: closer energies are the same one
_BLOCK_BYTES = 2**25

Document = tuple[str, dict[str, Any]]


class CxiError(ValueError):
    """A CXI set that cannot be used; the message names the file, the path in it and what was expected."""


@dataclass(frozen=True)
class CxiFile:
    """The checked header of one file.

    Attributes
    ----------
    path : Path
    energy_eV : float
    geometry : DetectorGeometry
    dataset : str
        Path of the frames.
    dtype : numpy.dtype
        Of the frames.
    translation_m : (n, 3) float64, m
        Of the sample, (x, y, z) in the CXI frame, one row per frame.
    i0 : (n,) float64 or None
        Incident intensity of each frame.
    mask, dark, probe : str or None
        Paths of the static arrays, None where absent.
    sample_name : str
        Empty where absent.
    """

    path: Path
    energy_eV: float
    geometry: DetectorGeometry
    dataset: str
    dtype: np.dtype
    translation_m: NDArray[np.float64] = field(repr=False)
    i0: NDArray[np.float64] | None = field(repr=False)
    mask: str | None
    dark: str | None
    probe: str | None
    sample_name: str


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
    files = sorted((_read_file(path) for path in _files(paths)), key=lambda file: file.energy_eV)
    for one, next_one in zip(files, files[1:], strict=False):
        if next_one.energy_eV - one.energy_eV < _SMALLEST_STEP_EV:
            raise CxiError(
                f"{next_one.path}: {_ENERGY} is {next_one.energy_eV:.3f} eV as in {one.path}; "
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
    doc : dict
        Valid against the schemas of event_model.
    """
    files = cxi_set.files
    keys = SignalKeys(image="cxi_image", energy="energy", x="stage_x", y="stage_y", i0=_i0_key(files[0]))
    metadata = ScanMetadata(
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
    seq_num = 1
    for file in files:
        count = len(file.translation_m)
        resource = run.compose_stream_resource(
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
        yield (
            "stream_datum",
            resource.compose_stream_datum(
                indices={"start": 0, "stop": count},
                seq_nums={"start": seq_num, "stop": seq_num + count},
                descriptor=stream.descriptor_doc,
            ),
        )
        data, measured_at = _columns(file, keys), file.path.stat().st_mtime
        yield (
            "event_page",
            stream.compose_event_page(
                data=data,
                timestamps={key: [measured_at] * count for key in data},
                seq_num=list(range(seq_num, seq_num + count)),
                time=[measured_at] * count,
            ),
        )
        seq_num += count
    yield "stop", run.compose_stop()


def _i0_key(file: CxiFile) -> str | None:
    return None if file.i0 is None else "i0"


def _columns(file: CxiFile, keys: SignalKeys) -> dict[str, list[float]]:
    data = {
        keys.energy: [file.energy_eV] * len(file.translation_m),
        keys.x: file.translation_m[:, 0].tolist(),
        keys.y: file.translation_m[:, 1].tolist(),
    }
    if keys.i0 is not None and file.i0 is not None:
        data[keys.i0] = file.i0.tolist()
    return data


def _data_keys(files: Sequence[CxiFile], keys: SignalKeys) -> dict[str, Any]:
    def number(source: str, units: str) -> dict[str, Any]:
        return {"source": source, "dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": units}

    scalars = {
        keys.energy: number(_ENERGY, "eV"),
        keys.x: number(_TRANSLATION[0], "m"),
        keys.y: number(_TRANSLATION[0], "m"),
    }
    if keys.i0 is not None:
        scalars[keys.i0] = number(_I0[0], "1")
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
            if file.suffix in SUFFIXES and not file.name.endswith(OWN_CXI_SUFFIX)
        )
        if not inside:
            raise CxiError(f"{path}: no CXI file in this folder; expected *.cxi or *.h5")
        found += inside
    if not found:
        raise CxiError("no CXI file named; expected files or folders")
    return found


def _read_file(path: Path) -> CxiFile:
    if not path.is_file():
        raise CxiError(f"{path}: no such file; expected a CXI file")
    try:
        if not h5py.is_hdf5(path):
            raise CxiError(f"{path}: not an HDF5 file; expected a CXI file")
        with h5py.File(path, "r") as handle:
            return _Reader(path, handle).header()
    except (OSError, RuntimeError) as error:
        raise CxiError(f"{path}: cannot be read: {error}") from error


class _Reader:
    """Reads the fields of one open file; what is missing or wrong becomes a CxiError."""

    def __init__(self, path: Path, handle: h5py.File) -> None:
        self._path = path
        self._handle = handle

    def header(self) -> CxiFile:
        energy_eV = self._energy_eV()
        frames = self._frames()
        shape = frames.shape[1:]
        mask = self._static(_MASK, shape)
        dark = self._static(_DARK, shape)
        probe = self._probe(shape)
        self._check_frames(frames, None if mask is None else self._handle[mask][()] == 0)
        return CxiFile(
            path=self._path,
            energy_eV=energy_eV,
            geometry=self._geometry(shape),
            dataset=frames.name,
            dtype=frames.dtype,
            translation_m=self._translation(frames),
            i0=self._i0(len(frames)),
            mask=mask,
            dark=dark,
            probe=probe,
            sample_name=self._sample_name(),
        )

    def _fail(self, where: str, problem: str) -> CxiError:
        return CxiError(f"{self._path}: {where} {problem}")

    def _find(self, names: Sequence[str]) -> h5py.Dataset | None:
        """The first dataset of `names`; a link that leads nowhere counts as absent."""
        for name in names:
            found = self._handle.get(name)
            if isinstance(found, h5py.Dataset):
                return found
        return None

    def _need(self, names: Sequence[str], expected: str) -> h5py.Dataset:
        found = self._find(names)
        if found is None:
            raise self._fail(" or ".join(names), f"is missing; expected {expected}")
        return found

    def _numbers(self, dataset: h5py.Dataset, expected: str) -> NDArray[np.float64]:
        if dataset.dtype.kind not in "iuf":
            raise self._fail(dataset.name, f"holds {dataset.dtype}; expected {expected}")
        return np.asarray(dataset[()], dtype=np.float64)

    def _positive(self, name: str, expected: str) -> float:
        values = self._numbers(self._need((name,), expected), expected)
        if values.size != 1 or not 0 < values.item() < np.inf:
            shown = values.item() if values.size == 1 else f"of shape {values.shape}"
            raise self._fail(name, f"is {shown}; expected {expected}")
        return float(values.item())

    def _energy_eV(self) -> float:
        energy_J = self._positive(_ENERGY, "one photon energy in J")
        if energy_J > _LARGEST_ENERGY_J:
            raise self._fail(_ENERGY, f"is {energy_J:g}; expected a photon energy in J (5420 eV = 8.68e-16 J)")
        return energy_J / electron_volt

    def _frames(self) -> h5py.Dataset:
        frames = self._need(_DATA, "frames (n, ny, nx)")
        if frames.ndim != 3 or len(frames) < 2 or 0 in frames.shape:
            raise self._fail(frames.name, f"has shape {frames.shape}; expected (n, ny, nx) with n ≥ 2")
        if frames.dtype.kind not in "iuf":
            raise self._fail(frames.name, f"holds {frames.dtype}; expected counts")
        return frames

    def _translation(self, frames: h5py.Dataset) -> NDArray[np.float64]:
        dataset = self._need(_TRANSLATION, "positions (n, 3) of the sample in m")
        translation = self._numbers(dataset, "positions (n, 3) of the sample in m")
        if translation.ndim != 2 or translation.shape[1] != 3:
            raise self._fail(dataset.name, f"has shape {translation.shape}; expected (n, 3)")
        if len(translation) != len(frames):
            raise self._fail(
                dataset.name,
                f"has {len(translation)} positions, {frames.name} has {len(frames)} frames; expected as many",
            )
        wrong = np.flatnonzero(~np.isfinite(translation).all(axis=1))
        if wrong.size:
            raise self._fail(dataset.name, f"is {translation[wrong[0]]} at position {wrong[0]}; expected metres")
        return translation

    def _geometry(self, shape: tuple[int, int]) -> DetectorGeometry:
        x_pixel = self._positive(f"{_DETECTOR}/x_pixel_size", "the width of a pixel in m")
        y_pixel = self._positive(f"{_DETECTOR}/y_pixel_size", "the height of a pixel in m")
        plain = DetectorGeometry(
            shape=shape,
            pixel_size_m=(y_pixel, x_pixel),
            distance_m=self._positive(f"{_DETECTOR}/distance", "the distance of the detector in m"),
        )
        dataset = self._find((_BASIS,))
        if dataset is None:
            return plain
        basis = self._numbers(dataset, "the steps per row and per column (3, 2) in m")
        if basis.shape != (3, 2) or not np.isfinite(basis).all():
            raise self._fail(_BASIS, f"is {basis.tolist()}; expected finite numbers (3, 2) in m")
        norms = np.linalg.norm(basis, axis=0)
        if not np.allclose(norms, plain.pixel_size_m, rtol=0.01):
            raise self._fail(
                _BASIS,
                f"steps by {norms[0]:g} m per row and {norms[1]:g} m per column; "
                f"expected y_pixel_size {y_pixel:g} m and x_pixel_size {x_pixel:g} m within 1 %",
            )
        row_step, column_step = (tuple(step) for step in (basis / norms).T.tolist())
        try:
            Orientation.from_steps(row_step, column_step)
        except DataError as error:
            raise self._fail(_BASIS, str(error)) from None
        return plain.model_copy(
            update={
                "pixel_size_m": tuple(norms.tolist()), "row_step": row_step, "column_step": column_step
            }
        )  # fmt: skip

    def _static(self, names: Sequence[str], shape: tuple[int, int]) -> str | None:
        dataset = self._find(names)
        if dataset is None:
            return None
        if dataset.shape != shape:
            raise self._fail(dataset.name, f"has shape {dataset.shape}; expected {shape} as the frames")
        return dataset.name

    def _probe(self, shape: tuple[int, int]) -> str | None:
        dataset = self._find(_PROBE)
        if dataset is None:
            return None
        if dataset.shape[-2:] != shape or dataset.dtype.kind != "c":
            raise self._fail(
                dataset.name,
                f"holds {dataset.dtype} of shape {dataset.shape}; expected complex (modes, {shape[0]}, {shape[1]})",
            )
        if not np.isfinite(dataset[()]).all():
            raise self._fail(dataset.name, "holds values that are not finite; expected a complex wave")
        return dataset.name

    def _i0(self, count: int) -> NDArray[np.float64] | None:
        dataset = self._find(_I0)
        if dataset is None:
            return None
        values = self._numbers(dataset, "an incident intensity per frame").ravel()
        if values.size not in (1, count):
            raise self._fail(dataset.name, f"has {values.size} values; expected one, or one for each of {count} frames")
        wrong = values[~((values > 0) & (values < np.inf))]
        if wrong.size:
            raise self._fail(dataset.name, f"holds {wrong[0]:g}; expected positive intensities")
        return np.broadcast_to(values, (count,))

    def _sample_name(self) -> str:
        dataset = self._find((_SAMPLE_NAME,))
        if dataset is None or dataset.size != 1 or h5py.check_string_dtype(dataset.dtype) is None:
            return ""
        return str(np.ravel(dataset.asstr()[()])[0]).strip()

    def _check_frames(self, frames: h5py.Dataset, good: NDArray[np.bool_] | None) -> None:
        """Every unmasked pixel holds counts, or −1 where it was not measured."""
        if frames.dtype.kind == "u":
            return
        step = max(1, _BLOCK_BYTES // (frames.dtype.itemsize * int(np.prod(frames.shape[1:]))))
        for first in range(0, len(frames), step):
            block = frames[first : first + step]
            wrong = ~(np.isfinite(block) & (block >= 0)) & (block != -1)
            if good is not None:
                wrong &= good
            if wrong.any():
                frame, row, column = np.argwhere(wrong)[0]
                raise self._fail(
                    frames.name,
                    f"is {block[frame, row, column]} in frame {first + frame}, row {row}, column {column}; "
                    "expected counts ≥ 0, or −1 for a pixel not measured",
                )


def _check_alike(first: CxiFile, other: CxiFile) -> None:
    """One run has one detector and one list of signals."""
    a, b = first.geometry, other.geometry
    pairs: list[tuple[str, Any, Any]] = [
        (f"the frames' shape in {other.dataset}", a.shape, b.shape),
        (f"{_DETECTOR}/distance", a.distance_m, b.distance_m),
        (f"{_DETECTOR}/x_pixel_size or y_pixel_size", a.pixel_size_m, b.pixel_size_m),
        (_BASIS, (a.row_step, a.column_step), (b.row_step, b.column_step)),
    ]
    for what, expected, found in pairs:
        if not np.allclose(expected, found, rtol=1e-6, atol=1e-12):  # what float32 keeps of a number
            raise CxiError(
                f"{other.path}: {what} is {found}, but {expected} in {first.path}; expected one detector geometry"
            )
    present = [
        (_MASK[0], first.mask, other.mask),
        (_DARK[0], first.dark, other.dark),
        (_PROBE[0], first.probe, other.probe),
        (" or ".join(_I0), first.i0 is not None, other.i0 is not None),
    ]
    for what, expected, found in present:
        if expected != found:
            raise CxiError(
                f"{other.path}: {what} is {'there' if found else 'missing'}, unlike in {first.path}; "
                "expected the same optional fields in all files of a set"
            )
