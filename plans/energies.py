"""Energy grids: plain lists of floats in eV, so that a queue server can carry them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

SAME_EV = 1e-6  # energies closer than this are one energy; far below what any monochromator resolves
LOWEST_EV, HIGHEST_EV = 100.0, 200_000.0


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
    """The 40 energies [eV] of the vanadium K-edge scan: 5420–5540 eV.

    Five points below 5465 eV for the noise, 0.5 eV steps over the pre-edge, 0.75 eV over the edge, then
    ever wider ones behind the white line (Uematsu et al. 2023: 40 points, smallest gap 0.5 eV).
    """
    return segments(
        [
            (5420.0, 5450.0, 15.0),
            (5460.0, 5464.0, 4.0),
            (5465.0, 5469.0, 0.5),  # pre-edge
            (5470.0, 5474.0, 2.0),
            (5474.0, 5483.0, 0.75),  # edge
            (5485.0, 5489.0, 2.0),  # white line
            (5492.0, 5496.0, 4.0),
            (5501.0, 5507.0, 6.0),
            (5514.0, 5522.0, 8.0),
            (5531.0, 5540.0, 9.0),
        ]
    )


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
