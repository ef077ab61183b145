"""What a reconstruction cost and what it left: fluence, dose, residuals, noise against the shot limit.

Arrays in, arrays out; nothing here knows how the reconstruction was made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
Pixel = tuple[float, float]
ELEMENTARY_CHARGE_C = 1.602176634e-19  # J per eV
ELAM_RANGE_EV = (100.0, 800e3)  # where the tables of Elam, Ravel & Sieber are reliable


@dataclass(frozen=True)
class ShotNoise:
    """Noise against the shot-noise reference σ = 1/(2√n), from `noise_vs_shot_limit`.

    Attributes
    ----------
    ratio : float
        Robust spread over σ of the difference without its long periods; white noise of spread σ: 1.
    low_ratio : float
        The same of the long periods.
    white_low_ratio : float
        What white noise would leave in `low_ratio`.
    high, low : (ny, nx) float64
        The two parts in the unit of the difference, NaN outside the region.
    """

    ratio: float
    low_ratio: float
    white_low_ratio: float
    high: Float
    low: Float


def fluence_per_m2(illumination: NDArray, pixel_m: Pixel) -> Float:
    """Photons per area of the sample.

    Parameters
    ----------
    illumination : (ny, nx) float32, photons
        Σ|P|² over all positions, per object pixel.
    pixel_m : (float, float), m

    Returns
    -------
    (ny, nx) float64, photons/m²
    """
    return np.asarray(illumination, dtype=np.float64) / (pixel_m[0] * pixel_m[1])


def dose_Gy(photons_per_m2: ArrayLike, energy_eV: float, formula: str) -> Float:
    """Dose at the entrance of a material: fluence · E · μ/ρ.

    μ/ρ is the photoelectric part (Elam, Ravel & Sieber 2002, through xraydb); fluorescence counts as
    absorbed, so a small particle above the V K edge gets up to a fifth less.

    Parameters
    ----------
    photons_per_m2 : float array of any shape, photons/m²
    energy_eV : float
    formula : str
        Such as ``"V2O5"``; fractions as decimals, ``"Li1.43V0.86O2"``.

    Returns
    -------
    float64 array of the same shape, Gy

    Raises
    ------
    DataError
        If an element or the formula is unknown or the energy is outside 100 eV to 800 keV.
    """
    if not ELAM_RANGE_EV[0] <= energy_eV <= ELAM_RANGE_EV[1]:
        raise DataError(f"no absorption tables at {energy_eV} eV; expected 100 eV to 800 keV")
    try:
        masses = {el: n * xraydb.atomic_mass(el) for el, n in xraydb.chemparse(formula).items()}
        absorbed = sum(m * float(xraydb.mu_elam(el, energy_eV, kind="photo")) for el, m in masses.items())
    except (ValueError, IndexError) as error:
        raise DataError(f"cannot read the formula {formula!r}; expected one like 'Li1.43V0.86O2'") from error
    if not sum(masses.values()) > 0:
        raise DataError(f"the formula {formula!r} holds no element; expected one like 'V2O5'")
    m2_per_kg = 0.1 * absorbed / sum(masses.values())  # the tables are in cm²/g
    return np.asarray(photons_per_m2, dtype=np.float64) * energy_eV * ELEMENTARY_CHARGE_C * m2_per_kg


def residual_map(amplitude: NDArray, model_amplitude: NDArray) -> tuple[Float, Float]:
    """Means of 4 (√I − |Ψ|)² over positions and over detector pixels: 1 is photon noise.

    Exact for bright pixels, where √I of Poisson counts has variance 1/4. At few counts λ the expectation
    of a perfect model is 1.05 (λ = 10), 1.16 (5), 1.65 (2), 1.81 (1), 1.53 (0.5), 0.92 (0.2), 0.55 (0.1)
    and 8 λ below. A fit takes up noise as well: fitted unknowns over measured values.

    Parameters
    ----------
    amplitude : (n_pos, ny, nx) float32, √photons
        Negative where not measured.
    model_amplitude : (n_pos, ny, nx) float, √photons
        |Ψ|, or √Σ|Ψ|² over modes, in the same order.

    Returns
    -------
    of_pixels : (ny, nx) float64
    of_positions : (n_pos,) float64
        NaN: not measured.

    Raises
    ------
    DataError
        If shapes differ.
    """
    if amplitude.shape != model_amplitude.shape or amplitude.ndim != 3:
        raise DataError(
            f"amplitude {amplitude.shape}, model {model_amplitude.shape}; expected (n_pos, ny, nx)"
        )
    measured = amplitude >= 0
    square = np.where(measured, 4 * (amplitude - model_amplitude) ** 2, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of what was not measured
        of_pixels = square.sum(axis=0, dtype=np.float64) / measured.sum(axis=0)
        of_positions = square.sum(axis=(1, 2), dtype=np.float64) / measured.sum(axis=(1, 2))
    return of_pixels, of_positions


def noise_vs_shot_limit(
    difference: NDArray, region: Mask, pixel_m: Pixel, photons: ArrayLike, *, longest_period_m: float
) -> ShotNoise:
    """Noise of a map over the shot-noise reference σ = 1/(2√n), with long periods taken apart.

    All cosines with periods above `longest_period_m` (on a box wider by half of it, so that slopes across the
    border fit) are fitted inside the region with weights 1/σ². Each pixel's rest is divided by the share
    √(1 − leverage) of white noise that it keeps. Memory: 8 bytes · pixels · π · area / `longest_period_m`².

    Parameters
    ----------
    difference : (ny, nx) float
        Estimate − truth, or vacuum, of the phase (rad) or of −ln|O| = μt/2.
    region : (ny, nx) bool
    pixel_m : (float, float), m
    photons : (ny, nx) float or a number
        Photons n per object pixel.
    longest_period_m : float, m
        The longest full period that counts as noise.

    Returns
    -------
    ShotNoise

    Raises
    ------
    DataError
        If shapes differ or the region is too small, or has pixels not finite or unlit.
    """
    region, photons = np.asarray(region, dtype=bool), np.asarray(photons, dtype=np.float64)
    if difference.shape != region.shape or photons.shape not in ((), region.shape) or not region.any():
        raise DataError(f"shapes {difference.shape}, {region.shape}, {photons.shape} differ, or no region")
    lit = np.broadcast_to(photons, region.shape)[region]
    if not np.isfinite(difference[region]).all() or not (lit > 0).all():
        raise DataError("pixels of the region are not finite or got no photons; leave them out of the region")
    sigma = 0.5 / np.sqrt(lit)
    basis = _cosines(region, pixel_m, longest_period_m)
    basis *= (np.median(sigma) / sigma)[:, None]
    eigenvalues, vectors = np.linalg.eigh(basis.T @ basis)
    kept = eigenvalues > 1e-10 * eigenvalues[-1]  # of singular values: 1e-5, enough for any background
    modes = basis @ (vectors[:, kept] / np.sqrt(eigenvalues[kept]))
    smooth = modes @ (modes.T @ (difference[region] / sigma))
    leverage = np.sum(modes**2, axis=1)
    high, low = (np.full(region.shape, np.nan) for _ in range(2))
    low[region] = smooth * sigma
    high[region] = difference[region] - low[region]
    rest = high[region] / sigma / np.sqrt(1 - leverage)
    ratio, low_ratio = (float(stats.median_abs_deviation(each, scale="normal")) for each in (rest, smooth))
    return ShotNoise(ratio, low_ratio, float(np.sqrt(leverage.mean())), high, low)


def _cosines(region: Mask, pixel_m: Pixel, longest_period_m: float) -> Float:
    """Cosines (pixels, functions) of long period at the pixels of the region."""
    nodes = np.stack(np.nonzero(region), axis=1) * np.asarray(pixel_m)
    nodes = nodes - nodes.min(axis=0) + longest_period_m / 4
    extent = nodes.max(axis=0) + longest_period_m / 4
    k_row, k_column = (np.arange(int(2 * each / longest_period_m) + 1) for each in extent)
    rows, columns = np.nonzero(
        np.hypot(k_row[:, None] / (2 * extent[0]), k_column / (2 * extent[1])) <= 1 / longest_period_m
    )
    if 2 * len(rows) > len(nodes):
        raise DataError(f"{len(rows)} smooth functions for {len(nodes)} pixels; the region is too small")
    row, column = (np.cos(np.pi * nodes[:, i, None] * k / extent[i]) for i, k in enumerate((k_row, k_column)))
    return row[:, rows] * column[:, columns]
