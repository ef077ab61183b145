"""Chemical states of the vanadium oxides and their scattering factors at the V K-edge.

f″ of a state is drawn (pre-edge peak, edge, white line, weak EXAFS) on the smooth parts of the Chantler
table below and above the edge; f′ follows from it by a Kramers–Kronig transform with the table outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import overload

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, voigt_profile, xlogy

Float = NDArray[np.float64]

HC_EV_M = 12398.42e-10
CLASSICAL_ELECTRON_RADIUS_M = 2.8179403e-15
EDGE_EV = 5465.0  # of the metal, where the tables put it
EDGE_STEP = 3.53  # Δf″ of V at its K edge (Henke, extrapolated to the edge)
WINDOW_EV = (5380.0, 5620.0)  # f″ is the state's inside, the table's outside
STEP_EV = 0.1
RESOLUTION = 1.3e-4  # ΔE/E (FWHM) of Si(111)
REFERENCE_EV = 5000.0  # f′ is matched to the table here, where no state differs from it
WAVENUMBER2_PER_EV = 0.2625  # k² [Å⁻²] of a photoelectron per eV
NEIGHBOUR_ANGSTROM = 2.0  # V–O distance


@dataclass(frozen=True)
class ChemicalState:
    """One kind of vanadium site with what surrounds it.

    Attributes
    ----------
    name : str
    edge_energy_eV : float
        Centre of the edge step, eV; follows the valence.
    pre_edge_ratio_eV : float
        Area of the pre-edge peak over the edge jump, eV; follows the symmetry of the site.
    pre_edge_energy_eV : float
        Centre of the pre-edge peak, eV.
    lithium_per_v, oxygen_per_v : float
        Composition.
    white_line : float
        Height of the white line before broadening, in units of the jump.
    edge_width_eV : float
        Width b3 of the error function before broadening, eV.
    exafs : float
        Amplitude of the fine structure in units of the jump; 0 switches it off.
    """

    name: str
    edge_energy_eV: float
    pre_edge_ratio_eV: float
    pre_edge_energy_eV: float
    lithium_per_v: float
    oxygen_per_v: float
    white_line: float = 0.45
    edge_width_eV: float = 2.6
    exafs: float = 0.01


# Valence moves the edge, symmetry the pre-edge peak, composition Re[N_eff]/N_V; the three are not collinear,
# as among the clusters of the paper.
OXIDE_STATES = (
    ChemicalState("V3+ octahedral", 5476.6, 0.35, 5467.0, 1.9, 2.25),
    ChemicalState("V4+ octahedral", 5478.2, 1.1, 5467.3, 0.7, 2.2, white_line=0.5),
    ChemicalState("V5+ tetrahedral", 5480.0, 2.8, 5467.6, 0.3, 1.85, white_line=0.35),
    ChemicalState("V4+ distorted, Li-rich", 5478.9, 1.9, 5467.4, 2.6, 2.75),
)
LIVO2 = ChemicalState("LiVO2", 5476.3, 0.25, 5467.0, 1.0, 2.0)
LIVO3 = ChemicalState("LiVO3", 5480.2, 3.0, 5467.6, 1.0, 3.0, white_line=0.35)
METAL = ChemicalState("V", EDGE_EV, 0.0, EDGE_EV, 0.0, 0.0, white_line=0.0, edge_width_eV=1.5)


@overload
def wavelength_m(energy_eV: float) -> float: ...
@overload
def wavelength_m(energy_eV: Float) -> Float: ...
def wavelength_m(energy_eV: float | Float) -> float | Float:
    """Photon wavelength, m, of an energy in eV (any shape)."""
    return HC_EV_M / energy_eV


def dispersion_correction(nodes_eV: Float, f2: Float, energy_eV: ArrayLike) -> Float:
    """Kramers–Kronig transform of a piecewise-linear f″.

    f′(E) = −(2/π) P∫ x f″(x)/(x² − E²) dx, integrated analytically. f″ is continued linearly to zero at
    zero energy and at twice the last node, so that only the bends m of f″ at the nodes remain:
    f′(E) = (1/π) Σ m_i [(E − x_i) ln|E − x_i| − (E + x_i) ln(E + x_i)].

    Parameters
    ----------
    nodes_eV : (n,) float64, eV
        Ascending, positive.
    f2 : (n,) float64
        f″ at the nodes.
    energy_eV : (m,) float, eV
        Where f′ is wanted.

    Returns
    -------
    (m,) float64
        f′ without the relativistic correction.
    """
    x = np.concatenate([[0.0], nodes_eV, [2 * nodes_eV[-1]]])
    slopes = np.diff(np.concatenate([[0.0], f2, [0.0]])) / np.diff(x)
    bends = np.diff(np.concatenate([[0.0], slopes, [0.0]]))
    energy = np.asarray(energy_eV, dtype=np.float64)[..., None]
    below, above = energy - x, energy + x
    return (xlogy(below, np.abs(below)) - xlogy(above, above)) @ bends / np.pi


@cache
def table() -> tuple[Float, Float, float]:
    """Chantler's f″ of vanadium at its nodes, and what its f′ has beyond the Kramers–Kronig transform.

    Returns
    -------
    nodes_eV, f2 : (n,) float64
    offset : float
        Added to the transform, it gives the table's f′ at `REFERENCE_EV`.
    """
    nodes = np.unique(np.asarray(xraydb.chantler_energies("V", emin=0, emax=1e6), dtype=np.float64))
    f2 = np.asarray(xraydb.f2_chantler("V", nodes), dtype=np.float64)
    reference = float(xraydb.f1_chantler("V", REFERENCE_EV))
    return nodes, f2, reference - float(dispersion_correction(nodes, f2, REFERENCE_EV))


@cache
def _power_law(low_eV: float, high_eV: float) -> tuple[float, float]:
    nodes, f2, _ = table()
    inside = (nodes > low_eV) & (nodes < high_eV)
    slope, intercept = np.polyfit(np.log(nodes[inside] / EDGE_EV), np.log(f2[inside]), 1)
    return float(np.exp(intercept)), float(slope)


def _background_and_step(energy_eV: Float) -> tuple[Float, Float]:
    """f″ of all shells but K, and the K step: the table's power laws well off the edge, extrapolated."""
    below, above = _power_law(4900.0, 5370.0), _power_law(5570.0, 5900.0)
    background = below[0] * (energy_eV / EDGE_EV) ** below[1]
    return background, above[0] * (energy_eV / EDGE_EV) ** above[1] - background


def _sharp_shape(state: ChemicalState, energy_eV: Float) -> Float:
    """K absorption over its step before broadening."""
    above = energy_eV - state.edge_energy_eV
    edge = 0.5 * (1 + erf(above / state.edge_width_eV))
    pre_width, white_width = 0.75, 4.0  # half widths at half maximum, eV
    pre_height = state.pre_edge_ratio_eV / (np.pi * pre_width)
    pre_edge = pre_height / (1 + ((energy_eV - state.pre_edge_energy_eV) / pre_width) ** 2)
    white_line = state.white_line / (1 + ((above - 6.5) / white_width) ** 2)
    k = np.sqrt(WAVENUMBER2_PER_EV * np.clip(above, 0, None))
    exafs = (
        state.exafs
        * np.sin(2 * k * NEIGHBOUR_ANGSTROM)
        * (1 - np.exp(-((np.clip(above, 0, None) / 12) ** 2)))
    )
    return edge + pre_edge + white_line + exafs


def _broaden(values: Float) -> Float:
    """Convolve with the monochromator's Gaussian and the core hole's Lorentzian."""
    sigma = RESOLUTION * EDGE_EV / np.sqrt(8 * np.log(2))
    gamma = float(xraydb.core_width("V", "K")) / 2
    half = round(60.0 / STEP_EV)
    kernel = voigt_profile(STEP_EV * np.arange(-half, half + 1), sigma, gamma)
    return np.convolve(np.pad(values, half, mode="edge"), kernel / kernel.sum(), mode="valid")


@cache
def vanadium_factors(state: ChemicalState) -> tuple[Float, Float, Float]:
    """f′ and f″ of the vanadium in a state, as seen with the resolution of the monochromator.

    Parameters
    ----------
    state : ChemicalState

    Returns
    -------
    energy_eV, f1, f2 : (n,) float64
        Grid over `WINDOW_EV`; f1 is f′ (without Z).
    """
    low, high = WINDOW_EV
    energy = np.linspace(low, high, round((high - low) / STEP_EV) + 1)
    background, step = _background_and_step(energy)
    f2 = background + step * _broaden(_sharp_shape(state, energy))
    nodes, table_f2, offset = table()
    before, after = nodes < low, nodes > high
    all_nodes = np.concatenate([nodes[before], energy, nodes[after]])
    all_f2 = np.concatenate([table_f2[before], f2, table_f2[after]])
    return energy, dispersion_correction(all_nodes, all_f2, energy) + offset, f2


def scattering_factors(states: tuple[ChemicalState, ...], energy_eV: ArrayLike) -> NDArray[np.complex128]:
    """Complex scattering factor Σ (Z + f′ + i f″) of all atoms per vanadium.

    Parameters
    ----------
    states : tuple of ChemicalState
    energy_eV : (n,) float, eV
        Within `WINDOW_EV`.

    Returns
    -------
    (n_states, n) complex128
        Per V atom, with its share of Li and O (Chantler's table for these).

    Raises
    ------
    ValueError
        If an energy lies outside the window.
    """
    energy = np.atleast_1d(np.asarray(energy_eV, dtype=np.float64))
    if not np.all((energy >= WINDOW_EV[0]) & (energy <= WINDOW_EV[1])):
        raise ValueError(
            f"energies reach from {energy.min():g} to {energy.max():g} eV; the twin knows the V K-edge only, "
            f"expected {WINDOW_EV[0]:g} to {WINDOW_EV[1]:g} eV"
        )
    lithium, oxygen = (
        z + xraydb.f1_chantler(symbol, energy) + 1j * xraydb.f2_chantler(symbol, energy)
        for symbol, z in (("Li", 3), ("O", 8))
    )
    rows = []
    for state in states:
        grid, f1, f2 = vanadium_factors(state)
        vanadium = 23 + np.interp(energy, grid, f1) + 1j * np.interp(energy, grid, f2)
        rows.append(vanadium + state.lithium_per_v * lithium + state.oxygen_per_v * oxygen)
    return np.array(rows)


def transmission(
    areal_density: NDArray[np.float32] | Float, states: tuple[ChemicalState, ...], energy_eV: float
) -> NDArray[np.complex128]:
    """Object transmission O = exp(iφ − μt/2) = exp(−i r_e λ Σ N_j (Z_j + f′_j − i f″_j)).

    Parameters
    ----------
    areal_density : (n_states, ny, nx) float, m⁻²
        Of vanadium.
    states : tuple of ChemicalState
    energy_eV : float

    Returns
    -------
    (ny, nx) complex128
    """
    factors = scattering_factors(states, energy_eV)[:, 0]
    column = np.tensordot(np.conj(factors), areal_density, axes=1)
    return np.exp(-1j * CLASSICAL_ELECTRON_RADIUS_M * wavelength_m(energy_eV) * column)
