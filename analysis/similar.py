# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Pixels beside each other that do not differ beyond noise are of one material and share its spectrum."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ptychrome.analysis.xanes_shapes import COMPILED

THINNEST = 1e-3  # of the median thickness: thinner pixels are all noise
PASSES = 2  # what is compared the second time is less noisy


def shared_among_similar(
    coefficients: NDArray[np.float64], particle: NDArray[np.bool_], reach_px: float
) -> NDArray[np.float64]:
    """Average the composition of each pixel with that of neighbours that differ from it no more than noise.

    The first coefficient is the thickness and stays; the others are averaged in units of it. A neighbour's
    weight is its thickness squared (noise is that of the coefficients), a Gaussian of its distance, and
    exp(−(d² − 1)/2) with d² the squared difference over its noise, a mean over the coefficients. The noise is
    that between pixels side by side, most of which are of one material. Borders and small domains stay, since
    across them the difference is more than noise: a bilateral filter (Tomasi & Manduchi, ICCV 1998, 839) that
    knows its noise.

    Parameters
    ----------
    coefficients : (n_pixels, k) float64
        Of an orthonormal basis, the strongest first.
    particle : (ny, nx) bool
        Which pixels these are.
    reach_px : float
        Standard deviation of the Gaussian, pixels.

    Returns
    -------
    (n_pixels, k) float64
    """
    if coefficients.shape[1] == 1:
        return coefficients
    sign = np.sign(np.median(coefficients[:, 0])) or 1.0
    thickness = sign * coefficients[:, 0]
    thickness = np.maximum(thickness, max(THINNEST * np.median(thickness), 1e-12))
    composition, weight = _image(coefficients[:, 1:] / thickness[:, None], particle), np.zeros(particle.shape)
    weight[particle] = thickness**2
    scale = _noise(composition, weight, particle)
    guide, shared = composition, np.zeros_like(composition)
    for _ in range(PASSES):
        _share(composition, guide / scale, weight, reach_px, shared)
        guide = shared.copy()
    return np.column_stack([coefficients[:, 0], guide[particle] * thickness[:, None]])


def _image(values: NDArray[np.float64], particle: NDArray[np.bool_]) -> NDArray[np.float64]:
    image = np.zeros((*particle.shape, values.shape[1]))
    image[particle] = values
    return image


def _noise(
    composition: NDArray[np.float64], weight: NDArray[np.float64], particle: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Of each coefficient (k,), from neighbours along both axes."""
    k, found = composition.shape[-1], []
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = particle[one] & particle[other]
        difference = composition[one][both] - composition[other][both]
        found.append(difference / np.sqrt(1 / weight[one][both] + 1 / weight[other][both])[:, None])
    pairs = np.concatenate(found)
    return np.maximum(1.4826 * np.median(np.abs(pairs), axis=0), 1e-12) if len(pairs) else np.full(k, 1e-12)


@njit(**COMPILED)
def _share(composition, guide, weight, reach, out):
    """out = means of `composition`; `guide` is what is compared, in units of its noise at weight one."""
    ny, nx, k = composition.shape
    radius = int(np.ceil(2 * reach))
    for y in range(ny):
        for x in range(nx):
            if weight[y, x] == 0:
                continue
            total = 0.0
            out[y, x] = 0.0
            for v in range(max(y - radius, 0), min(y + radius + 1, ny)):
                for u in range(max(x - radius, 0), min(x + radius + 1, nx)):
                    if weight[v, u] == 0:
                        continue
                    apart = 0.0
                    for c in range(k):
                        apart += (guide[y, x, c] - guide[v, u, c]) ** 2
                    apart /= k * (1 / weight[y, x] + 1 / weight[v, u])
                    far = ((v - y) ** 2 + (u - x) ** 2) / reach**2
                    vote = weight[v, u] * np.exp(-0.5 * (far + max(apart - 1, 0.0)))
                    total += vote
                    for c in range(k):
                        out[y, x, c] += vote * composition[v, u, c]
            for c in range(k):
                out[y, x, c] /= total
