"""Absorption edges by name and by energy (xraydb): what plans and callbacks agree on a scan's edge with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xraydb

NEAR_EDGE_EV = 30.0  # where a scan over an edge has its dense part
HEAVIEST = 92  # beyond uranium there are no tables


def tabulated_edge_eV(element: str, edge: str = "K") -> float:
    """Energy of an absorption edge, that of the element itself (a metal foil), eV.

    Raises
    ------
    ValueError
        If xraydb knows no such edge.
    """
    try:
        found = xraydb.xray_edge(element, edge)
    except (ValueError, AttributeError):
        found = None
    if found is None:
        raise ValueError(f"no absorption edge {element!r} {edge!r}; expected e.g. 'V', 'K'")
    return float(found.energy)


def edge_among(energies_eV: Sequence[float]) -> tuple[str, str] | None:
    """The absorption edge that a scan steps over, from its energies alone.

    Parameters
    ----------
    energies_eV : sequence of float, eV

    Returns
    -------
    (str, str) or None
        Element and edge: the tabulated K edge between the lowest and the highest energy, or L3 edge if there
        is none; of several, the one with most energies around it. None if the scan steps over no edge.
    """
    energies = np.asarray(energies_eV, dtype=np.float64)
    for edge in ("K", "L3"):
        around = {
            element: int(np.sum(np.abs(energies - energy) < NEAR_EDGE_EV))
            for element, energy in _edges(edge).items()
            if energies.min() < energy < energies.max()
        }
        if around:
            return max(around, key=lambda element: around[element]), edge
    return None


def edge_near(energies_eV: Sequence[float]) -> tuple[str, str]:
    """The edge that a scan steps over, or the nearest K edge where it steps over none.

    Parameters
    ----------
    energies_eV : sequence of float, eV

    Returns
    -------
    (str, str)
        Element and edge.
    """
    centre = float(np.mean(energies_eV))
    edges = _edges("K")
    return edge_among(energies_eV) or (min(edges, key=lambda element: abs(edges[element] - centre)), "K")


def _edges(edge: str) -> dict[str, float]:
    """Energies of one edge of all elements that have it, eV."""
    found = {number: xraydb.xray_edge(number, edge) for number in range(3, HEAVIEST + 1)}
    return {xraydb.atomic_symbol(number): each.energy for number, each in found.items() if each is not None}
