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
SAMPLE, BINS = 1024, 8  # spectra simulated; groups of like σ, whose spread is then known to 6 %
FARTHEST = 5.0  # deviations over σ beyond are minima elsewhere and count as this


@dataclass(frozen=True)
class Calibration:
    """By what σ of each quantity is to be multiplied, as it depends on σ itself.

    Attributes
    ----------
    tables : dict of str to (2, BINS) float64
        Logarithm of σ, ascending, and factor; a quantity not in there keeps its σ.
    """

    tables: dict[str, Float] = field(default_factory=dict)

    def factor(self, name: str, sigma: Float) -> Float:
        """Factor for each σ, (n,)."""
        if name not in self.tables:
            return np.ones_like(sigma)
        with np.errstate(divide="ignore"):
            return np.interp(np.log(sigma), *self.tables[name])

    def learned(self, name: str, deviation: Float, sigma: Float) -> Calibration:
        """This one and a further quantity, from deviations from the truth and their σ, (n,) each."""
        known = np.isfinite(deviation) & (sigma > 0)
        if np.count_nonzero(known) < SAMPLE // 2:
            return self
        order = np.argsort(sigma[known])
        sigma, square = sigma[known][order], (deviation[known][order] / sigma[known][order]) ** 2
        groups = np.array_split(np.arange(sigma.size), BINS)
        table = [
            [np.mean(np.log(sigma[group])) for group in groups],
            [np.sqrt(np.mean(np.minimum(square[group], FARTHEST**2))) for group in groups],
        ]
        return Calibration(self.tables | {name: np.array(table)})


def simulated_fits(
    data: Spectra, raw: Raw, variance: Float, mean: Float, prior: Prior, options: XanesOptions
) -> tuple[Float, Raw] | None:
    """True parameters (n, p) and fits of simulated spectra.

    They have the shapes of the `mean` (p,), or those that the prior allows around it, and amplitudes and
    noise of measured pixels, each as often as it takes. None without pixels of sufficient edge jump.
    """
    pixels = np.flatnonzero(raw.converged & (raw.parameters[:, 1] > LEARN_FROM * np.sqrt(variance)))
    if pixels.size == 0:
        return None
    pixels = pixels[np.linspace(0, pixels.size - 1, SAMPLE).astype(np.intp)]
    shape, (_, low, high), rng = data.model.shape, data.model.intervals(), np.random.default_rng(0)
    centre, strength = prior
    spread = np.divide(1.0, np.sqrt(strength), out=np.zeros_like(strength), where=strength > 0)
    theta = np.where(strength > 0, centre, mean[shape]) + spread * rng.standard_normal((SAMPLE, shape.size))
    truth, spectra = data.select(pixels).simulated(np.clip(theta, low, high), variance[pixels], options, rng)
    starts = np.repeat(mean[None, shape], SAMPLE, axis=0)
    again = spectra.solve(starts, variance[pixels], prior, options, options.max_iterations)
    retry(spectra, again, variance[pixels], mean, prior, options)
    return truth, again
