"""Double-crystal monochromator: photon energy as a pseudo motor over the Bragg angle.

`DCM` holds the physics; subclasses bring the real axis (`ptychrome.devices.simulated.SimulatedDCM`,
`ptychrome.devices.epics.EpicsDCM`) as a component named ``bragg`` in degrees.
"""

from __future__ import annotations

import math
from typing import Any

from ophyd import Component as Cpt
from ophyd import PseudoPositioner, PseudoSingle
from ophyd.pseudopos import pseudo_position_argument, real_position_argument

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


class DCM(PseudoPositioner):
    """Monochromator moved in energy [eV]; data keys ``<name>_energy`` and ``<name>_energy_setpoint``."""

    spacing_angstrom: float = SI_111_SPACING_ANGSTROM
    energy = Cpt(PseudoSingle, egu="eV", limits=(2100.0, 30000.0), kind="hinted")

    @pseudo_position_argument
    def forward(self, pseudo_pos: Any) -> Any:
        """Bragg angle for an energy."""
        return self.RealPosition(bragg=bragg_angle_deg(pseudo_pos.energy, self.spacing_angstrom))

    @real_position_argument
    def inverse(self, real_pos: Any) -> Any:
        """Energy for a Bragg angle."""
        return self.PseudoPosition(energy=bragg_energy_eV(real_pos.bragg, self.spacing_angstrom))
