"""By how much the sample has drifted, as somebody else finds out: a device that a plan may read."""

from __future__ import annotations

from ophyd import Component as Cpt
from ophyd import Device

from ptychrome.devices.signals import Quantity


class DriftMonitor(Device):
    """How far the sample stands beside where it was at the first energy of the scan, CXI frame, m."""

    x = Cpt(Quantity, value=0.0, units="m", kind="hinted")
    y = Cpt(Quantity, value=0.0, units="m", kind="hinted")

    def tell(self, x_m: float, y_m: float) -> None:
        """Take the newest value; in any thread."""
        self.x.put(x_m)
        self.y.put(y_m)
