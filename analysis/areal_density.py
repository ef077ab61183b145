"""Areal density free of eq. (1)'s bias: one factor on eq. (1)'s edge jump, from the summed spectrum.

Eq. (1) of Uematsu et al., PCCP 25, 3867 (2023) has a flat step with short tails on a flat background. True
steps fall off with energy and carry the long tails of the core hole, the background falls too: N_V comes out
2–4 % low. The sum of all spectra is good enough for a fit of all that, a single pixel is not.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from ptychrome.analysis.chemistry import ABOVE_EDGE, BELOW_EDGE, EdgeConstants, power_law_at_edge
from ptychrome.analysis.kramers_kronig import f1_from_f2
from ptychrome.analysis.optics import CLASSICAL_ELECTRON_RADIUS_M, HC_EV_M
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes import XanesFit

Float = NDArray[np.float64]

UNKNOWN: tuple[float, float] = (np.nan, np.nan)
LARGEST_SIGMA = 0.05  # a factor less certain than this is worse than none: eq. (1) is 4 % off
GAUSSIAN_NODES = np.linspace(-3.2, 3.2, 129)  # 0.05 of the edge's width apart, beyond lies 6e-6 of the area
CLEAR_OF_EDGE_EV, CLEAR = (
    12.0,
    2,
)  # this many energies this far off on both sides: past pre-edge and white line
LEAST_NOISE = 1e-5  # of the jump; what noise-free spectra count as
NARROWEST_EV = 0.05  # of the core hole: half widths below are as good as none, and the nodes would show


@dataclass(frozen=True)
class PhysicalStep:
    """What the tables know of an absorption edge.

    Attributes
    ----------
    edge_energy_eV : float
        Tabulated edge.
    below, above : (float, float)
        f″ [electrons] at the edge and exponent of energy of the power laws below and above it (Chantler).
    core_hole_eV : float
        Half width at half maximum of the core hole's Lorentzian.
    """

    edge_energy_eV: float
    below: tuple[float, float]
    above: tuple[float, float]
    core_hole_eV: float

    @classmethod
    def of(cls, element: str, edge: str, edge_energy_eV: float) -> PhysicalStep:
        """From xraydb; flat where the next edge is so close (L3) that f″ rises behind this one."""
        below, above = (power_law_at_edge(element, edge_energy_eV, span) for span in (BELOW_EDGE, ABOVE_EDGE))
        width = xraydb.core_width(element, edge)
        return cls(edge_energy_eV, below, (above[0], min(above[1], 0.0)), max(float(width) / 2, NARROWEST_EV))

    def background(self, energy_eV: Float) -> Float:
        """f″ of the shells without the edge over its value at the edge, (n,)."""
        return (energy_eV / self.edge_energy_eV) ** self.below[1]

    def jump(self, energy_eV: Float) -> Float:
        """f″ of the shell with the edge, its step taken off, (n,), electrons."""
        relative = energy_eV / self.edge_energy_eV
        return self.above[0] * relative ** self.above[1] - self.below[0] * relative ** self.below[1]


def broadened_step(offset_eV: Float, width_eV: float, core_hole_eV: float) -> Float:
    """½ [1 + erf(x/b3)] convolved with a Lorentzian.

    Parameters
    ----------
    offset_eV : (n,) float, eV
        Energy from the edge.
    width_eV : float
        b3 of eq. (1).
    core_hole_eV : float
        Half width at half maximum of the Lorentzian.

    Returns
    -------
    (n,) float64
        From 0 to 1.
    """
    weights = np.exp(-(GAUSSIAN_NODES**2))
    shifted = offset_eV[:, None] - width_eV * GAUSSIAN_NODES
    return 0.5 + np.arctan(shifted / core_hole_eV) @ weights / (np.pi * weights.sum())


def f1_of_sum(
    absorbance: ArrayLike, energy_eV: ArrayLike, n_v: Float, element: str, below: NDArray[np.bool_]
) -> Float:
    """f′ of the edge's element from the summed spectrum, up to a constant.

    Below the edge f′ drops less than in the table, whose edge is the metal's, ten and more eV lower, and has
    no white line. The Kramers–Kronig transform knows both; what other elements add to f″ is taken off as a
    constant.

    Parameters
    ----------
    absorbance : (n_energy, n_pixels) float
        μt.
    energy_eV : (n_energy,) float
        NaN where not yet measured.
    n_v : (n_pixels,) float, m⁻²
        NaN where unknown.
    element : str
    below : (n_energy,) bool
        Energies below any structure.

    Returns
    -------
    (n_energy,) float64
        Electrons, NaN where not yet measured; all NaN if N_V is unknown everywhere, or the energies are too
        low for the transform.
    """
    energy, values = np.asarray(energy_eV, dtype=float), np.asarray(absorbance, dtype=float)
    measured = np.isfinite(energy) & np.isfinite(values).any(axis=1)
    use = np.isfinite(values[measured]).all(axis=0) & np.isfinite(n_v)
    f1 = np.full(energy.size, np.nan)
    if not use.any() or not np.any(below & measured):
        return f1
    order = np.flatnonzero(measured)[np.argsort(energy[measured])]
    per_atom = 2.0 * CLASSICAL_ELECTRON_RADIUS_M * HC_EV_M / energy[order] * n_v[use].sum()
    f2 = values[order][:, use].sum(axis=1) / per_atom
    first = below[order]
    f2 -= np.mean(f2[first] - xraydb.f2_chantler(element, energy[order][first]))
    with suppress(DataError):
        f1[order] = f1_from_f2(energy[order], f2, element)
    return f1


def jump_correction(
    fit: XanesFit,
    absorbance: ArrayLike,
    energy_eV: ArrayLike,
    constants: EdgeConstants,
    *,
    edge: str,
    sigma: ArrayLike,
    fitted: NDArray[np.bool_],
) -> tuple[float, float]:
    """Factor on the areal densities of eq. (1) that gives a summed spectrum the one of a physical step.

    Summed are the spectra with middling edge energies: those of all states together have a smeared edge,
    which hides the core hole. The sum is fitted by f″ ∝ μt E = background with the tabulated slope + fall-off
    × (erf step convolved with the core hole's Lorentzian + Lorentzians). Only the core hole's width is free
    beyond eq. (1), the tabulated one give or take 100 %. The fall-off is the table's (Chantler), and 1 at
    the edge energy, where `constants.delta_f2` counts.

    Parameters
    ----------
    fit : XanesFit
        Of eq. (1).
    absorbance : (n_energy, n_pixels) float
        μt that was fitted.
    energy_eV : (n_energy,) float
        NaN where not yet measured.
    constants : EdgeConstants
    edge : str
        Such as "K".
    sigma : float or (n_pixels,) float
        Noise of μt.
    fitted : (n_pixels,) bool
        Pixels whose spectra may be summed.

    Returns
    -------
    factor, sigma : float
        And its standard deviation, an error that all pixels share. NaN while the energies do not
        determine it.
    """
    energy, values = np.asarray(energy_eV, dtype=float), np.asarray(absorbance, dtype=float)
    measured = np.isfinite(energy) & np.isfinite(values).any(axis=1)
    energy, values = energy[measured], values[measured]
    use = fitted & np.isfinite(values).all(axis=0) & (fit["b1"] * fit["b2"] > 0)
    if not use.any() or energy.size <= fit.mean_parameters.size or not fit.mean_parameters[1] > 0:
        return UNKNOWN
    distance = np.abs(fit["b2"] - np.median(fit["b2"][use]))
    use &= distance <= np.median(distance[use])
    noise = np.sqrt(np.mean(np.broadcast_to(sigma, use.shape)[use] ** 2) / use.sum())
    edge_eV = float(np.average(fit["b2"][use], weights=fit["b1"][use]))
    jump = float(np.mean(fit["b1"][use]))
    if min(np.sum(side * (energy - edge_eV) > CLEAR_OF_EDGE_EV) for side in (-1, 1)) < CLEAR:
        return UNKNOWN
    problem = _SummedSpectrum(
        fit,
        PhysicalStep.of(constants.element, edge, fit.model.edge_energy_eV),
        energy,
        values[:, use].mean(axis=1) * energy / (edge_eV * jump),
        float(max(noise / jump, LEAST_NOISE)),
        edge_eV,
    )
    factor, deviation = problem.solve()
    return (factor, deviation) if deviation < LARGEST_SIGMA * factor else UNKNOWN


@dataclass(frozen=True)
class _SummedSpectrum:
    """Fit of one spectrum; parameters as in eq. (1), then the core hole's half width.

    Attributes
    ----------
    fit : XanesFit
        Of eq. (1): start values and bounds.
    step : PhysicalStep
    energy_eV, values : (n,) float64
        f″ ∝ μt E in units of eq. (1)'s jump.
    noise : float
        Of `values`.
    edge_eV : float
        Where the fall-off is 1.
    """

    fit: XanesFit
    step: PhysicalStep
    energy_eV: Float
    values: Float
    noise: float
    edge_eV: float

    def residuals(self, parameters: Float) -> Float:
        """Model minus `values`, (n,)."""
        a, b1, b2, b3, *peaks, core_hole = parameters
        shape = b1 * broadened_step(self.energy_eV - b2, b3, core_hole)
        for c1, c2, c3 in zip(peaks[::3], peaks[1::3], peaks[2::3], strict=True):
            shape = shape + c1 / (1 + ((self.energy_eV - c2) / c3) ** 2)
        falloff = self.step.jump(self.energy_eV) / self.step.jump(np.array(self.edge_eV))
        return a * self.step.background(self.energy_eV) + falloff * shape - self.values

    def bounds(self) -> tuple[Float, Float]:
        """Lowest and highest parameters; amplitudes are free."""
        model, size = self.fit.model, self.fit.mean_parameters.size + 1
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        _, lower[model.shape], upper[model.shape] = model.intervals()
        lower[-1], upper[-1] = NARROWEST_EV / 2, 10 * self.step.core_hole_eV
        return lower, upper

    def solve(self) -> tuple[float, float]:
        """Jump in units of eq. (1)'s, and its standard deviation.

        Bounds count as weak priors, as in eq. (1)'s fit. What the model leaves of the spectrum (the EXAFS)
        counts as noise too, once it is known.
        """
        lower, upper = self.bounds()
        centre = np.append(self.fit.mean_parameters, self.step.core_hole_eV)
        spread = (upper - lower) / np.sqrt(12.0)
        spread[-1] = self.step.core_hole_eV
        start, amplitudes = centre.copy(), self.fit.model.linear
        start[amplitudes] /= centre[1]
        start = np.clip(start, lower, upper)
        noise, free = self.noise, max(self.energy_eV.size - start.size, 1)
        for _ in range(2):
            found = least_squares(
                lambda p, noise=noise: np.append(self.residuals(p) / noise, (p - centre) / spread),
                start,
                bounds=(lower, upper),
                x_scale=np.minimum(spread, 1.0),
            )
            start = found.x
            noise = max(self.noise, float(np.sqrt(np.sum(self.residuals(start) ** 2) / free)))
        covariance = np.linalg.pinv(found.jac.T @ found.jac)
        return float(start[1]), float(np.sqrt(covariance[1, 1]))
