"""Linear-combination fit: every pixel's spectrum as a non-negative sum of standards.

Non-negative least squares is solved exactly: its solution is the best of the unconstrained solutions over
all subsets of the standards that come out non-negative (Lawson & Hanson, Solving Least Squares Problems,
1974, ch. 23). For few standards all subsets of all pixels are tried at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from ptychrome.analysis.bulk import BulkSpectrum
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
MOST_STANDARDS = 8  # 255 subsets
CHUNK = 20_000  # pixels at a time, 30 MB of subsets
INDEPENDENT = 1e-3  # smallest singular value of the standards, relative: below, two of them are one


@dataclass(frozen=True)
class LinearCombination:
    """Shares of the standards in every pixel.

    Attributes
    ----------
    fractions : (k, n_pixels) float64
        Share of the edge's atoms in each standard, ≥ 0 and 1 in all; NaN where a spectrum is missing.
    sigma : (k, n_pixels) float64
        Standard deviation if no share had to be ≥ 0: an upper bound for those that are 0, or nearly.
    jump : (n_pixels,) float64
        Edge jump of the sum: amount of all standards together.
    residual : (n_pixels,) float64
        Root mean square over the energies of what the sum leaves, in units of the jump.
    r_factor : (n_pixels,) float64
        Σ residual² / Σ (data less background)².
    chi2 : (n_pixels,) float64
        Reduced χ².
    """

    fractions: Float
    sigma: Float
    jump: Float
    residual: Float
    r_factor: Float
    chi2: Float


def linear_combination(
    absorbance: ArrayLike,
    standards: ArrayLike,
    *,
    sigma: ArrayLike,
    jump: ArrayLike | None = None,
) -> LinearCombination:
    """Fit μt = background + Σ c_j standard_j with all c_j ≥ 0 and a constant background, in every pixel.

    The amplitudes of normalised standards add up to the edge jump, and are shares of atoms in units of it.
    What the standards leave beyond the noise counts as noise in the standard deviations.

    Parameters
    ----------
    absorbance : (n_energy, n_pixels) float
        μt. An energy that is NaN in all pixels is left out, a pixel with any further NaN is missing.
    standards : (k, n_energy) float
        Normalised to an edge step of 1, at the same energies.
    sigma : float or (n_pixels,) float
        Noise of μt.
    jump : (n_pixels,) float, optional
        Edge jump that the amplitudes must add up to; default: free.

    Returns
    -------
    LinearCombination

    Raises
    ------
    DataError
        If shapes do not fit, there are too few energies or too many standards, or standards are alike.
    """
    values, references = np.asarray(absorbance, dtype=float), np.asarray(standards, dtype=float)
    if values.ndim != 2 or references.ndim != 2 or references.shape[1] != len(values):
        raise DataError(
            f"standards: expected shape (k, n_energy) for absorbance {values.shape}, got {references.shape}"
        )
    k, n_pixels = len(references), values.shape[1]
    if not 1 <= k <= MOST_STANDARDS:
        raise DataError(f"{k} standards; expected 1 to {MOST_STANDARDS}")
    measured = np.isfinite(values).any(axis=1)
    if measured.sum() < k + 2:
        raise DataError(f"{measured.sum()} energies for {k} standards; expected at least {k + 2}")
    design = references[:, measured] - references[:, measured].mean(axis=1, keepdims=True)
    _check_independent(design)
    noise = np.broadcast_to(np.asarray(sigma, dtype=float), n_pixels)
    total = np.full(n_pixels, np.nan) if jump is None else np.asarray(jump, dtype=float)
    known = np.isfinite(values[measured]).all(axis=0) & (np.isfinite(total) | (jump is None))
    out = [np.full((k, n_pixels), np.nan), np.full((k, n_pixels), np.nan), *np.full((4, n_pixels), np.nan)]
    places = np.flatnonzero(known)
    for first in range(0, places.size, CHUNK):
        part = places[first : first + CHUNK]
        centred = values[measured][:, part]
        centred = centred - centred.mean(axis=0)
        solved = _fit(design, centred, noise[part], None if jump is None else total[part])
        for whole, piece in zip(out, solved, strict=True):
            whole[..., part] = piece
    return LinearCombination(*out)


def standards_at(standards: Sequence[BulkSpectrum], energy_eV: ArrayLike, *, shift_eV: float = 0.0) -> Float:
    """Normalised standards at the energies of a scan, `shift_eV` added to theirs.

    Parameters
    ----------
    standards : sequence of BulkSpectrum
    energy_eV : (n,) float, eV
    shift_eV : float

    Returns
    -------
    (k, n) float64

    Raises
    ------
    DataError
        If one of them does not cover the energies.
    """
    energy = np.asarray(energy_eV, dtype=float) - shift_eV
    return np.array([standard.at(energy) for standard in standards])


def best_shift(
    absorbance: ArrayLike, standards: Sequence[BulkSpectrum], energy_eV: ArrayLike, largest_eV: float
) -> float:
    """Common energy shift of the standards that describes the summed spectrum best.

    For standards measured elsewhere, on another energy scale. It cannot be told from a chemical shift that
    all pixels share: a foil measured with either is the better way.

    Parameters
    ----------
    absorbance : (n_energy, n_pixels) float
    standards : sequence of BulkSpectrum
    energy_eV : (n_energy,) float, eV
    largest_eV : float
        Largest shift to be tried, either way.

    Returns
    -------
    float
        eV, to be added to the energies of the standards.

    Raises
    ------
    DataError
        If a standard does not cover the energies with this margin, or see `linear_combination`.
    """
    energy, values = np.asarray(energy_eV, dtype=float), np.asarray(absorbance, dtype=float)
    use = np.isfinite(values).any(axis=1)
    mean = np.nanmean(values[use], axis=1)[:, None]

    def misfit(shift: float) -> float:
        found = linear_combination(mean, standards_at(standards, energy[use], shift_eV=shift), sigma=1.0)
        return float(found.r_factor[0])

    grid = np.linspace(-largest_eV, largest_eV, 41)
    best = int(np.argmin([misfit(shift) for shift in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    return float(minimize_scalar(misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-3}).x)


def _check_independent(design: Float) -> None:
    values = np.linalg.svd(
        design / np.linalg.norm(design, axis=1, keepdims=True).clip(1e-30), compute_uv=False
    )
    if values[-1] < INDEPENDENT * values[0]:
        raise DataError("standards: two or more are alike, or one is a mixture of others; leave one out")


def _fit(
    design: Float, values: Float, noise: Float, total: Float | None
) -> tuple[Float, Float, Float, Float, Float, Float]:
    """The fields of `LinearCombination` for spectra (n, m) and standards (k, n), both without their means."""
    k, n_energy = design.shape
    gram, projected = design @ design.T, design @ values
    amplitudes = _best_subset(gram, projected, total)
    rest = values - design.T @ amplitudes
    squares = np.sum(rest**2, axis=0)
    jump = amplitudes.sum(axis=0)
    free = n_energy - 1 - k + (total is not None)
    with np.errstate(divide="ignore", invalid="ignore"):
        fractions = amplitudes / jump
        chi2 = squares / (noise**2 * free)
        deviation = noise * np.sqrt(np.maximum(chi2, 1.0))
        sigma = deviation / jump * np.sqrt(_share_variance(gram, fractions, fixed=total is not None))
        residual = np.sqrt(squares / n_energy) / jump
        # about the pre-edge, where all standards are 0, not about the mean
        r_factor = squares / np.sum((values - (values - rest).min(axis=0)) ** 2, axis=0)
    return fractions, sigma, jump, residual, r_factor, chi2


def _best_subset(gram: Float, projected: Float, total: Float | None) -> Float:
    """Amplitudes (k, m) ≥ 0 of least squares; with `total` (m,), of those that add up to it."""
    k, m = projected.shape
    best, lowest = np.zeros((k, m)), np.full(m, 0.0 if total is None else np.inf)
    for size in range(1, k + 1):
        for subset in combinations(range(k), size):
            chosen = np.array(subset)
            part = gram[chosen][:, chosen]
            inverse = np.linalg.inv(part)
            found = inverse @ projected[chosen]
            if total is not None:
                ones = inverse.sum(axis=1)
                found = found + ones[:, None] * ((total - found.sum(axis=0)) / ones.sum())
            # less the square of the data, which all subsets share
            cost = np.sum(found * (part @ found - 2 * projected[chosen]), axis=0)
            better = (found >= 0).all(axis=0) & (cost < lowest)
            lowest[better] = cost[better]
            best[:, better] = 0.0
            best[np.ix_(chosen, np.flatnonzero(better))] = found[:, better]
    return best


def _share_variance(gram: Float, fractions: Float, *, fixed: bool) -> Float:
    """Variance (k, m) of amplitude over jump for unit noise and unit jump, no amplitude bounded."""
    covariance = np.linalg.inv(gram)
    ones = covariance.sum(axis=1)
    if fixed:
        variance = np.diagonal(covariance) - ones**2 / ones.sum()
        return np.broadcast_to(variance[:, None], fractions.shape)
    return np.diagonal(covariance)[:, None] - 2 * fractions * ones[:, None] + fractions**2 * ones.sum()
