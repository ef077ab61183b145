"""Energy grids: plain lists of floats in eV, so that a queue server can carry them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from ptychrome.edges import tabulated_edge_eV

SAME_EV = 1e-6  # energies closer than this are one energy; far below what any monochromator resolves
LOWEST_EV, HIGHEST_EV = 100.0, 200_000.0
FEWEST = 12
AROUND_EDGE = (  # (start, stop, step) from the tabulated edge, eV
    (-45.0, -15.0, 15.0),
    (-5.0, -1.0, 4.0),
    (0.0, 4.0, 0.5),  # pre-edge
    (5.0, 9.0, 2.0),
    (9.0, 18.0, 0.75),  # edge
    (20.0, 24.0, 2.0),  # white line
    (27.0, 31.0, 4.0),
    (36.0, 42.0, 6.0),
    (49.0, 57.0, 8.0),
    (66.0, 75.0, 9.0),
)


def segments(parts: Sequence[tuple[float, float, float]]) -> list[float]:
    """Energies from segments ``[(start, stop, step), …]`` as at HXN, but in eV.

    Each segment counts up from `start` by `step`. Its `stop` belongs to it when it lies a whole number of
    steps away and is left out otherwise: (0, 10, 5) gives 0, 5, 10 and (0, 10, 4) gives 0, 4, 8. An
    energy where two segments meet appears once.

    Parameters
    ----------
    parts : sequence of (start, stop, step)
        All in eV; stop >= start, step > 0.

    Returns
    -------
    list of float
        Energies in eV, in the order of the segments.

    Raises
    ------
    ValueError
        If a segment is not three numbers, runs backwards or has no positive step, or if an energy comes
        twice other than at a joint.

    Examples
    --------
    >>> segments([(5460, 5464, 2), (5464, 5465, 0.5)])
    [5460.0, 5462.0, 5464.0, 5464.5, 5465.0]
    """
    energies: list[float] = []
    for part in parts:
        for energy in _segment(part):
            if not energies or abs(energy - energies[-1]) > SAME_EV:
                energies.append(energy)
    return check_energies(energies)


def _segment(part: Sequence[float]) -> list[float]:
    if len(part) != 3:
        raise ValueError(
            f"energy segment {part!r} has {len(part)} numbers; expected (start, stop, step) in eV"
        )
    start, stop, step = (float(number) for number in part)
    if not (math.isfinite(start) and stop >= start and 0 < step < math.inf and stop < math.inf):
        raise ValueError(
            f"energy segment {tuple(part)!r}; expected start <= stop and step > 0, all finite, in eV"
        )
    count = math.floor((stop - start) / step + SAME_EV) + 1
    return [start + i * step for i in range(count)]


def v_k_edge() -> list[float]:
    """The 40 energies [eV] of the vanadium K-edge scan, 5420–5540 eV (Uematsu et al. 2023), see `k_edge`."""
    return k_edge("V")


def k_edge(element: str, n: int = 40) -> list[float]:
    """Energies [eV] of a scan over the K edge of an element, from 45 eV below to 75 eV above it.

    With 40 of them: five points below the edge for the noise, 0.5 eV steps over the pre-edge, 0.75 eV over
    the edge of an oxide, then ever wider ones behind the white line. Other numbers keep these densities.

    Parameters
    ----------
    element : str
        Such as "Fe".
    n : int
        Number of energies, at least 12: eq. (1) has ten parameters.

    Returns
    -------
    list of float

    Raises
    ------
    ValueError
        If the element has no K edge in the tables of xraydb or there are too few energies.
    """
    if n < FEWEST:
        raise ValueError(f"n is {n}; expected at least {FEWEST} energies")
    edge_eV = tabulated_edge_eV(element, "K")
    offsets = segments([(edge_eV + start, edge_eV + stop, step) for start, stop, step in AROUND_EDGE])
    if n == len(offsets):
        return offsets
    places = np.linspace(0, len(offsets) - 1, n)
    resampled = np.interp(places, np.arange(len(offsets)), offsets)
    return check_energies(round(float(energy), 3) for energy in resampled)


def check_energies(energies: Iterable[float]) -> list[float]:
    """Energies as plain floats, refused when they make no scan.

    Parameters
    ----------
    energies : iterable of float, eV
        In the order of the scan.

    Returns
    -------
    list of float

    Raises
    ------
    ValueError
        If there is none, one is not a number between 100 eV and 200 keV, or one comes twice.
    """
    try:
        checked = [float(energy) for energy in energies]
    except (TypeError, ValueError):
        raise ValueError(f"energies {energies!r:.80}; expected a list of numbers in eV") from None
    if not checked:
        raise ValueError("energies is empty; expected at least one energy in eV")
    for energy in checked:
        if not LOWEST_EV <= energy <= HIGHEST_EV:
            raise ValueError(f"energy {energy!r}; expected {LOWEST_EV:g} to {HIGHEST_EV:g} eV (eV, not keV)")
    ordered = sorted(checked)
    for lower, upper in pairwise(ordered):
        if upper - lower <= SAME_EV:
            raise ValueError(f"energy {lower!r} eV comes twice; expected distinct energies")
    return checked
