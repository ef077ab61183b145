"""One CXI file: finds its fields, checks them and says in one line what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)
import numpy as np
from numpy.typing import NDArray
from scipy.constants import electron_volt

from ptychrome.analysis.scan import DataError, Orientation
from ptychrome.schema import DetectorGeometry

DETECTOR = "/entry_1/instrument_1/detector_1"
BEAM = "/entry_1/instrument_1/beam_1"
ENERGY = "/entry_1/instrument_1/source_1/energy"
DATA = (f"{DETECTOR}/data", "/entry_1/data_1/data")
TRANSLATION = ("/entry_1/sample_1/geometry_1/translation", "/entry_1/data_1/translation")
BASIS = f"{DETECTOR}/basis_vectors"
MASK = (f"{DETECTOR}/mask",)
DARK = (f"{DETECTOR}/data_dark", f"{DETECTOR}/dark")
PROBE = (f"{BEAM}/probe_guess",)
I0 = ("/entry_1/instrument_1/monitor_1/data", f"{BEAM}/flux", f"{BEAM}/total_flux")
SAMPLE_NAME = "/entry_1/sample_1/name"

LARGEST_ENERGY_J = 1e6 * electron_volt  # more is an energy in eV or keV, not an X-ray photon in joule
BLOCK_BYTES = 2**25


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


def read_cxi_file(path: Path) -> CxiFile:
    """Read and check the header of a file, and look through its frames once, block by block.

    Parameters
    ----------
    path : Path

    Returns
    -------
    CxiFile

    Raises
    ------
    CxiError
        If the file cannot be read, or a field is missing or does not fit the others.
    """
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
        dataset, (count, *shape), dtype = self._frames()
        frame = (shape[0], shape[1])
        header = CxiFile(
            path=self._path,
            energy_eV=energy_eV,
            geometry=self._geometry(frame),
            dataset=dataset,
            dtype=dtype,
            translation_m=self._translation(dataset, count),
            i0=self._i0(count),
            mask=self._static(MASK, frame),
            dark=self._static(DARK, frame),
            probe=self._probe(frame),
            sample_name=self._sample_name(),
        )
        self._check_counts(dataset, header.mask)
        return header

    def _fail(self, where: str, problem: str) -> CxiError:
        return CxiError(f"{self._path}: {where} {problem}")

    def _find(self, names: Sequence[str]) -> str | None:
        """The first of `names` that is a dataset; a link that leads nowhere counts as absent."""
        return next((name for name in names if isinstance(self._handle.get(name), h5py.Dataset)), None)

    def _need(self, names: Sequence[str], expected: str) -> str:
        name = self._find(names)
        if name is None:
            raise self._fail(" or ".join(names), f"is missing; expected {expected}")
        return name

    def _numbers(self, name: str, expected: str) -> NDArray[np.float64]:
        dataset = self._handle[name]
        if dataset.dtype.kind not in "iuf":
            raise self._fail(name, f"holds {dataset.dtype}; expected {expected}")
        return np.asarray(dataset[()], dtype=np.float64)

    def _positive(self, name: str, expected: str) -> float:
        values = self._numbers(self._need((name,), expected), expected)
        if values.size != 1 or not 0 < values.item() < np.inf:
            shown = values.item() if values.size == 1 else f"of shape {values.shape}"
            raise self._fail(name, f"is {shown}; expected {expected}")
        return float(values.item())

    def _energy_eV(self) -> float:
        energy_J = self._positive(ENERGY, "one photon energy in J")
        if energy_J > LARGEST_ENERGY_J:
            raise self._fail(ENERGY, f"is {energy_J:g}; expected one photon energy in J (1 keV is 1.6e-16 J)")
        return energy_J / electron_volt

    def _frames(self) -> tuple[str, tuple[int, ...], np.dtype]:
        name = self._need(DATA, "frames (n, ny, nx)")
        shape, dtype = self._handle[name].shape, self._handle[name].dtype
        if len(shape) != 3 or shape[0] < 2 or 0 in shape:
            raise self._fail(name, f"has shape {shape}; expected (n, ny, nx) with at least two frames")
        if dtype.kind not in "iuf":
            raise self._fail(name, f"holds {dtype}; expected counts")
        return name, shape, dtype

    def _translation(self, frames: str, count: int) -> NDArray[np.float64]:
        expected = "positions of the sample (n, 3) in m"
        name = self._need(TRANSLATION, expected)
        translation = self._numbers(name, expected)
        if translation.ndim != 2 or translation.shape[1] != 3:
            raise self._fail(name, f"has shape {translation.shape}; expected {expected}")
        if len(translation) != count:
            raise self._fail(
                name, f"has {len(translation)} positions; expected {count}, one for each frame in {frames}"
            )
        wrong = np.flatnonzero(~np.isfinite(translation).all(axis=1))
        if wrong.size:
            raise self._fail(name, f"is {translation[wrong[0]]} at position {wrong[0]}; expected {expected}")
        return translation

    def _geometry(self, shape: tuple[int, int]) -> DetectorGeometry:
        x_pixel = self._positive(f"{DETECTOR}/x_pixel_size", "the width of a pixel in m")
        y_pixel = self._positive(f"{DETECTOR}/y_pixel_size", "the height of a pixel in m")
        plain = DetectorGeometry(
            shape=shape,
            pixel_size_m=(y_pixel, x_pixel),
            distance_m=self._positive(f"{DETECTOR}/distance", "the distance of the detector in m"),
        )
        if self._find((BASIS,)) is None:
            return plain
        basis = self._numbers(BASIS, "the steps per row and per column (3, 2) in m")
        if basis.shape != (3, 2) or not np.isfinite(basis).all():
            raise self._fail(BASIS, f"is {basis.tolist()}; expected finite numbers (3, 2) in m")
        norms = np.linalg.norm(basis, axis=0)
        if not np.allclose(norms, plain.pixel_size_m, rtol=0.01):
            raise self._fail(
                BASIS,
                f"steps by {norms[0]:g} m per row and {norms[1]:g} m per column; "
                f"expected y_pixel_size {y_pixel:g} m and x_pixel_size {x_pixel:g} m within 1 %",
            )
        row_step, column_step = (tuple(step) for step in (basis / norms).T.tolist())
        try:
            Orientation.from_steps(row_step, column_step)
        except DataError as error:
            raise self._fail(BASIS, str(error)) from None
        steps = {"row_step": row_step, "column_step": column_step}
        return plain.model_copy(update={"pixel_size_m": tuple(norms.tolist()), **steps})

    def _static(self, names: Sequence[str], frame: tuple[int, int]) -> str | None:
        name = self._find(names)
        if name is None:
            return None
        values = self._numbers(name, "numbers")
        if values.shape != frame or not np.isfinite(values).all():
            raise self._fail(name, f"has shape {values.shape}; expected finite numbers {frame} as the frames")
        return name

    def _probe(self, frame: tuple[int, int]) -> str | None:
        name = self._find(PROBE)
        if name is None:
            return None
        dataset = self._handle[name]
        if dataset.shape[-2:] != frame or dataset.dtype.kind != "c" or not np.isfinite(dataset[()]).all():
            raise self._fail(
                name,
                f"holds {dataset.dtype} of shape {dataset.shape}; "
                f"expected finite complex numbers (modes, {frame[0]}, {frame[1]})",
            )
        return name

    def _i0(self, count: int) -> NDArray[np.float64] | None:
        name = self._find(I0)
        if name is None:
            return None
        values = self._numbers(name, "incident intensities").ravel()
        if values.size not in (1, count):
            raise self._fail(
                name, f"has {values.size} values; expected one, or one for each of {count} frames"
            )
        wrong = values[~((values > 0) & (values < np.inf))]
        if wrong.size:
            raise self._fail(name, f"holds {wrong[0]:g}; expected positive intensities")
        return np.broadcast_to(values, (count,))

    def _sample_name(self) -> str:
        name = self._find((SAMPLE_NAME,))
        dataset = None if name is None else self._handle[name]
        if dataset is None or dataset.shape != () or h5py.check_string_dtype(dataset.dtype) is None:
            return ""
        return str(dataset.asstr()[()]).strip()

    def _check_counts(self, name: str, mask: str | None) -> None:
        """Every unmasked pixel holds counts, or −1 where it was not measured; unsigned integers do."""
        frames = self._handle[name]
        if frames.dtype.kind == "u":
            return
        good = True if mask is None else self._handle[mask][()] == 0
        step = max(1, BLOCK_BYTES // (frames.dtype.itemsize * int(np.prod(frames.shape[1:]))))
        for first in range(0, len(frames), step):
            block = frames[first : first + step]
            wrong = good & ~(np.isfinite(block) & (block >= 0)) & (block != -1)
            if wrong.any():
                frame, row, column = np.argwhere(wrong)[0]
                raise self._fail(
                    name,
                    f"is {block[frame, row, column]} in frame {first + frame}, row {row}, column {column}; "
                    "expected counts ≥ 0, or −1 for a pixel not measured",
                )
