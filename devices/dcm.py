"""Double-crystal monochromator: photon energy as a pseudo motor over Bragg angle and crystal gap.

`DCM` holds the physics; subclasses bring the real axes (`ptychrome.devices.simulated.SimulatedDCM`,
`ptychrome.devices.epics.EpicsDCM`) as components ``bragg`` (degrees), ``gap`` (mm) and ``pitch`` (µrad, of
the second crystal, which does not follow the energy).
"""

from __future__ import annotations

from typing import Any

from ophyd import Component as Cpt
from ophyd import PseudoPositioner, PseudoSingle
from ophyd.pseudopos import pseudo_position_argument, real_position_argument
from ophyd.utils import DisconnectedError

from ptychrome.devices.bragg import (
    SI_111_SPACING_ANGSTROM,
    bragg_angle_deg,
    bragg_energy_eV,
    fixed_exit_gap_mm,
)
from ptychrome.devices.signals import Quantity

EXIT_OFFSET_MM = 20.0


class DCM(PseudoPositioner):
    """Monochromator moved in energy [eV]; data keys ``<name>_energy`` and ``<name>_energy_setpoint``.

    Attributes
    ----------
    spacing_angstrom : float
        Lattice spacing of the crystals.
    energy_offset : signal
        What must be added to `energy`, eV, as a foil has said; nothing moves for it.
    exit_offset_mm : float
        Height of the outgoing beam above the incoming one; the gap follows the angle to keep it.
    """

    spacing_angstrom: float = SI_111_SPACING_ANGSTROM
    exit_offset_mm: float = EXIT_OFFSET_MM
    energy = Cpt(PseudoSingle, egu="eV", limits=(2100.0, 30000.0), kind="hinted")
    energy_offset = Cpt(Quantity, value=0.0, units="eV", kind="config")
    _real = ("bragg", "gap")

    @pseudo_position_argument
    def forward(self, pseudo_pos: Any) -> Any:
        """Bragg angle and gap for an energy."""
        angle_deg = bragg_angle_deg(pseudo_pos.energy, self.spacing_angstrom)
        return self.RealPosition(bragg=angle_deg, gap=fixed_exit_gap_mm(angle_deg, self.exit_offset_mm))

    @real_position_argument
    def inverse(self, real_pos: Any) -> Any:
        """Energy for a Bragg angle; the gap has no say in it.

        Raises
        ------
        DisconnectedError
            If the angle is not known yet.
        """
        if real_pos.bragg is None:
            raise DisconnectedError(f"{self.name} is off-line: its Bragg angle is not known")
        return self.PseudoPosition(energy=bragg_energy_eV(real_pos.bragg, self.spacing_angstrom))
