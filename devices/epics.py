"""The same devices over EPICS Channel Access. Nothing connects at import, nor before a device is made.

Site-specific record names come in as prefixes; attributes and data keys equal those of
`ptychrome.devices.simulated`, so that plans and analysis do not notice the difference.
"""

from __future__ import annotations

from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, EpicsMotor, EpicsSignal, EpicsSignalRO

from ptychrome.devices.dcm import DCM
from ptychrome.devices.shutter import Shutter


class EpicsDCM(DCM):
    """Si(111) monochromator whose Bragg axis is a motor record in degrees."""

    bragg = Cpt(EpicsMotor, "Bragg")


class EpicsStage(Device):
    """Piezo raster stage; its records count metres of sample translation in the CXI frame."""

    x = Cpt(EpicsMotor, "X")
    y = Cpt(EpicsMotor, "Y")


class EpicsKB(Device):
    """Pitch of the two Kirkpatrick–Baez mirrors, mrad."""

    vertical_pitch = Cpt(EpicsMotor, "V:Pitch")
    horizontal_pitch = Cpt(EpicsMotor, "H:Pitch")


class EpicsMonitor(Device):
    """One scalar record, read under the device's own name."""

    value = Cpt(EpicsSignalRO, "", kind="hinted")

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.value.name = name


class EpicsIonChamber(EpicsMonitor):
    """Incident intensity from an ion chamber's scaler or electrometer."""


class EpicsRingCurrent(EpicsMonitor):
    """Current of the storage ring, mA."""


class EpicsShutter(Shutter):
    """Fast shutter behind one record: 1 opens, 0 closes."""

    command = Cpt(EpicsSignal, "", kind="normal")

    def _move(self, *, is_open: bool) -> DeviceStatus:
        # put, not set: set waits in a thread and refuses a second call, and closing must always work
        self.command.put(int(is_open))
        status = DeviceStatus(self)
        status.set_finished()
        return status
