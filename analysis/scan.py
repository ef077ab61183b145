"""What one energy of a scan measured: geometry, positions and prepared frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import KDTree

from ptychrome.analysis.optics import pixel_size_m

LARGEST_OBJECT_PX = 2**28
SAME_POSITION_PX = 0.1


class DataError(ValueError):
    """Measured data that cannot be reconstructed; the message names what is wrong and what was expected."""


@dataclass(frozen=True)
class Orientation:
    """How rows and columns of a frame run in the CXI frame (z along the beam, y up).

    A frame whose rows run along x is transposed once, on reading, so that afterwards rows always
    follow y and columns x, each with a sign.

    Attributes
    ----------
    transpose : bool
        Whether frames must be transposed.
    row_sign, column_sign : int
        +1 or −1: the sense of y along rows and of x along columns (after transposing).
    """

    transpose: bool = False
    row_sign: int = -1
    column_sign: int = -1

    @classmethod
    def from_steps(cls, row_step: tuple[float, ...], column_step: tuple[float, ...]) -> Orientation:
        """Orientation of a detector from its two basis vectors.

        Raises
        ------
        DataError
            If the vectors are not within 1 degree of two different axes of the laboratory.
        """
        row, column = (np.asarray(v, dtype=float) / np.linalg.norm(v) for v in (row_step, column_step))
        transpose = abs(row[0]) > abs(row[1])
        if transpose:
            row, column = column, row
        if min(abs(row[1]), abs(column[0])) < np.cos(np.radians(1.0)):
            raise DataError(
                f"detector basis vectors {row_step}, {column_step} are not along x and y; "
                "expected a detector aligned with the laboratory within 1 degree"
            )
        return cls(bool(transpose), int(np.sign(row[1])), int(np.sign(column[0])))


@dataclass(frozen=True)
class ScanGeometry:
    """Geometry of one energy.

    Attributes
    ----------
    energy_eV : float
        Photon energy, eV.
    shape : (int, int)
        Rows and columns of a frame (after transposing).
    detector_pixel_m : (float, float)
        Pitch along rows and columns, m.
    distance_m : float
        Sample to detector, m.
    orientation : Orientation
        Sense of rows and columns.
    center_m : (float, float)
        (y, x) of the sample point drawn at the centre of the object array, CXI frame, m.
    """

    energy_eV: float
    shape: tuple[int, int]
    detector_pixel_m: tuple[float, float]
    distance_m: float
    orientation: Orientation = Orientation()
    center_m: tuple[float, float] = (0.0, 0.0)

    @property
    def pixel_m(self) -> tuple[float, float]:
        """Free-running object pixel along rows and columns, m."""
        return pixel_size_m(self.energy_eV, self.distance_m, self.detector_pixel_m, self.shape)

    def offsets_px(self, stage_yx_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the probe hits, in pixels from the centre of the object.

        Parameters
        ----------
        stage_yx_m : (n, 2) float64, m
            Translations (y, x) of the sample; the probe moves over the sample by minus this.

        Returns
        -------
        (n, 2) float64
            (row, column) offsets in object pixels.
        """
        signs = np.array([self.orientation.row_sign, self.orientation.column_sign])
        return (-stage_yx_m - np.asarray(self.center_m)) * signs / np.asarray(self.pixel_m)

    def travel_px(self, travel_yx_m: tuple[float, float]) -> tuple[float, float]:
        """(row, column) way of the probe, object pixels, for a way (y, x) of the sample, m."""
        start, end = self.offsets_px(np.array([(0.0, 0.0), travel_yx_m]))
        rows, columns = end - start
        return float(rows), float(columns)


@dataclass(frozen=True)
class DiffractionData:
    """Prepared frames of one energy, ready for an engine.

    Attributes
    ----------
    amplitude : (n, ny, nx) float32
        √photons, zero frequency at [0, 0]; negative where a pixel was not measured and is left free.
    corner : (n, 2) int64
        First row and column of each position's window in the object.
    fraction : (n, 2) float32
        Sub-pixel part of each position, within ±0.5.
    object_shape : (int, int)
        Shape of the object array.
    photons : float
        Photons per frame of the unattenuated beam (estimate from the brightest frames).
    scale : (n,) float32
        Amplitude of the incident beam of each frame, relative to its mean.
    pixel_m : (float, float)
        Object pixel along rows and columns, m.
    travel_px : (float, float)
        (row, column) way of the probe over the object during one exposure, object pixels; there and back are
        the same, and the positions are those in the middle.
    """

    amplitude: NDArray[np.float32]
    corner: NDArray[np.int64]
    fraction: NDArray[np.float32]
    object_shape: tuple[int, int]
    photons: float
    scale: NDArray[np.float32]
    pixel_m: tuple[float, float]
    travel_px: tuple[float, float] = (0.0, 0.0)


def prepare(
    frames: NDArray,
    geometry: ScanGeometry,
    stage_yx_m: NDArray[np.float64],
    *,
    mask: NDArray | None = None,
    dark: NDArray | None = None,
    i0: NDArray[np.float64] | None = None,
    travel_yx_m: tuple[float, float] = (0.0, 0.0),
    margin_px: int = 2,
) -> DiffractionData:
    """Turn counts and stage readings into amplitudes and pixel positions.

    Parameters
    ----------
    frames : (n, ny, nx) integer or float, photons
        Raw frames. −1, NaN, infinity, negative integers and the largest value of an integer type mark pixels
        not measured. Other negative numbers (of which a dark was subtracted) are no photons.
    geometry : ScanGeometry
    stage_yx_m : (n, 2) float64, m
        Sample translations (y, x).
    mask : (ny, nx) integer, optional
        0 = good.
    dark : (ny, nx), optional, photons
        Subtracted from every frame.
    i0 : (n,) float, optional
        Incident intensity of each frame, any unit; becomes the scale of the frame.
    travel_yx_m : (float, float), m
        Way (y, x) of the sample during one exposure, at constant speed.
    margin_px : int
        Pixels added around the scanned field.

    Returns
    -------
    DiffractionData

    Raises
    ------
    DataError
        If numbers of frames and positions differ, fewer than two positions, positions are not finite, all
        the same, farther apart than a window or spread over an absurd field; if mask, dark or incident
        intensity do not fit, nothing is measured, or every frame is empty.
    """
    where = f"at {geometry.energy_eV:.2f} eV"
    _check(frames, geometry, stage_yx_m, i0)
    offsets = geometry.offsets_px(stage_yx_m)
    half_extent = _half_extent(offsets, stage_yx_m, geometry) + margin_px
    counts, invalid = _counts(frames, mask, dark, where)
    relative = np.ones(len(frames)) if i0 is None else i0 / np.mean(i0)
    total = np.sum(counts, axis=(1, 2), where=~invalid) / relative
    if not total.max() > 0:
        cause = "" if dark is None else " after the dark was subtracted, which is larger than the counts"
        raise DataError(f"all {len(frames)} frames {where} are empty{cause}; expected photons")
    amplitude = np.sqrt(counts)
    amplitude[invalid] = -1.0
    window = np.asarray(geometry.shape)
    # sizes of small prime factors: 227 takes four times as long to transform as 240
    object_shape = np.array([fft.next_fast_len(int(n), real=True) for n in window + 2 * half_extent])
    whole = np.floor(offsets + 0.5).astype(np.int64)
    return DiffractionData(
        amplitude=fft.ifftshift(amplitude, axes=(1, 2)),
        corner=whole + object_shape // 2 - window // 2,
        fraction=(offsets - whole).astype(np.float32),
        object_shape=(int(object_shape[0]), int(object_shape[1])),
        photons=float(np.mean(total[total >= np.quantile(total, 0.9)])),
        scale=np.sqrt(relative).astype(np.float32),
        pixel_m=geometry.pixel_m,
        travel_px=geometry.travel_px(travel_yx_m),
    )


def _counts(
    frames: NDArray, mask: NDArray | None, dark: NDArray | None, where: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Photons, not negative, and which pixels were not measured; both of the frames' shape."""
    shape = frames.shape[1:]
    counts = frames.astype(np.float32)
    invalid = ~np.isfinite(counts) | (counts == -1)
    if np.issubdtype(frames.dtype, np.integer):
        invalid |= (frames == np.iinfo(frames.dtype).max) | (frames < 0)
    for name, array in (("mask", mask), ("dark", dark)):
        if array is not None and np.shape(array) not in (shape, frames.shape):
            raise DataError(f"the {name} {where} has shape {np.shape(array)}; expected {shape}")
    if mask is not None:
        invalid |= np.asarray(mask) != 0
    if dark is not None:
        dark = np.asarray(dark, dtype=np.float32)
        invalid |= ~np.isfinite(dark)
        counts = counts - dark
    if invalid.all():
        raise DataError(
            f"no pixel {where} is measured: all are masked or flagged; expected a mask that is 0 where good"
        )
    counts[invalid] = 0
    return np.maximum(counts, 0), invalid


def _half_extent(
    offsets: NDArray[np.float64], stage_yx_m: NDArray[np.float64], geometry: ScanGeometry
) -> NDArray[np.int64]:
    """Pixels that the probe moves from the centre of the object, at most; along rows and columns."""
    where = f"at {geometry.energy_eV:.2f} eV"
    window = np.asarray(geometry.shape)
    half = np.ceil(np.abs(offsets).max(axis=0))
    pixels = np.prod(window + 2 * half)
    spread_m = np.ptp(stage_yx_m, axis=0)
    if pixels > LARGEST_OBJECT_PX:
        raise DataError(
            f"positions {where} spread over {spread_m[0]:.3g} × {spread_m[1]:.3g} m and lie up to "
            f"{np.abs(stage_yx_m).max():.3g} m from zero: an object of {pixels:.1e} pixels "
            f"of {geometry.pixel_m[0]:.2e} m; expected metres (are they in µm or mm?) around `center_m`"
        )
    if not np.ptp(offsets, axis=0).max() > SAME_POSITION_PX:
        raise DataError(
            f"all {len(offsets)} positions {where} are the same within {spread_m.max():.1e} m; "
            "ptychography needs a scan (did the stage move? are positions in metres?)"
        )
    apart = nearest(offsets / window)
    if apart > 1:
        raise DataError(
            f"neighbouring positions {where} are {apart:.3g} windows apart (a window is "
            f"{window[0] * geometry.pixel_m[0]:.2e} m); ptychography needs overlapping positions, in metres"
        )
    return half.astype(np.int64)


def nearest(offsets: NDArray[np.float64]) -> float:
    """Median distance of positions (n, 2) to the nearest other place, in their unit."""
    distance, _ = KDTree(np.unique(offsets, axis=0)).query(np.unique(offsets, axis=0), k=2)
    return float(np.median(distance[:, 1]))


def _check(frames: NDArray, geometry: ScanGeometry, stage_yx_m: NDArray, i0: NDArray | None) -> None:
    where = f"at {geometry.energy_eV:.2f} eV"
    if frames.ndim != 3 or frames.shape[1:] != geometry.shape:
        raise DataError(f"frames {where} have shape {frames.shape}; expected (n, {geometry.shape})")
    if len(frames) != len(stage_yx_m):
        raise DataError(
            f"{len(frames)} frames but {len(stage_yx_m)} positions {where}; expected equal numbers"
        )
    if len(frames) < 2:
        raise DataError(f"only {len(frames)} position {where}; ptychography needs overlapping positions")
    if not np.isfinite(stage_yx_m).all():
        raise DataError(f"positions {where} hold NaN or infinity; expected metres")
    if i0 is not None and np.shape(i0) != (len(frames),):
        raise DataError(f"incident intensity {where} has shape {np.shape(i0)}; expected ({len(frames)},)")
    if i0 is not None and not (np.isfinite(i0).all() and (i0 > 0).all()):
        raise DataError(f"incident intensity {where} is not positive everywhere; check the ion chamber")
