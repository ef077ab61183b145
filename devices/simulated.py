"""The simulated beamline: ophyd devices around a twin, with the names and data keys of the real ones.

The devices hold the state of the machine (angles, positions, shutter); the twin is told it at the moment of
an exposure, and what the monitors read is what the twin measured during that exposure.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, Signal, SoftPositioner

from ptychrome.devices.alarms import Alarm
from ptychrome.devices.bragg import bragg_angle_deg, fixed_exit_gap_mm
from ptychrome.devices.clock import Clock
from ptychrome.devices.dcm import DCM, EXIT_OFFSET_MM
from ptychrome.devices.detector_model import DetectorModel
from ptychrome.devices.eiger import SimulatedEiger
from ptychrome.devices.file_detector import Companions
from ptychrome.devices.motion import ALARMS, Heading, RasterStage
from ptychrome.devices.shutter import Shutter
from ptychrome.devices.signals import Quantity
from ptychrome.devices.simplon_simulator import SimplonSimulator
from ptychrome.devices.simulated_flyer import SimulatedFlyer
from ptychrome.devices.twin.nuisances import FULL_CURRENT_MA


class Exposure(Protocol):
    """One frame, (ny, nx) uint32 counts, and what was measured along with it."""

    @property
    def counts(self) -> NDArray[np.uint32]: ...
    @property
    def i0(self) -> float: ...
    @property
    def ring_current_mA(self) -> float: ...


class Twin(Protocol):
    """What this module asks of `ptychrome.devices.twin.TwinBeamline`."""

    energy_eV: float
    stage_m: tuple[float, float]  # (x, y) of the sample, CXI frame
    stage_velocity_m_s: tuple[float, float]
    shutter_open: bool

    @property
    def detector(self) -> DetectorModel: ...
    @property
    def nominal_probe(self) -> Any: ...
    def expose(self, exposure_s: float) -> Exposure: ...


class SimulatedAxis(Heading, SoftPositioner):
    """A motor that needs its time: ``|distance| / velocity + settle_s`` by the clock, none if it is there.

    Parameters
    ----------
    velocity : float
        Units of the axis per second.
    settle_s : float
    start : float
        Position when made.

    Attributes
    ----------
    speed : float
        Units per second, towards positive, at which it passes by in a flight.
    """

    def __init__(self, *, velocity: float, settle_s: float = 0.0, start: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clock = Clock()
        self._velocity = velocity
        self._settle_s = settle_s
        self._arrival: Alarm | None = None
        self._departure = (0.0, 1.0, start, start)  # time, duration, from, to
        self.speed = 0.0
        self._set_position(start)

    def _setup_move(self, position: float, status: DeviceStatus) -> None:
        began = time.monotonic()
        distance = abs(position - self.position)
        stands = math.isclose(position, self.position)  # sums round
        duration = 0.0 if stands else self.clock.wall_s(distance / self._velocity + self._settle_s)
        self._run_subs(sub_type=self.SUB_START, timestamp=time.time())
        self._started_moving = self._moving = True
        if not duration:
            self._arrive(position)
            return
        self._departure = (began, duration, self.position, position)
        left = max(began + duration - time.monotonic(), 0.0)
        self._arrival = ALARMS.call_later(left, lambda: self._arrive(position))

    def _arrive(self, position: float) -> None:
        self._arrival = None
        self._moving = False
        self._set_position(position)
        self._done_moving()

    def stands_at(self, position: float) -> bool:
        """Whether it rests there."""
        return not self._moving and self.position == position

    def pass_by(self, position: float, speed: float) -> None:
        """Be at a position in the course of a flight, whose pace is that of the flyer."""
        self.speed = speed
        self._set_position(position)

    def stop(self, *, success: bool = False) -> None:
        """Stop where the axis is by now."""
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.cancel()
            started, duration, origin, target = self._departure
            done = min((time.monotonic() - started) / duration, 1.0)
            self._moving = False
            self._set_position(origin + done * (target - origin))
        super().stop(success=success)


SPEED_M_S = 20e-6  # of the raster stage
HOME_DEG = bragg_angle_deg(5420.0)


class SimulatedDCM(DCM):
    """Monochromator with simulated axes, standing at 5420 eV at first."""

    bragg = Cpt(SimulatedAxis, egu="deg", velocity=0.05, settle_s=0.5, start=HOME_DEG)
    gap = Cpt(SimulatedAxis, egu="mm", velocity=0.1, start=fixed_exit_gap_mm(HOME_DEG, EXIT_OFFSET_MM))
    pitch = Cpt(SimulatedAxis, egu="urad", velocity=10.0)


class SimulatedStage(RasterStage, Device):
    """Piezo raster stage: translation of the sample in the CXI frame, m."""

    x = Cpt(SimulatedAxis, egu="m", limits=(-50e-6, 50e-6), velocity=SPEED_M_S, settle_s=0.005, kind="hinted")
    y = Cpt(SimulatedAxis, egu="m", limits=(-50e-6, 50e-6), velocity=SPEED_M_S, settle_s=0.005, kind="hinted")


class SimulatedKB(Device):
    """Pitch, bend and stripe of the two Kirkpatrick–Baez mirrors."""

    vertical_pitch = Cpt(SimulatedAxis, egu="mrad", velocity=0.1, start=4.0)
    vertical_bend = Cpt(SimulatedAxis, egu="N", velocity=1.0, start=20.0)
    vertical_stripe = Cpt(SimulatedAxis, egu="mm", velocity=1.0)
    horizontal_pitch = Cpt(SimulatedAxis, egu="mrad", velocity=0.1, start=4.0)
    horizontal_bend = Cpt(SimulatedAxis, egu="N", velocity=1.0, start=20.0)
    horizontal_stripe = Cpt(SimulatedAxis, egu="mm", velocity=1.0)


class SimulatedShutter(Shutter):
    """A blade that takes no time."""

    is_open = Cpt(Signal, value=0, kind="normal")

    def _move(self, *, is_open: bool) -> DeviceStatus:
        self.is_open.put(int(is_open))
        status = DeviceStatus(self)
        status.set_finished()
        return status


@dataclass(frozen=True)
class SimulatedBeamline:
    """All devices of a simulated beamline, ready for plans."""

    dcm: SimulatedDCM
    stage: SimulatedStage
    eiger: SimulatedEiger
    flyer: SimulatedFlyer
    kb: SimulatedKB
    i0: Quantity
    ring_current: Quantity
    shutter: SimulatedShutter

    @property
    def baseline(self) -> list[Device | Quantity]:
        """What is worth a reading before and after every run."""
        return [self.dcm, self.stage, self.kb, self.ring_current]


def simulated_beamline(
    twin: Twin, directory: Path | str, *, clock: float = 0.0, stream: SimplonSimulator | None = None
) -> SimulatedBeamline:
    """Devices around a twin.

    Parameters
    ----------
    twin : Twin
        Its state belongs to these devices from now on.
    directory : Path
        Where the detector's files go; it must exist when the detector is staged.
    clock : float
        Wall seconds per physical second of motion and exposure; 0: no waiting, 1: real time.
    stream : SimplonSimulator, optional
        Sends the detector's frames, which then leave no file in the directory.

    Returns
    -------
    SimulatedBeamline

    Raises
    ------
    ValueError
        If the clock is negative or not finite.
    """
    shared_clock = Clock(clock)
    dcm, stage, kb = SimulatedDCM(name="dcm"), SimulatedStage(name="stage"), SimulatedKB(name="kb")
    for device in (dcm, stage, kb):
        for axis in (getattr(device, name) for name in device.component_names):
            if isinstance(axis, SimulatedAxis):
                axis.clock = shared_clock
    shutter = SimulatedShutter(name="shutter")
    i0 = Quantity(name="i0", value=0.0, units="counts", kind="hinted")
    ring_current = Quantity(name="ring_current", value=FULL_CURRENT_MA, units="mA", kind="hinted")

    def expose(exposure_s: float) -> NDArray[np.uint32]:
        twin.energy_eV = dcm.energy.position
        twin.stage_m = (stage.x.position, stage.y.position)
        twin.stage_velocity_m_s = (stage.x.speed, stage.y.speed)
        twin.shutter_open = bool(shutter.is_open.get())
        exposure = twin.expose(exposure_s)
        i0.put(float(exposure.i0))
        ring_current.put(float(exposure.ring_current_mA))
        return exposure.counts

    fields = ("fwhm_m", "fwhm_energy_eV", "defocus_m")
    probe = {field: float(getattr(twin.nominal_probe, field)) for field in fields}
    eiger = SimulatedEiger(
        expose,
        twin.detector,
        Path(directory),
        name="eiger",
        clock=shared_clock,
        companions=Companions(monitors=(i0, ring_current), shutter=shutter, probe=probe),
        stream=stream,
    )
    flyer = SimulatedFlyer(
        name="flyer", detector=eiger, stage=stage, dcm=dcm, clock=shared_clock, max_speed_m_s=SPEED_M_S
    )
    return SimulatedBeamline(dcm, stage, eiger, flyer, kb, i0, ring_current, shutter)
