"""From fitted spectra and phase to chemical maps: N_V, Re[N_eff] and their ratio, with uncertainties.

N_V = Δμt/(2 λ r_e Δf″), Re[N_eff] = Σ N_j (Z_j + f′_j) = −φ/(r_e λ): Uematsu et al., PCCP 25, 3867 (2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray

from ptychrome.analysis.mask import MaskOptions, fit_flags
from ptychrome.analysis.optics import CLASSICAL_ELECTRON_RADIUS_M, HC_EV_M
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes import XanesFit
from ptychrome.schema import Flag

Float = NDArray[np.float64]
SCAN_BEGINS_EV = 45.0  # below the edge
# relative to the edge: where tabulated f″ is free of the edge's own rounding, for its extrapolation
BELOW_EDGE, ABOVE_EDGE = (0.90, 0.98), (1.01, 1.08)


@dataclass(frozen=True)
class EdgeConstants:
    """Scattering constants that turn an edge jump into atoms and atoms into a reference ratio.

    Attributes
    ----------
    name : str
        "paper" or "chantler".
    element : str
    delta_f2 : float
        Jump of f″ at the edge, electrons.
    energy_eV : float
        The lowest energy of the scan, where f′ is given.
    f1 : mapping of str to float, optional
        f′ of the elements at `energy_eV`, electrons; None: Chantler's through xraydb, any element.
    """

    name: str
    element: str
    delta_f2: float
    energy_eV: float
    f1: Mapping[str, float] | None = None

    @classmethod
    def paper(cls) -> EdgeConstants:
        """The paper's: f′_V(5420 eV) = −7.14 is interpolated in the sparse Henke table (Chantler: −4.63)."""
        return cls("paper", "V", 3.53, 5420.0, {"V": -7.14, "Li": 0.00278, "O": 0.0757})

    @classmethod
    def chantler(cls, element: str = "V", edge: str = "K", energy_eV: float | None = None) -> EdgeConstants:
        """From xraydb: Δf″ between power laws fitted to both sides and extrapolated to the edge.

        `energy_eV` is by default 45 eV below the edge, where a scan usually begins.

        Raises
        ------
        DataError
            If xraydb knows no such edge.
        """
        try:
            edge_eV = float(xraydb.xray_edge(element, edge).energy)
        except (ValueError, AttributeError):
            raise DataError(f"no absorption edge {element!r} {edge!r}; expected e.g. 'V', 'K'") from None
        below, above = (power_law_at_edge(element, edge_eV, span)[0] for span in (BELOW_EDGE, ABOVE_EDGE))
        lowest_eV = edge_eV - SCAN_BEGINS_EV if energy_eV is None else float(energy_eV)
        return cls("chantler", element, above - below, lowest_eV)

    def f1_of(self, element: str) -> float:
        """f′ of an element at the lowest energy.

        Raises
        ------
        DataError
            If this set of constants has no such element.
        """
        if self.f1 is None:
            return float(xraydb.f1_chantler(element, self.energy_eV))
        if element not in self.f1:
            known = ", ".join(self.f1)
            raise DataError(
                f"constants {self.name!r} hold no f′ of {element!r}, only of {known}; use 'chantler'"
            )
        return self.f1[element]


def power_law_at_edge(element: str, edge_eV: float, span: tuple[float, float]) -> tuple[float, float]:
    """f″ at an edge and its exponent of energy, from tabulated f″ over a span relative to the edge."""
    relative = np.geomspace(*span, 16)
    exponent, value = np.polyfit(np.log(relative), np.log(xraydb.f2_chantler(element, relative * edge_eV)), 1)
    return float(np.exp(value)), float(exponent)


def composition(formula: str | Mapping[str, float]) -> dict[str, float]:
    """Atoms per formula unit, from a mapping or a formula such as "Li10/7V6/7O2".

    Raises
    ------
    DataError
        If the formula cannot be read.
    """
    if not isinstance(formula, str):
        return {element: float(count) for element, count in formula.items()}
    decimal = re.sub(r"\d+/\d+", lambda match: repr(float(Fraction(match[0]))), formula)
    try:
        return {element: float(count) for element, count in xraydb.chemparse(decimal).items()}
    except ValueError:
        raise DataError(f"chemical formula {formula!r} cannot be read; expected e.g. 'LiVO2'") from None


def n_eff_ratio_reference(formula: str | Mapping[str, float], constants: EdgeConstants) -> float:
    """Re[N_eff]/N_V of a compound: Σ_j n_j (Z_j + f′_j) per atom of the edge's element.

    Raises
    ------
    DataError
        If the compound lacks the edge's element, or the constants one of its elements.
    """
    atoms = composition(formula)
    if constants.element not in atoms:
        raise DataError(
            f"{formula!r} holds no {constants.element}; expected a compound of the edge's element"
        )
    total = sum(n * (xraydb.atomic_number(e) + constants.f1_of(e)) for e, n in atoms.items())
    return float(total / atoms[constants.element])


def noise_level(
    absorbance: ArrayLike, energy_eV: ArrayLike, pre_edge: ArrayLike, vacuum: ArrayLike | None = None
) -> float:
    """Noise of μt from the energies below the edge, pooled over pixels.

    Each pixel's straight line in energy is taken off, the rest pooled by the median absolute deviation. Four
    points of one pixel alone (the paper's way, `noise_per_pixel`) are uncertain by ±40 %.

    Parameters
    ----------
    absorbance : (n_energy, n_pixels) float
        NaN where not measured.
    energy_eV : (n_energy,) float
    pre_edge : (n_energy,) bool
        Energies below any structure, at least three of them measured.
    vacuum : (n_pixels,) bool, optional
        Pixels to pool; default all, which includes the noise inside the particle.

    Returns
    -------
    float

    Raises
    ------
    DataError
        If fewer than three energies or no pixels are left.
    """
    values = np.asarray(absorbance, dtype=float)[np.asarray(pre_edge, dtype=bool)]
    energy = np.asarray(energy_eV, dtype=float)[np.asarray(pre_edge, dtype=bool)]
    if vacuum is not None:
        values = values[:, np.asarray(vacuum, dtype=bool)]
    rows = np.isfinite(values).any(axis=1) & np.isfinite(energy)
    values = values[rows][:, np.isfinite(values[rows]).all(axis=0)]
    if len(values) < 3 or values.shape[1] == 0:
        raise DataError(
            f"noise: expected at least 3 energies below the edge and one pixel, got {values.shape}"
        )
    offset = energy[rows] - energy[rows].mean()
    line = np.stack([np.ones_like(offset), offset], axis=1)
    residual_operator = np.eye(len(offset)) - line @ np.linalg.pinv(line)
    # divided by its own standard deviation per unit noise, every residual is one standard normal
    unit = np.sqrt(np.clip(np.diagonal(residual_operator), 1e-6, None))
    scaled = (residual_operator @ values)[unit > 0.05] / unit[unit > 0.05, None]
    return float(1.4826 * np.median(np.abs(scaled)))


def noise_per_pixel(absorbance: ArrayLike, pre_edge: ArrayLike) -> Float:
    """The paper's noise: each pixel's standard deviation of μt over the energies below the edge.

    Parameters
    ----------
    absorbance : (n_energy, n_pixels) float
    pre_edge : (n_energy,) bool

    Returns
    -------
    (n_pixels,) float64
    """
    values = np.asarray(absorbance, dtype=float)[np.asarray(pre_edge, dtype=bool)]
    measured = values[np.isfinite(values).any(axis=1)]
    if len(measured) < 2:
        raise DataError(f"noise: expected at least 2 energies below the edge, got {len(measured)}")
    return np.std(measured, axis=0, ddof=1)


def chemical_maps(
    fit: XanesFit,
    phase: ArrayLike,
    energy_eV: ArrayLike,
    constants: EdgeConstants,
    *,
    sigma: ArrayLike,
    sigma_phase: ArrayLike,
    n_eff_energies: ArrayLike | None = None,
    mask: MaskOptions | None = None,
    correction: tuple[float, float] = (1.0, 0.0),
    f1: ArrayLike | None = None,
) -> dict[str, NDArray]:
    """All maps of the result vocabulary, each with its standard deviation, NaN where missing.

    Parameters
    ----------
    fit : XanesFit
    phase : (n_pixels,) or (n_energy, n_pixels) float, rad
        At the lowest energy, or at all energies (NaN where not measured).
    energy_eV : (n_energy,) float
        Energies of `phase`, or of which the lowest is meant.
    constants : EdgeConstants
    sigma, sigma_phase : float or (n_pixels,) float
        Noise of μt and of the phase of one energy.
    n_eff_energies : (n_energy,) bool, optional
        Energies below the edge whose phases are averaged, each corrected to the lowest by the f′ of the
        edge's element times N_V; default: the lowest alone.
    mask : MaskOptions, optional
    correction : (float, float), optional
        Factor on the N_V of eq. (1) and its standard deviation, see `areal_density.jump_correction`.
    f1 : (n_energy,) float, optional
        That f′, up to a constant, electrons, see `areal_density.f1_of_sum`; default, and where it knows
        nothing: the table's (Chantler).

    Returns
    -------
    dict
        Names of `schema.MAPS` and the same with "_sigma", and "chi2", the reduced χ² where there was a
        spectrum: (n_pixels,) float32; "fitted" and "flag", values of `schema.Flag`: (n_pixels,) uint8.
    """
    flag = fit_flags(fit, sigma, mask)
    fitted = flag == Flag.FITTED
    maps: dict[str, tuple[Float, Float]] = {
        "edge_energy": (fit["b2"], fit.sigma("b2")),
        "edge_jump": (fit["b1"], fit.sigma("b1")),
        "pre_edge_area": fit.pre_edge_area(),
        "pre_edge_ratio": fit.pre_edge_ratio(),
        "n_v": areal_density(fit, constants, correction),
    }
    maps = {name: tuple(np.where(fitted, v, np.nan) for v in pair) for name, pair in maps.items()}  # type: ignore[misc]
    maps["n_eff"], maps["n_eff_ratio"] = _n_eff(
        phase, energy_eV, maps["n_v"], constants, sigma_phase, n_eff_energies, f1
    )
    out: dict[str, NDArray] = {
        "fitted": fitted.astype(np.uint8),
        "flag": flag,
        "chi2": np.where(fit.measured, fit.chi2, np.nan).astype(np.float32),
    }
    for name, (value, deviation) in maps.items():
        out[name] = value.astype(np.float32)
        out[f"{name}_sigma"] = np.where(np.isfinite(value), deviation, np.nan).astype(np.float32)
    return out


def areal_density(
    fit: XanesFit, constants: EdgeConstants, correction: tuple[float, float] = (1.0, 0.0)
) -> tuple[Float, Float]:
    """N_V = Δμt/(2 λ r_e Δf″) with λ of b2, times a factor, and its standard deviation.

    Parameters
    ----------
    fit : XanesFit
    constants : EdgeConstants
    correction : (float, float), optional
        Factor and its standard deviation (common to all pixels, independent of their noise).

    Returns
    -------
    (n_pixels,) float64, (n_pixels,) float64
        m⁻².
    """
    factor, factor_sigma = correction
    per_jump = fit["b2"] / (2.0 * HC_EV_M * CLASSICAL_ELECTRON_RADIUS_M * constants.delta_f2)
    return factor * per_jump * fit["b1"], per_jump * np.hypot(
        factor * fit.sigma("b1"), factor_sigma * fit["b1"]
    )


def _n_eff(
    phase: ArrayLike,
    energy_eV: ArrayLike,
    n_v: tuple[Float, Float],
    constants: EdgeConstants,
    sigma_phase: ArrayLike,
    use: ArrayLike | None,
    f1: ArrayLike | None,
) -> tuple[tuple[Float, Float], tuple[Float, Float]]:
    """Re[N_eff] at the lowest energy and its ratio to N_V, each with its standard deviation.

    With several energies −φ/(r_e λ) = Re[N_eff] + N_V [f′(E) − f′(lowest)]: the mean is
    Re[N_eff] + d N_V with d the mean difference. Where N_V is unknown the lowest counts alone. All NaN while
    none of the energies is measured.
    """
    energy = np.asarray(energy_eV, dtype=float)
    lowest = int(np.nanargmin(energy))
    phases = np.atleast_2d(np.asarray(phase, dtype=float))
    chosen = np.zeros(energy.size, dtype=bool) if use is None else np.asarray(use, dtype=bool).copy()
    chosen[lowest] = True
    if len(phases) == 1:
        rows, wavelength, shift = phases, HC_EV_M / energy[[lowest]], 0.0
    else:
        chosen &= np.isfinite(phases).any(axis=1)
        if not chosen.any():
            unknown = np.full(phases.shape[1], np.nan)
            return (unknown, unknown), (unknown, unknown)
        rows, wavelength = phases[chosen], HC_EV_M / energy[chosen]
        shift = _f1_shift(constants.element, energy, chosen, lowest, f1)
    mean = np.mean(-rows / (CLASSICAL_ELECTRON_RADIUS_M * wavelength[:, None]), axis=0)
    deviation = np.asarray(sigma_phase) / (CLASSICAL_ELECTRON_RADIUS_M * np.sqrt(np.sum(wavelength**2)))
    density, density_sigma = n_v
    known = np.isfinite(density)
    alone = (
        -phases[lowest if len(phases) > 1 else 0] * energy[lowest] / (CLASSICAL_ELECTRON_RADIUS_M * HC_EV_M)
    )
    value = np.where(known, mean - shift * density, alone)
    n_eff = (
        value,
        np.broadcast_to(np.hypot(deviation, shift * np.where(known, density_sigma, 0.0)), value.shape),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = mean / density - shift
        ratio_sigma = np.hypot(deviation / density, mean / density**2 * density_sigma)
    return n_eff, (ratio, ratio_sigma)


def _f1_shift(
    element: str, energy: Float, chosen: NDArray[np.bool_], lowest: int, f1: ArrayLike | None
) -> float:
    """Mean over the chosen energies of f′(E) − f′(lowest)."""
    if f1 is not None:
        known = np.asarray(f1, dtype=float)
        shift = float(np.mean(known[chosen] - known[lowest]))
        if np.isfinite(shift):
            return shift
    table = np.atleast_1d(xraydb.f1_chantler(element, energy[chosen]))
    return float(np.mean(table - xraydb.f1_chantler(element, energy[lowest])))
