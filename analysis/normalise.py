"""What ptychography leaves open, fixed per energy from the vacuum: amplitude, phase offset and phase ramp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

LEAST_SHARE = 0.03  # of the field that must be vacuum
LARGEST_SPREAD = 0.25  # of the phase in vacuum, as a share of the phase of matter


@dataclass(frozen=True)
class Normalised:
    """A transmission with vacuum = 1.

    Attributes
    ----------
    object : (ny, nx) complex64
        Transmission.
    vacuum : (ny, nx) bool
        Pixels that served as vacuum; none where it was not found.
    found_vacuum : bool
        False where no vacuum could be told apart from matter, as in an object that fills the field:
        amplitude and phase are then relative to the field's middle.
    """

    object: NDArray[np.complex64]
    vacuum: NDArray[np.bool_]
    found_vacuum: bool = True


def phase_of(obj: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Phase of a normalised transmission in (−3π/2, π/2]: matter retards, so 4.7 rad need no unwrapping."""
    return (np.angle(obj * 1j) - np.pi / 2).astype(np.float32)


def absorbance_of(obj: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Absorbance μt = −2 ln|O| (dimensionless), of the same shape as `obj`."""
    return (-2 * np.log(np.maximum(np.abs(obj), 1e-6))).astype(np.float32)


def normalise(
    obj: NDArray[np.complexfloating],
    field: NDArray[np.bool_],
    vacuum: NDArray[np.bool_] | None = None,
    *,
    light: NDArray[np.floating] | None = None,
    margin_px: int = 3,
) -> Normalised:
    """Divide a transmission by the plane wave it shows in vacuum.

    Parameters
    ----------
    obj : (ny, nx) complex
        Reconstructed transmission with arbitrary amplitude, phase offset and phase ramp.
    field : (ny, nx) bool
        Pixels that were well lit.
    vacuum : (ny, nx) bool, optional
        Known vacuum; by default it is found from the phase (Otsu's threshold, then a margin).
    light : (ny, nx) float, optional
        Light that each pixel received, any unit: its weight in the plane wave. What is dim converges last.
    margin_px : int
        Distance kept from the particle when the vacuum is found, pixels.

    Returns
    -------
    Normalised
    """
    light = np.ones(obj.shape) if light is None else light
    if vacuum is not None:
        return Normalised(_divide_plane_wave(obj, vacuum & field, light), vacuum & field)
    level = flat = _remove_mean_gradient(obj, field)
    found = _find_vacuum(flat, field, margin_px)
    for _ in range(2):
        if _enough(found, field):
            flat = _divide_plane_wave(flat, found, light)
            found = _find_vacuum(flat, field, margin_px)
    if _enough(found, field):
        flat = _divide_plane_wave(flat, found, light)
        if _flat_beside_matter(phase_of(flat), field, found):
            return Normalised(flat, found)
    scale = np.median(np.abs(level[field])) * np.exp(1j * np.angle(np.sum(level[field])))
    return Normalised((level / scale).astype(np.complex64), np.zeros_like(field), False)


def _enough(vacuum: NDArray[np.bool_], field: NDArray[np.bool_]) -> bool:
    return bool(vacuum.sum() >= max(20, LEAST_SHARE * field.sum()))


def _flat_beside_matter(
    phase: NDArray[np.float32], field: NDArray[np.bool_], vacuum: NDArray[np.bool_]
) -> bool:
    """Vacuum is flat; in an object that fills the field, the thin places are as uneven as the rest."""
    matter = field & ~vacuum
    if not matter.any():  # nothing at all, or a slab: no way to know
        return False
    spread = 1.4826 * np.median(np.abs(phase[vacuum]))
    return bool(spread < LARGEST_SPREAD * -np.median(phase[matter]))


def _remove_mean_gradient(obj: NDArray, field: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """Level an image by its mean phase step: flat vacuum weighs in, a particle's slopes average out."""
    slopes = []
    for axis in (0, 1):
        both = field & np.roll(field, -1, axis)
        step = np.where(both, np.roll(obj, -1, axis) * np.conj(obj), 0)
        step /= np.maximum(np.abs(step), 1e-12)
        slopes.append(np.angle(np.sum(step)))
    return (obj * _plane_wave(obj.shape, *slopes)).astype(np.complex64)


def _plane_wave(shape: tuple[int, int], down: float, right: float) -> NDArray[np.complex128]:
    """exp(−i(down · row + right · column))."""
    rows, columns = (
        np.exp(-1j * slope * np.arange(n)) for slope, n in zip((down, right), shape, strict=True)
    )
    return rows[:, None] * columns


def _find_vacuum(obj: NDArray, field: NDArray[np.bool_], margin_px: int) -> NDArray[np.bool_]:
    phase = np.angle(obj[field])
    counts, edges = np.histogram(phase, bins=64, range=(-np.pi, np.pi))
    smooth = ndimage.uniform_filter1d(counts.astype(float), 3, mode="wrap")
    mode = edges[np.argmax(smooth)] + np.pi / 64
    relative = ndimage.gaussian_filter(phase_of(obj * np.exp(-1j * mode)), 1.0)
    threshold = threshold_otsu(np.clip(relative[field], -1.5, 0.5))
    upper = relative[field & (relative > threshold)]
    level = np.median(upper)  # the mode is only as fine as its histogram
    spread = 1.4826 * np.median(np.abs(upper - level))
    matter = field & (relative - level < min((threshold - level) / 2, -4 * spread))
    matter = ndimage.binary_opening(matter)
    return field & ~ndimage.binary_dilation(matter, iterations=margin_px)


def _divide_plane_wave(
    obj: NDArray, vacuum: NDArray[np.bool_], light: NDArray[np.floating]
) -> NDArray[np.complex64]:
    """Least-squares plane of the phase and median log amplitude over the vacuum, with one robust pass."""
    rows, columns = np.nonzero(vacuum)
    middle = np.angle(np.sum(obj[vacuum]))
    values = obj[vacuum] * np.exp(-1j * middle)
    design = np.stack([np.ones(len(rows)), rows / obj.shape[0], columns / obj.shape[1]])
    phase = np.angle(values)
    known = light[vacuum].astype(np.float64)
    weight = known
    for _ in range(2):
        weighted = design * weight
        plane, *_ = np.linalg.lstsq(weighted @ design.T, weighted @ phase, rcond=None)
        rest = phase - plane @ design
        spread = 1.4826 * np.median(np.abs(rest)) + 1e-9
        weight = known * (np.abs(rest) < 4 * spread)
    log_amplitude = _weighted_median(np.log(np.maximum(np.abs(values), 1e-6)), known)
    constant = np.exp(-log_amplitude - 1j * (plane[0] + middle))
    wave = _plane_wave(obj.shape, plane[1] / obj.shape[0], plane[2] / obj.shape[1])
    return (obj * (constant * wave)).astype(np.complex64)


def _weighted_median(values: NDArray[np.floating], weight: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    share = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])
