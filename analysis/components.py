"""Spectral components of a stack without standards: how many stand out of the noise, and their spectra."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
MOST_COMPONENTS = 12
# mean and standard deviation of the Tracy–Widom law of order 1, and how far above it a component must be
TRACY_WIDOM, MARGIN = (-1.21, 1.27), 4.0
SWEEPS = 1000


@dataclass(frozen=True)
class Components:
    """Spectra of all pixels as sums of few.

    Attributes
    ----------
    spectra : (k, n_energy) float64
        Non-negative, each with a largest value of 1.
    amounts : (k, n_pixels) float64
        Non-negative; absorbance = amounts · spectra.
    principal_spectra : (k, n_energy) float64
        Principal components of the spectra (of their sum of squares, each energy weighted by its noise), the
        strongest first, each with a largest modulus of 1.
    principal_amounts : (k, n_pixels) float64
        Of either sign, positive on average.
    variance : (n,) float64
        Share of the sum of squares in each principal component, descending.
    """

    spectra: Float
    amounts: Float
    principal_spectra: Float
    principal_amounts: Float
    variance: Float


def number_of_components(absorbance: ArrayLike, sigma: ArrayLike) -> tuple[int, Float]:
    """Principal components that white noise cannot explain, and the share of each in the sum of squares.

    A component counts while its singular value is larger than the largest that noise alone would have with
    any likelihood, once the components before it are taken out: the edge of Marchenko and Pastur's law
    (Math. USSR Sb. 1, 457, 1967) plus four standard deviations of Tracy and Widom's in Johnstone's form
    (Ann. Stat. 29, 295, 2001).

    Parameters
    ----------
    absorbance : (n_energy, n_pixels) float
        Finite.
    sigma : float or (n_energy,) float
        Noise of one pixel; energies with more noise count less.

    Returns
    -------
    rank : int
        At least 1, at most 12.
    variance : (min(n_energy, n_pixels),) float64

    Raises
    ------
    DataError
        If shapes do not fit, a value is not finite or no noise is positive.
    """
    data = _weighted(absorbance, sigma)
    values = np.linalg.svd(data, compute_uv=False)
    energies, pixels = data.shape
    limits = np.array(
        [_noise_edge(energies - k, pixels - k) for k in range(min(MOST_COMPONENTS, values.size))]
    )
    above = values[: limits.size] ** 2 > limits
    rank = int(above.size if above.all() else np.argmin(above))
    return max(rank, 1), values**2 / np.sum(values**2)


def components(absorbance: ArrayLike, sigma: ArrayLike, count: int) -> Components:
    """Principal components and non-negative matrix factors (Lee & Seung, Nature 401, 788, 1999) of spectra.

    The factors are started from the purest pixels (Araújo et al., Chemom. Intell. Lab. Syst. 57, 65, 2001).
    Their spectra are mixtures of the true ones where no pixel holds one alone: a description of the data, not
    a list of compounds.

    Parameters
    ----------
    absorbance : (n_energy, n_pixels) float
        Finite; for the factors, what is below 0 counts as 0.
    sigma : float or (n_energy,) float
        Noise of one pixel.
    count : int
        Number of components, see `number_of_components`.

    Returns
    -------
    Components
        The spectrum that most of the absorbance belongs to comes first.

    Raises
    ------
    DataError
        See `number_of_components`; or if `count` exceeds the number of energies or of pixels.
    """
    weighted = _weighted(absorbance, sigma)
    if not 1 <= count <= min(weighted.shape):
        raise DataError(f"{count} components of {weighted.shape[1]} spectra of {weighted.shape[0]} energies")
    noise = np.broadcast_to(sigma, len(weighted))
    left, values, right = np.linalg.svd(weighted, full_matrices=False)
    principal = (left[:, :count] * noise[:, None]).T
    largest = np.abs(principal).max(axis=1) * np.where(right[:count].sum(axis=1) < 0, -1.0, 1.0)
    data = np.maximum(weighted, 0.0)
    amounts, start = _purest(data, count)
    model = NMF(count, init="custom", max_iter=SWEEPS, tol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # slow in the end, and good enough long before
        amounts = model.fit_transform(data.T, W=amounts.T.copy(), H=start).T
    spectra = model.components_ * noise
    scale = spectra.max(axis=1).clip(1e-300)
    order = np.argsort(-amounts.sum(axis=1) * spectra.sum(axis=1))
    return Components(
        (spectra / scale[:, None])[order],
        (amounts * scale[:, None])[order],
        principal / largest[:, None],
        right[:count] * (values[:count] * largest)[:, None],
        values**2 / np.sum(values**2),
    )


def _purest(data: Float, k: int) -> tuple[Float, Float]:
    """Non-negative amounts (k, n_pixels) and spectra (k, n_energy) to start from.

    The spectra are those of the pixels that are furthest apart: one after the other the largest in what the
    ones before leave, of the denoised and equally strong spectra of the thicker half of the pixels.
    """
    left, values, right = np.linalg.svd(data, full_matrices=False)
    denoised = (left[:, :k] * values[:k]) @ right[:k]
    strength = denoised.sum(axis=0)
    places = np.flatnonzero(strength >= np.median(strength))
    unit = denoised[:, places] / strength[places]
    rest, chosen = unit - unit.mean(axis=1, keepdims=True) if k > 1 else unit, []
    for _ in range(k):
        chosen.append(int(np.argmax(np.sum(rest**2, axis=0))))
        vertices = unit[:, chosen] - unit[:, chosen[:1]]
        basis, _ = np.linalg.qr(vertices[:, 1:]) if len(chosen) > 1 else (np.zeros((len(unit), 0)), None)
        rest = unit - unit[:, chosen[:1]]
        rest = rest - basis @ (basis.T @ rest)
    spectra = np.maximum(unit[:, chosen].T, 0.0)
    amounts = np.maximum(np.linalg.lstsq(spectra.T, data, rcond=None)[0], 0.0)
    return amounts, spectra


def _weighted(absorbance: ArrayLike, sigma: ArrayLike) -> Float:
    """Absorbance in units of its noise, (n_energy, n_pixels)."""
    values, noise = np.asarray(absorbance, dtype=float), np.asarray(sigma, dtype=float)
    if values.ndim != 2 or not values.size or noise.shape not in ((), values.shape[:1]):
        raise DataError(
            f"absorbance {values.shape}, sigma {noise.shape}; expected (n_energy, n_pixels) and one number "
            "or one per energy"
        )
    if not np.isfinite(values).all() or not (noise > 0).all():
        raise DataError("components: expected finite absorbance and positive noise")
    return values / np.broadcast_to(noise, len(values))[:, None]


def _noise_edge(energies: int, pixels: int) -> float:
    """Square of the largest singular value that noise of unit variance reaches."""
    rows, columns = np.sqrt(max(energies, 1)), np.sqrt(max(pixels - 1, 1))
    centre = (rows + columns) ** 2
    spread = (rows + columns) * (1 / rows + 1 / columns) ** (1 / 3)
    mean, deviation = TRACY_WIDOM
    return float(centre + (mean + MARGIN * deviation) * spread)
