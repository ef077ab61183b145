"""Geometry of a double-crystal monochromator: energy, Bragg angle, and the gap of a fixed exit."""

from __future__ import annotations

import math

HC_EV_ANGSTROM = 12398.42
SI_111_SPACING_ANGSTROM = 3.1356


def bragg_angle_deg(energy_eV: float, spacing_angstrom: float = SI_111_SPACING_ANGSTROM) -> float:
    """Bragg angle [deg] at which crystals of this lattice spacing reflect `energy_eV`: E = hc / (2 d sin θ).

    Raises
    ------
    ValueError
        If the crystals cannot reflect that energy (E < hc / 2d).
    """
    lowest = HC_EV_ANGSTROM / (2 * spacing_angstrom)
    if not energy_eV >= lowest:
        raise ValueError(
            f"energy {energy_eV!r} eV is out of reach; crystals of d = {spacing_angstrom} Å "
            f"start at {lowest:.1f} eV"
        )
    return math.degrees(math.asin(lowest / energy_eV))


def bragg_energy_eV(angle_deg: float, spacing_angstrom: float = SI_111_SPACING_ANGSTROM) -> float:
    """Photon energy [eV] reflected at a Bragg angle [deg]; infinite at zero, the home of many axes."""
    sine = math.sin(math.radians(angle_deg))
    return HC_EV_ANGSTROM / (2 * spacing_angstrom * sine) if sine else math.inf


def fixed_exit_gap_mm(angle_deg: float, exit_offset_mm: float) -> float:
    """Distance of the crystals' surfaces [mm] at which the beam leaves `exit_offset_mm` above its old path.

    g = h / (2 cos θ); the beam is deflected by 2θ twice.
    """
    return exit_offset_mm / (2 * math.cos(math.radians(angle_deg)))
