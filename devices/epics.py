"""The devices over EPICS Channel Access. Nothing connects at import, nor before a device is made.

Site-specific record names come in as prefixes; attributes and data keys equal those of
`ptychrome.devices.simulated`, so that plans and analysis do not notice the difference.
"""

from __future__ import annotations

from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, EpicsMotor, EpicsSignal, EpicsSignalRO, PseudoSingle, PVPositionerPC
from ophyd import FormattedComponent as FCpt
from ophyd.device import required_for_connection
from ophyd.positioner import PositionerBase
from ophyd.status import StatusBase, SubscriptionStatus

from ptychrome.devices.dcm import DCM, EXIT_OFFSET_MM
from ptychrome.devices.metres import Metres, MetresRO
from ptychrome.devices.motion import Arriving, RasterStage
from ptychrome.devices.shutter import Shutter

REST_S = 10.0  # a motor that was stopped rests by then
SAME_M = 1e-12  # set points that differ by less are one: conversion of units rounds


class Motor(Arriving, EpicsMotor):
    """A motor record, read under the device's own name.

    Parameters
    ----------
    tolerance : float
        See `Arriving`.
    """

    user_setpoint = Cpt(EpicsSignal, ".VAL", limits=True, kind="omitted")
    hints = PositionerBase.hints  # as the kind of the whole axis says; ophyd's would plot every motor

    def __init__(self, *args: Any, tolerance: float = Arriving.tolerance, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tolerance = tolerance
        self._stopped = False

    def move(self, position: float, wait: bool = True, **kwargs: Any) -> StatusBase:
        """Move; right after a stop only when the motor has come to rest, which would pass for the arrival."""
        if self._stopped:
            SubscriptionStatus(self.motor_done_move, lambda value, **_: value == 1).wait(timeout=REST_S)
            self._stopped = False
        return super().move(position, wait=wait, **kwargs)

    def stop(self, *, success: bool = False) -> None:
        """See `Arriving.stop`."""
        self._stopped = True
        super().stop(success=success)

    def complaint(self, target: float, error: Exception | None = None) -> str | None:
        """As `Arriving.complaint`, and whether it stands at a limit switch."""
        for switch, where in ((self.low_limit_switch, "low"), (self.high_limit_switch, "high")):
            if switch.get():
                return (
                    f"{self.name} ran into its {where} limit switch at {self.position:.9g} "
                    f"on its way to {target:.9g}"
                )
        return super().complaint(target, error)


class HeardOf(EpicsSignalRO):
    """A record whose last update will do, even where ophyd would ask anew, which takes a round trip."""

    def get(self, *, use_monitor: bool | None = None, **kwargs: Any) -> Any:
        """The value of the last update."""
        return super().get(use_monitor=True, **kwargs)


class StageMotor(Motor):
    """A motor record that is read and moved in m.

    Where it stands says whether it has arrived; the limit switches only say why not.

    Parameters
    ----------
    units : str
        Of the record, see `ptychrome.devices.metres`; default those of the stage.
    tolerance : float
        m.
    """

    user_setpoint = Cpt(Metres, ".VAL", limits=True, kind="omitted")
    user_readback = Cpt(MetresRO, ".RBV", auto_monitor=True, kind="hinted")
    low_limit_switch = Cpt(HeardOf, ".LLS", auto_monitor=True, kind="omitted")
    high_limit_switch = Cpt(HeardOf, ".HLS", auto_monitor=True, kind="omitted")
    egu = "m"

    def __init__(self, *args: Any, parent: Any = None, units: str | None = None, **kwargs: Any) -> None:
        self.units = units or getattr(parent, "units", "m")
        super().__init__(*args, parent=parent, **kwargs)

    @required_for_connection
    @user_readback.sub_value
    def _pos_changed(self, value: float, **_: Any) -> None:
        self._set_position(value)

    def stands_at(self, position: float) -> bool:
        """Whether the record was sent nowhere else since, by anybody, and rests there."""
        return (
            abs(self.user_setpoint.get() - position) < SAME_M
            and self.motor_done_move.get() == 1
            and self.complaint(position) is None
        )


class PiezoAxis(Arriving, PVPositionerPC):
    """An axis behind a set-point record whose put completes when it has settled, and a readback record; in m.

    Parameters
    ----------
    readback_suffix : str
        What follows the prefix in the name of the readback record; default that of the stage, or ``_RBV``.
    units : str
        Of both records, see `ptychrome.devices.metres`; default those of the stage.
    tolerance : float
        See `Arriving`.
    """

    setpoint = Cpt(Metres, "", limits=True, auto_monitor=True, kind="omitted")
    readback = FCpt(MetresRO, "{prefix}{readback_suffix}", auto_monitor=True, kind="hinted")

    def __init__(
        self,
        prefix: str = "",
        *,
        readback_suffix: str | None = None,
        units: str | None = None,
        tolerance: float = Arriving.tolerance,
        parent: Any = None,
        **kwargs: Any,
    ) -> None:
        self.readback_suffix = readback_suffix or getattr(parent, "readback_suffix", "_RBV")
        self.units = units or getattr(parent, "units", "m")
        self._puts = 0
        super().__init__(prefix, parent=parent, **kwargs)
        self.tolerance = tolerance
        self.readback.name = self.name

    def check_value(self, pos: float) -> None:
        """Refuse what is beyond the limits, and records in other units."""
        self.setpoint.check_units()
        super().check_value(pos)

    def _setup_move(self, position: float) -> None:
        self._puts += 1
        number = self._puts

        def settled(**_: Any) -> None:
            if number == self._puts:  # that of a move given up comes late, and is not that of the next one
                self._done_moving(success=True)

        self._move_changed(value=1 - self.done_value)
        self.setpoint.put(position, wait=False, callback=settled)

    def stands_at(self, position: float) -> bool:
        """Whether the record was sent nowhere else since, by anybody, and stands there."""
        return abs(self.setpoint.get() - position) < SAME_M and self.complaint(position) is None

    def complaint(self, target: float, error: Exception | None = None) -> str | None:
        """As `Arriving.complaint`; asks for the readback only where the last one heard of is elsewhere."""
        if not abs(self.position - target) <= self.tolerance:
            self._set_position(self.readback.get(use_monitor=False))
        return super().complaint(target, error)


class Energy(Arriving, PseudoSingle):
    """Photon energy: arrives only when every axis behind it does."""

    def complaint(self, target: float, error: Exception | None = None) -> str | None:
        """As `Arriving.complaint`, and of each real axis; ophyd's own overlooks those that fail."""
        dcm = self.parent
        angles = dcm.forward(dcm.PseudoPosition(energy=target))
        for name, position in angles._asdict().items():
            if wrong := getattr(dcm, name).complaint(position):
                return f"{self.name} did not reach {target:.3f} eV: {wrong}"
        return super().complaint(target, error)


class EpicsDCM(DCM):
    """Monochromator whose axes are motor records: Bragg angle (deg), crystal gap (mm), pitch (µrad).

    Parameters
    ----------
    bragg, gap, pitch : str
        Names of the records behind the prefix.
    energy_tolerance_eV, bragg_tolerance_deg, gap_tolerance_mm : float
        How far from its target each may stand when it is done.
    exit_offset_mm : float
        Height of the outgoing beam above the incoming one.
    spacing_angstrom : float
        Of the crystals' lattice.
    settle_time : float
        Seconds to wait after a motion.
    """

    bragg = FCpt(Motor, "{prefix}{_bragg}", kind="normal")
    gap = FCpt(Motor, "{prefix}{_gap}", kind="normal")
    pitch = FCpt(Motor, "{prefix}{_pitch}", kind="normal")
    energy = Cpt(Energy, egu="eV", limits=(2100.0, 30000.0), kind="hinted")

    def __init__(
        self,
        prefix: str = "",
        *,
        bragg: str = "Bragg",
        gap: str = "Gap",
        pitch: str = "Pitch",
        energy_tolerance_eV: float = 0.05,
        bragg_tolerance_deg: float = 2e-4,
        gap_tolerance_mm: float = 0.002,
        exit_offset_mm: float = EXIT_OFFSET_MM,
        spacing_angstrom: float = DCM.spacing_angstrom,
        **kwargs: Any,
    ) -> None:
        self._bragg, self._gap, self._pitch = bragg, gap, pitch
        self.exit_offset_mm, self.spacing_angstrom = exit_offset_mm, spacing_angstrom
        super().__init__(prefix, **kwargs)
        self.energy.tolerance = energy_tolerance_eV
        self.bragg.tolerance = bragg_tolerance_deg
        self.gap.tolerance = gap_tolerance_mm


class _Stage(Device):
    """Where the records of a stage are and in which units, common to both kinds of it."""

    def __init__(
        self,
        prefix: str = "",
        *,
        x: str = "X",
        y: str = "Y",
        readback_suffix: str = "_RBV",
        units: str = "m",
        **kwargs: Any,
    ) -> None:
        self._x, self._y, self.readback_suffix, self.units = x, y, readback_suffix, units
        super().__init__(prefix, **kwargs)


class EpicsStage(RasterStage, _Stage):
    """Piezo raster stage behind set-point and readback records: translation of the sample, CXI frame, m.

    Parameters
    ----------
    x, y : str
        Names of the set-point records behind the prefix.
    readback_suffix, units, tolerance
        See `PiezoAxis`.
    """

    x = FCpt(PiezoAxis, "{prefix}{_x}", egu="m", kind="hinted")
    y = FCpt(PiezoAxis, "{prefix}{_y}", egu="m", kind="hinted")


class EpicsMotorStage(RasterStage, _Stage):
    """Raster stage of two motor records: translation of the sample in the CXI frame, m."""

    x = FCpt(StageMotor, "{prefix}{_x}", kind="hinted")
    y = FCpt(StageMotor, "{prefix}{_y}", kind="hinted")


class EpicsKB(Device):
    """Kirkpatrick–Baez mirrors: pitch (mrad), bend (N or as the records have it) and stripe (mm) of each."""

    vertical_pitch = Cpt(Motor, "V:Pitch", kind="normal")
    vertical_bend = Cpt(Motor, "V:Bend", kind="normal")
    vertical_stripe = Cpt(Motor, "V:Stripe", kind="normal")
    horizontal_pitch = Cpt(Motor, "H:Pitch", kind="normal")
    horizontal_bend = Cpt(Motor, "H:Bend", kind="normal")
    horizontal_stripe = Cpt(Motor, "H:Stripe", kind="normal")


class EpicsMonitor(Device):
    """One scalar record, read under the device's own name."""

    value = Cpt(EpicsSignalRO, "", kind="hinted")

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.value.name = name


class EpicsIonChamber(EpicsMonitor):
    """Intensity from an ion chamber's scaler or electrometer."""


class EpicsRingCurrent(EpicsMonitor):
    """Current of the storage ring, mA; changes slowly, so that the last update will do."""

    value = Cpt(EpicsSignalRO, "", auto_monitor=True, kind="hinted")


class EpicsFrontEnd(EpicsMonitor):
    """The front end's state: 0 while it is closed."""


class EpicsShutter(Shutter):
    """Fast shutter behind one record: 1 opens, 0 closes; done when the record has processed."""

    is_open = Cpt(EpicsSignal, "", kind="normal")

    def _move(self, *, is_open: bool) -> DeviceStatus:
        # put, not set: set waits in a thread and refuses a second call, and closing must always work
        status = DeviceStatus(self)
        self.is_open.put(int(is_open), wait=False, callback=lambda **_: status.set_finished())
        return status
