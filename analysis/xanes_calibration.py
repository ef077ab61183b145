"""Standard deviations of fitted spectra as repeats would show them.

The covariance of a fit is that of the linearised model. Where noise is strong eq. (1) is not linear within
it: edge energy, width and white line bend into each other, and single fits land in another minimum. How much
too small (or, for a weak peak held by its bounds, too large) σ is, a parametric bootstrap tells (Efron and
Tibshirani, An Introduction to the Bootstrap (1993), section 6.5): simulated spectra are fitted like measured
ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.xanes_model import XanesOptions
from ptychrome.analysis.xanes_spectra import Prior, Raw, Spectra
from ptychrome.analysis.xanes_starts import LEARN_FROM, retry

Float = NDArray[np.float64]
SAMPLE = 1024  # spectra simulated: the spread is then known to 2 %
FARTHEST = 5.0  # deviations over σ beyond are minima elsewhere and count as this
LEAST = 0.5  # factor on σ


@dataclass(frozen=True)
class Calibration:
    """By what σ is to be multiplied: its square is 1 + k (noise/jump)², as terms of second order make it.

    Not more finely, say by σ itself: that follows the estimate, and with it the estimate's own deviation.

    Attributes
    ----------
    noise2 : (n_pixels,) float64
        (Noise / edge jump)², at most the largest simulated.
    excess : dict of str to float
        k of each quantity; one that is not in there keeps its σ.
    """

    noise2: Float | float = 0.0
    excess: dict[str, float] = field(default_factory=dict)

    @classmethod
    def learned(
        cls, noise2: Float, simulated_noise2: Float, deviations: dict[str, tuple[Float, Float]]
    ) -> Calibration:
        """From simulated deviations from the truth and their σ, (n,) each, at (n,) noises."""
        excess = {}
        for name, (deviation, sigma) in deviations.items():
            known = np.isfinite(deviation) & (sigma > 0)
            if known.any():
                square = np.clip(deviation[known] / sigma[known], -FARTHEST, FARTHEST) ** 2
                excess[name] = float(np.sum(square - 1.0) / np.sum(simulated_noise2[known]))
        return cls(np.minimum(noise2, simulated_noise2.max()), excess)

    def factor(self, name: str) -> Float:
        """Factor on each σ, (n_pixels,)."""
        return np.sqrt(np.maximum(1.0 + self.excess.get(name, 0.0) * np.asarray(self.noise2), LEAST**2))


def simulated_fits(
    data: Spectra, raw: Raw, variance: Float, mean: Float, prior: Prior, options: XanesOptions
) -> tuple[Float, Float, Raw] | None:
    """True parameters (n, p), noise² (n,) and fits of simulated spectra.

    They have amplitudes and noise of measured pixels, each as often as it takes, and shapes of these or as
    the prior allows. Starts are those of the `mean` (p,). None without pixels of sufficient edge jump.
    """
    pixels = np.flatnonzero(raw.converged & (raw.parameters[:, 1] > LEARN_FROM * np.sqrt(variance)))
    if pixels.size == 0:
        return None
    pixels = pixels[np.linspace(0, pixels.size - 1, SAMPLE).astype(np.intp)]
    shape, (_, low, high), rng = data.model.shape, data.model.intervals(), np.random.default_rng(0)
    centre, strength = prior
    spread = np.divide(1.0, np.sqrt(strength), out=np.zeros_like(strength), where=strength > 0)
    theta = np.where(strength > 0, centre, _true_shapes(raw.of(pixels), shape))
    theta = np.where(np.isfinite(theta), theta, mean[shape])  # what the energies do not determine
    theta = np.clip(theta + spread * rng.standard_normal(theta.shape), low, high)
    truth, spectra = data.select(pixels).simulated(theta, variance[pixels], options, rng)
    starts = np.repeat(mean[None, shape], SAMPLE, axis=0)
    again = spectra.solve(starts, variance[pixels], prior, options, options.max_iterations)
    retry(spectra, again, variance[pixels], mean, prior, options)
    return truth, variance[pixels], again


def _true_shapes(raw: Raw, shape: NDArray[np.intp]) -> Float:
    """Non-linear parameters (n, q) that scatter as the true ones do: as the fits less the fits' noise."""
    fitted = raw.parameters[:, shape]
    variance = np.diagonal(raw.covariance, axis1=1, axis2=2)[:, shape].astype(float)
    middle = np.median(fitted, axis=0)
    scatter = (1.4826 * np.median(np.abs(fitted - middle), axis=0)) ** 2
    true = np.maximum(scatter - np.median(variance, axis=0), 0.0)
    return middle + np.sqrt(true / (true + variance)) * (fitted - middle)
