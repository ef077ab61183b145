"""What a reconstruction resolves: halves of a scan, alignment, ring correlation, transfer function.

Arrays in, arrays out; nothing here knows how the reconstructions were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, sparse, spatial
from skimage.registration import phase_cross_correlation

from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
Pixel = tuple[float, float]
Criterion = Literal["half_bit", "one_bit"]


@dataclass(frozen=True)
class RingCorrelation:
    """Fourier ring correlation of two images, with the thresholds of van Heel & Schatz (2005).

    Attributes
    ----------
    frequency : (m,) float64, 1/m
        Mean spatial frequency of each ring.
    correlation : (m,) float64
        Re Σ F₁ F₂* over √(Σ|F₁|² Σ|F₂|²); 0 where a ring is empty.
    samples : (m,) float64
        Number n of independent Fourier samples, see `fourier_ring_correlation`.
    nyquist : float, 1/m
        Nyquist frequency of the coarser axis.
    """

    frequency: Float
    correlation: Float
    samples: Float
    nyquist: float

    @property
    def half_bit(self) -> Float:
        """(m,) float64: half a bit of information per sample in the mean of both images."""
        root = np.sqrt(self.samples)
        return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)

    @property
    def one_bit(self) -> Float:
        """(m,) float64: one bit of information per sample."""
        root = np.sqrt(self.samples)
        return (0.5 + 2.4142 / root) / (1.5 + 1.4142 / root)

    def resolution_m(self, criterion: Criterion = "half_bit") -> float:
        """Full period at the first crossing, interpolated between rings.

        Parameters
        ----------
        criterion : str
            ``half_bit`` or ``one_bit``.

        Returns
        -------
        float, m
            NaN if the lowest ring is already below; the Nyquist full period, a bound set by the pixels and
            flagged by `reaches_nyquist`, if none is.
        """
        return _first_crossing(self.frequency, self.correlation - getattr(self, criterion), self.nyquist)

    def reaches_nyquist(self, criterion: Criterion = "half_bit") -> bool:
        """Whether the correlation stays above the threshold in every ring."""
        return bool(np.all(self.correlation >= getattr(self, criterion)))


@dataclass(frozen=True)
class TransferFunction:
    """Phase-retrieval transfer function.

    Attributes
    ----------
    frequency : (m,) float64, 1/m
        Mean spatial frequency of each ring.
    prtf : (m,) float64
        Share of the measured amplitude that the mean of the reconstructions keeps.
    nyquist : float, 1/m
        Nyquist frequency of the coarser axis.
    """

    frequency: Float
    prtf: Float
    nyquist: float

    def resolution_m(self, level: float = float(np.exp(-1))) -> float:
        """Full period where the curve first falls to `level`.

        Parameters
        ----------
        level : float

        Returns
        -------
        float, m
            NaN if the lowest ring is already below, the Nyquist full period if none is.
        """
        return _first_crossing(self.frequency, self.prtf - level, self.nyquist)


def align_ambiguities(
    image: NDArray, reference: NDArray, weight: NDArray, *, largest_shift_px: float = 8.0
) -> tuple[NDArray, tuple[float, float]]:
    """Remove what ptychography leaves open between two reconstructions, by weighted least squares.

    A complex factor and a phase ramp (complex images) or an offset and a plane (real ones), and a shift in
    steps of 1/100 px (Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008)), applied in Fourier space to the
    mirrored image, which leaves noise white.

    Parameters
    ----------
    image, reference : (ny, nx) float or complex
    weight : (ny, nx) float or bool
        Not negative; soft edges let the shift be found.
    largest_shift_px : float
        A larger shift is taken for noise and not applied.

    Returns
    -------
    image : (ny, nx) float64 or complex128
        Brought onto the reference.
    shift : (float, float), pixels
        Along rows and columns, as applied.

    Raises
    ------
    DataError
        If shapes differ, or pixels with weight are missing or not finite.
    """
    weight = np.asarray(weight, dtype=np.float64)
    moving, fixed = (_checked_image(each, weight) for each in (image, reference))
    flat = matched = _match(moving, fixed, weight)
    shift = np.zeros(2)
    for _ in range(3):  # the weight does not move along and holds the shift back: repeat
        smooth = [_weighted(ndimage.gaussian_filter(each, 1.0), weight) for each in (fixed, matched)]
        step, _, _ = phase_cross_correlation(*smooth, upsample_factor=100, normalization=None)
        shift = shift + np.asarray(step, dtype=np.float64)
        if np.abs(shift).max() > largest_shift_px:
            return flat, (0.0, 0.0)
        matched = _match(_shifted(flat, shift), fixed, weight)
    return matched, (float(shift[0]), float(shift[1]))


def fourier_ring_correlation(
    first: NDArray, second: NDArray, pixel_m: Pixel, region: Mask | None = None, *, taper: float = 0.5
) -> RingCorrelation:
    """Fourier ring correlation of two images, the second brought onto the first (`align_ambiguities`).

    Frequencies count from the carrier of the first: level complex images (`normalise`) before. Weighted
    means are subtracted. The soft window w correlates neighbouring Fourier samples; the independent share,
    (D/L)² for an object of size D in the source, is here A / (ny nx) with A = (Σw²)² / Σw⁴ (exact for wide
    rings, a fifth too small in these), half of it for real images (Friedel pairs). Rings are 1/√A wide, or
    a Fourier pixel of the shorter side. Source: van Heel & Schatz, J. Struct. Biol. 151, 250 (2005).

    Parameters
    ----------
    first, second : (ny, nx) float or complex
    pixel_m : (float, float), m
    region : (ny, nx) bool, optional
        Pixels to use, such as the well-lit field; default all.
    taper : float
        Width of the window's sin² edge over the region's largest depth: 1, like Hann, leaks least; 0 is hard.

    Returns
    -------
    RingCorrelation

    Raises
    ------
    DataError
        If shapes differ, pixels of the region are not finite, or it is too small for one ring.
    """
    region = np.ones(first.shape, dtype=bool) if region is None else np.asarray(region, dtype=bool)
    window = _soft_window(region, taper)
    one = _checked_image(first, window)
    two, _ = align_ambiguities(second, first, window)
    one_hat, two_hat = (fft.fft2(_weighted(each, window)) for each in (one, two))
    area = np.sum(window**2) ** 2 / np.sum(window**4)
    index, frequency, nyquist = _rings(one.shape, pixel_m, 1 / np.sqrt(area * pixel_m[0] * pixel_m[1]))
    planes = (one_hat * np.conj(two_hat)).real, np.abs(one_hat) ** 2, np.abs(two_hat) ** 2, np.ones(one.shape)
    cross, power, other, pixels = (_ring_sums(index, plane, len(frequency)) for plane in planes)
    norm = np.sqrt(power * other)
    correlation = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)
    samples = pixels * (1.0 if np.iscomplexobj(two) else 0.5) * area / one.size
    return RingCorrelation(frequency, correlation, samples, nyquist)


def phase_retrieval_transfer_function(
    waves: Sequence[NDArray] | NDArray, amplitude: NDArray, pixel_m: Pixel
) -> TransferFunction:
    """Transfer function of k independent reconstructions, √(Σ|⟨Ψ⟩|² / ΣI) over rings and positions.

    k = 1 is the plain ratio |Ψ|/√I. Each wave first gets the phase (per position) and the linear phase (a
    common shift of probe and object) of the first. The mean is quadratic because ΣI is unbiased where
    ⟨|Ψ|/√I⟩ diverges on single photons. Unrelated phases give 1/√k, so the level 1/e needs k ≥ 8. Coherent
    models only: the strongest of several modes alone stays below 1.
    Sources: Chapman et al., J. Opt. Soc. Am. A 23, 1179 (2006); Uematsu et al. (2023).

    Parameters
    ----------
    waves : (k, n_pos, ny, nx) complex, √photons
        Far-field waves Ψ, zero frequency at [0, 0].
    amplitude : (n_pos, ny, nx) float32, √photons
        In the same order; negative where not measured.
    pixel_m : (float, float), m
        Object pixel.

    Returns
    -------
    TransferFunction

    Raises
    ------
    DataError
        If shapes differ, there is no wave, or no ring holds measured photons.
    """
    if not len(waves) or any(np.shape(wave) != amplitude.shape for wave in waves):
        raise DataError(f"{len(waves)} waves do not have the shape {amplitude.shape} of the amplitudes")
    measured = amplitude >= 0
    mean = np.array(waves[0], dtype=np.complex128)
    for wave in waves[1:]:
        mean += _in_phase(wave, waves[0], measured)
    mean /= len(waves)
    index, frequency, nyquist = _rings(amplitude.shape[1:], pixel_m)
    power, photons = (
        _ring_sums(index, np.sum(each.astype(np.float64) ** 2, axis=0, where=measured), len(frequency))
        for each in (np.abs(mean), amplitude)
    )
    seen = photons > 0
    if not seen.any():
        raise DataError("no measured photons in any ring; expected amplitudes in √photons")
    return TransferFunction(frequency[seen], np.sqrt(power[seen] / photons[seen]), nyquist)


def checkerboard_halves(positions: Float) -> tuple[Mask, Mask]:
    """Split any scan into two interleaved halves whose sizes differ by one at most.

    Colours alternate along the minimum spanning tree, an exact checkerboard on a raster; then they are
    flipped and swapped as long as that parts more close neighbours.

    Parameters
    ----------
    positions : (n, 2) float64, m
        In any order.

    Returns
    -------
    first, second : (n,) bool
        Members of each half.

    Raises
    ------
    DataError
        If positions are fewer than two, of another shape, or not finite.
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.shape != (max(len(positions), 2), 2) or not np.isfinite(positions).all():
        raise DataError(f"positions of shape {positions.shape}; expected finite (n, 2) with n of 2 or more")
    distance = spatial.distance.cdist(positions, positions)
    distance = np.maximum(distance / (distance.max() or 1.0), 1e-6)  # SciPy takes less than 1e-8 for no edge
    tree = sparse.csgraph.minimum_spanning_tree(distance)
    order, parent = sparse.csgraph.breadth_first_order(tree, 0, directed=False)
    sign = np.ones(len(positions))
    for node in order[1:]:
        sign[node] = -sign[parent[node]]
    near = np.exp(-0.5 * (distance / np.median(tree.data)) ** 2)
    np.fill_diagonal(near, 0.0)
    for _ in range(len(sign)):
        gain = sign * (near @ sign)  # weight of same-coloured neighbours less that of the others
        plus, minus = (int(np.argmax(np.where(sign == colour, gain, -np.inf))) for colour in (1, -1))
        if abs(surplus := sign.sum()) > 1:
            sign[plus if surplus > 0 else minus] *= -1
        elif gain[plus] + gain[minus] + 2 * near[plus, minus] > 1e-9:
            sign[[plus, minus]] *= -1
        else:
            break
    return sign > 0, sign < 0


def _first_crossing(frequency: Float, excess: Float, nyquist: float) -> float:
    below = np.flatnonzero(excess < 0)
    if not below.size or below[0] == 0:
        return float("nan") if below.size else 1 / nyquist
    pair = slice(below[0] - 1, below[0] + 1)
    return 1 / float(np.interp(0.0, -excess[pair], frequency[pair]))


def _rings(
    shape: tuple[int, ...], pixel_m: Pixel, least_width: float = 0.0
) -> tuple[NDArray[np.int64], Float, float]:
    """Ring of each Fourier pixel, mean frequency of the rings 1, 2, … full up to Nyquist, and Nyquist."""
    axes = [fft.fftfreq(n, pixel) for n, pixel in zip(shape, pixel_m, strict=True)]
    radius = np.hypot(axes[0][:, None], axes[1][None, :])
    width = max(least_width, *(abs(axis[1]) for axis in axes))
    nyquist = 0.5 / max(pixel_m)
    count = int(nyquist / width - 0.5 + 1e-9)
    if count < 1:
        raise DataError(f"rings of {width:.3g} 1/m do not fit below {nyquist:.3g} 1/m; use a larger area")
    index = np.floor(radius / width + 0.5).astype(np.int64)
    pixels = _ring_sums(index, np.ones(shape), count)
    return index, _ring_sums(index, radius, count) / pixels, nyquist


def _ring_sums(index: NDArray[np.int64], values: Float, count: int) -> Float:
    return np.bincount(index.ravel(), values.ravel(), count + 1)[1 : count + 1].astype(np.float64)


def _soft_window(region: Mask, taper: float) -> Float:
    """1 well inside, a sin² edge towards the region's border and the frame's."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    edge = max(taper * depth.max(), 1.0)
    return np.sin(np.pi / 2 * np.minimum(depth / edge, 1)) ** 2


def _checked_image(image: NDArray, weight: Float) -> NDArray:
    """The image in double precision; what has no weight and is not finite becomes the weighted mean."""
    if image.shape != weight.shape or image.ndim != 2:
        raise DataError(f"image {image.shape} and weight {weight.shape}; expected the same two axes")
    used = weight > 0
    if not used.any() or not np.isfinite(image[used]).all():
        raise DataError("expected finite pixels with a positive weight; there are none or some are NaN")
    image = image.astype(np.complex128 if np.iscomplexobj(image) else np.float64)
    image[~np.isfinite(image)] = np.average(image[used], weights=weight[used])
    return image


def _weighted(image: NDArray, weight: Float) -> NDArray:
    return weight * (image - np.average(image, weights=weight))


def _match(image: NDArray, reference: NDArray, weight: Float) -> NDArray:
    """Least-squares factor and phase ramp (complex) or offset and plane (real)."""
    if np.iscomplexobj(image) or np.iscomplexobj(reference):
        image = image * np.exp(-1j * _phase_plane(weight * image * np.conj(reference)))
        power = np.sum(weight * np.abs(image) ** 2)
        return image * (np.sum(weight * image * np.conj(reference)).real / power if power > 0 else 1.0)
    design, root = _plane_design(image.shape), np.sqrt(weight).ravel()
    plane, *_ = np.linalg.lstsq((design * root).T, root * (reference - image).ravel(), rcond=None)
    return image + (plane @ design).reshape(image.shape)


def _plane_design(shape: tuple[int, ...]) -> Float:
    return np.vstack([np.ones(np.prod(shape)), *np.indices(shape).reshape(2, -1)])


def _phase_plane(product: NDArray) -> Float:
    """The phase plane p that maximises Re Σ product · exp(−ip): Fourier peak, then Newton's method."""
    shape = product.shape
    padded = [2 * n for n in shape]
    peak = np.unravel_index(np.argmax(np.abs(fft.fft2(product, s=padded))), padded)
    slopes = [2 * np.pi * fft.fftfreq(n)[k] for n, k in zip(padded, peak, strict=True)]
    design, product = _plane_design(shape), product.ravel()
    plane = np.array([0.0, *slopes])
    plane[0] = np.angle(np.sum(product * np.exp(-1j * plane @ design)))
    for _ in range(10):
        rest = product * np.exp(-1j * plane @ design)
        step, *_ = np.linalg.lstsq((design * rest.real) @ design.T, design @ rest.imag, rcond=1e-12)
        plane += step
    return (plane @ design).reshape(shape)


def _shifted(image: NDArray, shift: Float) -> NDArray:
    """Fourier shift of the mirrored image, which has no jump at its border."""
    mirrored = np.pad(image, [(0, n) for n in image.shape], mode="symmetric")
    moved = fft.ifft2(ndimage.fourier_shift(fft.fft2(mirrored), shift))[: image.shape[0], : image.shape[1]]
    return moved if np.iscomplexobj(image) else moved.real


def _in_phase(wave: NDArray, first: NDArray, measured: Mask) -> NDArray:
    """Waves (n_pos, ny, nx) with a phase per position and one linear phase taken from the first."""
    product = np.where(measured, wave * np.conj(first), 0)
    phase = np.angle(product.sum(axis=(1, 2), keepdims=True))
    plane = _phase_plane(fft.fftshift(np.sum(product * np.exp(-1j * phase), axis=0)))
    ramp = np.exp(-1j * fft.ifftshift(plane))
    phase = np.angle(np.sum(product * ramp, axis=(1, 2), keepdims=True))
    return wave * ramp * np.exp(-1j * phase)
