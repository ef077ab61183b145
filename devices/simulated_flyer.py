"""The flyer of the simulated beamline: the stage passes by at its speed, and the detector follows suit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ptychrome.devices.clock import Clock
from ptychrome.devices.flyer import LineFlyer
from ptychrome.devices.line import Line, Taken


class SimulatedFlyer(LineFlyer):
    """Flyer of simulated axes and a `ptychrome.devices.eiger.SimulatedEiger`.

    Parameters
    ----------
    clock : Clock
    """

    def __init__(self, *, clock: Clock, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._clock = clock

    def _fly(self, line: Line) -> Iterator[Taken]:
        axes = (self.stage_axes.x, self.stage_axes.y)
        signals = (self.detector.total, *self.detector.companions.monitors)
        self._halting.wait(self._clock.wall_s(self._ramp_s))
        for step in self._steps:
            step.wait()
        began = time.monotonic()
        try:
            for number in range(line.frames):
                if self._halting.is_set():
                    return
                place = line.at(number * line.period_s)
                for axis, position, speed in zip(axes, place, line.velocity_m_s, strict=True):
                    axis.pass_by(position, speed)
                until = began + self._clock.wall_s(number * line.period_s + line.exposure_s)
                taken = self.detector.record(until)
                values = {axis.name: position for axis, position in zip(axes, place, strict=True)}
                values |= {signal.name: signal.get() for signal in signals}
                yield Taken(taken, time.time(), values)
        finally:
            for axis, position in zip(axes, line.ends_m(self._ramp_s)[1], strict=True):
                axis.pass_by(axis.position if self._halting.is_set() else position, 0.0)
            self._turn(line.velocity_m_s)
            self._halting.wait(self._clock.wall_s(self._ramp_s))
