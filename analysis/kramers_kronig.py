"""Kramers–Kronig: f′ from f″ as one matrix on an energy grid, exact for piecewise-linear f″.

f′(E) = −(2/π) P∫ x f″(x)/(x² − E²) dx, integrated analytically segment by segment with tabulated f″ outside
the measured window: f′ = c_table + K f″.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
TABLE_RANGE_EV = (30.0, 430e3)  # f″ outside adds < 1e-3 e near a K edge
TABLE_STEP = 5e-3  # relative spacing to which the table is refined (log–log, as xraydb interpolates)


def kramers_kronig_matrix(energy_eV: ArrayLike, at_eV: ArrayLike | None = None) -> Float:
    """Matrix K of f′ = K f″ for f″ linear between the nodes and zero outside.

    Parameters
    ----------
    energy_eV : (n,) float, eV
        Nodes of f″, strictly ascending.
    at_eV : (m,) float, eV, optional
        Where f′ is wanted; default: at the nodes. At the first and last node the result only has a
        meaning if f″ vanishes or goes on there: the logarithm of the open end is dropped.

    Returns
    -------
    (m, n) float64

    Raises
    ------
    DataError
        If the nodes do not ascend.
    """
    nodes = _ascending(energy_eV)
    at = nodes if at_eV is None else np.asarray(at_eV, dtype=float)
    # 2x/(x² − E²) = 1/(x − E) + 1/(x + E): the same integral with both signs of E
    return -(_segments(nodes, at) + _segments(nodes, -at)) / np.pi


def _segments(nodes: Float, pole: Float) -> Float:
    """P∫ f(x)/(x − pole) dx as a matrix (m, n) on the nodes' values of f.

    Two segments that share a node at the pole have logarithms that cancel: ln 0 is set to 0 in both.
    """
    distance = nodes - pole[:, None]
    logarithm = np.log(np.abs(distance), out=np.zeros_like(distance), where=distance != 0)
    log_ratio, width = np.diff(logarithm, axis=1), np.diff(nodes)
    matrix = np.zeros_like(distance)
    matrix[:, :-1] += distance[:, 1:] / width * log_ratio - 1.0
    matrix[:, 1:] += 1.0 - distance[:, :-1] / width * log_ratio
    return matrix


def kramers_kronig_operator(
    energy_eV: ArrayLike, element: str, *, step_eV: float | None = 0.25
) -> tuple[Float, Float]:
    """K and c_table of f′ = c_table + K f″ in a window around an edge of `element`.

    Outside the window stands xraydb's (Chantler) f″. Its difference to the data at either end fades over
    the width of the window, so that f″ is continuous. The constant is such that f′ of the pure table far
    below and above the window is the table's (relativistic and nuclear terms).

    Parameters
    ----------
    energy_eV : (n,) float, eV
        Strictly ascending.
    element : str
    step_eV : float, optional
        f″ is refined to this spacing by a cubic spline (linear in f″); None: f″ is linear between the nodes.

    Returns
    -------
    K : (n, n) float64
    c_table : (n,) float64

    Raises
    ------
    DataError
        If the energies do not ascend, are fewer than four or leave the table, or the element is unknown.
    """
    energy = _ascending(energy_eV)
    if energy.size < 4:
        raise DataError(f"energies: expected at least 4 for a Kramers–Kronig transform, got {energy.size}")
    below, above = _table_nodes(energy)
    fine = _refined(energy, step_eV)
    to_fine = np.eye(energy.size) if step_eV is None else CubicSpline(energy, np.eye(energy.size))(fine)
    nodes = np.concatenate([below, fine, above])
    table = np.concatenate([_table_f2(element, below), np.zeros(fine.size), _table_f2(element, above)])
    ends = _table_f2(element, energy[[0, -1]])
    fade = np.zeros((nodes.size, energy.size))
    width = energy[-1] - energy[0]
    fade[: below.size, 0] = np.exp((below - energy[0]) / width)
    fade[below.size + fine.size :, -1] = np.exp((energy[-1] - above) / width)
    spread = fade.copy()
    spread[below.size : below.size + fine.size] = to_fine
    transform = kramers_kronig_matrix(nodes, energy)
    constant = transform @ (table - fade[:, 0] * ends[0] - fade[:, -1] * ends[1]) + _table_constant(
        element, energy
    )
    return transform @ spread, constant


def f1_from_f2(energy_eV: ArrayLike, f2: ArrayLike, element: str, *, step_eV: float | None = 0.25) -> Float:
    """f′ (without Z) of one atom from its f″ in a window around an edge.

    Parameters
    ----------
    energy_eV : (n,) float, eV
        Strictly ascending.
    f2 : (..., n) float
        f″ per atom, electrons.
    element : str
        Whose table continues f″ outside the window.
    step_eV : float, optional
        See `kramers_kronig_operator`, also for errors raised.

    Returns
    -------
    (..., n) float64
        f′, electrons.
    """
    values = np.asarray(f2, dtype=float)
    energy = np.asarray(energy_eV, dtype=float)
    if values.shape[-1:] != energy.shape:
        raise DataError(f"f2: expected {energy.size} energies along the last axis, got shape {values.shape}")
    matrix, constant = kramers_kronig_operator(energy, element, step_eV=step_eV)
    return constant + values @ matrix.T


def _ascending(energy_eV: ArrayLike) -> Float:
    energy = np.asarray(energy_eV, dtype=float)
    if energy.ndim != 1 or energy.size < 2 or not np.all(np.diff(energy) > 0):
        raise DataError(f"energies: expected two or more ascending numbers, got shape {energy.shape}")
    return energy


def _refined(energy: Float, step_eV: float | None) -> Float:
    """Nodes at most `step_eV` apart that contain every given energy exactly."""
    if step_eV is None:
        return energy
    parts = [np.linspace(a, b, int(np.ceil((b - a) / step_eV)), endpoint=False) for a, b in pairwise(energy)]
    return np.append(np.concatenate(parts), energy[-1])


def _table_nodes(energy: Float) -> tuple[Float, Float]:
    """Nodes of the table on both sides: spaced evenly in the logarithm, denser towards the window."""
    width = energy[-1] - energy[0]
    if energy[0] - width < 2 * TABLE_RANGE_EV[0] or energy[-1] + width > TABLE_RANGE_EV[1] / 2:
        raise DataError(
            f"energies {energy[0]:.6g} to {energy[-1]:.6g} eV: expected a window "
            "around one edge between 100 eV and 200 keV"
        )
    near = width * np.geomspace(1e-3, 1.0, 40)[:-1]
    low, high = TABLE_RANGE_EV
    below = np.exp(np.arange(np.log(low), np.log(energy[0] - width), TABLE_STEP))
    above = np.exp(np.arange(np.log(energy[-1] + width), np.log(high), TABLE_STEP))
    return np.concatenate([below, (energy[0] - near)[::-1]]), np.concatenate([energy[-1] + near, above])


def _table_f2(element: str, energy: Float) -> Float:
    try:
        return np.atleast_1d(xraydb.f2_chantler(element, energy))
    except ValueError:
        raise DataError(f"no tabulated f″ for element {element!r}; expected a symbol such as 'V'") from None


def _table_constant(element: str, energy: Float) -> float:
    """What the table's f′ holds beside the transform of its f″, from points well away from the window."""
    span = min(energy[-1] - energy[0], 0.02 * energy[0])
    at = np.concatenate([energy[0] - span * np.array([6.0, 4.0]), energy[-1] + span * np.array([4.0, 6.0])])
    low, high = TABLE_RANGE_EV
    nodes = np.exp(np.arange(np.log(low), np.log(high), TABLE_STEP / 5))
    transform = kramers_kronig_matrix(nodes, at)
    return float(np.mean(xraydb.f1_chantler(element, at) - transform @ _table_f2(element, nodes)))
