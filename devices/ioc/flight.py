"""Line flights: what a motion controller with position capture and trigger output does, behind records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ptychrome.devices.ioc.axes import Axis
from ptychrome.devices.ioc.channels import Database, count, number, series
from ptychrome.devices.ioc.detector import EigerRecords

CAPTURED = ("X", "Y", "I0", "Ring")


class FlightRecords:
    """Flies a line and triggers the detector at equal times on the way.

    ``FirstX``, ``FirstY``, ``LastX`` and ``LastY`` (m): the stage in the middle of the first and of the last
    exposure; ``Points``, ``Exposure``, ``Period``, ``Ramp`` (s). ``Go`` begins with the run-up; the first
    exposure waits for an axis that is still on its way to the line; the put completes when the stage rests
    again. ``Abort`` ends a flight with its exposure. ``Captured`` counts what the waveforms hold: ``X`` and
    ``Y`` in the middle of each exposure, ``I0`` and ``Ring``, and ``Time``, s from the first trigger to the
    end of each exposure. They are there with the last exposure, before the stage rests, and are posted before
    ``Captured`` is; from then on an axis that stands still on the line belongs to others again.

    Parameters
    ----------
    database : dict
        Takes the records.
    prefix : str
    axes : (Axis, Axis)
        x and y of the stage.
    detector : EigerRecords
    monitors : mapping
        Channels of ``I0`` and ``Ring``.
    wall_s : callable
        Seconds to wait for something that physically takes so many.
    """

    def __init__(
        self,
        database: Database,
        prefix: str,
        axes: tuple[Axis, Axis],
        detector: EigerRecords,
        monitors: dict[str, Any],
        wall_s: Callable[[float], float],
    ) -> None:
        self._axes, self._detector, self._monitors, self._wall_s = axes, detector, monitors, wall_s
        self._abort = asyncio.Event()

        def add(name: str, channel: Any) -> Any:
            database[prefix + name] = channel
            return channel

        self._first = [add(f"First{axis}", number(units="m", precision=10)) for axis in "XY"]
        self._last = [add(f"Last{axis}", number(units="m", precision=10)) for axis in "XY"]
        self._points = add("Points", count(2))
        self._exposure = add("Exposure", number(0.01, units="s"))
        self._period = add("Period", number(0.01, units="s"))
        self._ramp = add("Ramp", number(0.005, units="s"))
        self._captured = add("Captured", count(0))
        self._waveforms = {name: add(name, series()) for name in (*CAPTURED, "Time")}
        add("Go", count(0)).on_put = self._put_go
        add("Abort", count(0)).on_put = self._put_abort

    async def _put_abort(self, _: Any) -> None:
        self._abort.set()

    async def _put_go(self, _: Any) -> None:
        self._abort.clear()
        await self._captured.post(0)
        taken: dict[str, list[float]] = {name: [] for name in self._waveforms}
        first, last = ([channel.value for channel in ends] for ends in (self._first, self._last))
        seconds = (self._points.value - 1) * self._period.value
        velocity = [(b - a) / seconds for a, b in zip(first, last, strict=True)]
        try:
            await self._fly(first, velocity, taken)
        finally:
            whole = len(taken["Time"]) == self._points.value
            rests = asyncio.get_running_loop().time() + self._wall_s(self._ramp.value)
            for name, values in taken.items():
                await self._waveforms[name].post(values)
            await self._detector.post_totals()
            await self._captured.post(len(taken["Time"]))
            margin_s = (self._exposure.value + self._ramp.value) / 2
            for axis, end, v in zip(self._axes, last, velocity, strict=True):
                if v:  # the other one may be on its way to the next line
                    await axis.pass_by(end + v * margin_s if whole else axis.position, 0.0)
        await self._wait_until(rests)

    async def _fly(
        self, first: Sequence[float], velocity: Sequence[float], taken: dict[str, list[float]]
    ) -> None:
        period_s = self._period.value
        loop = asyncio.get_running_loop()
        await self._wait_until(loop.time() + self._wall_s(self._ramp.value))
        for axis in self._axes:
            await axis.come_to_rest()
        began = loop.time()
        for point in range(self._points.value):
            if self._abort.is_set():
                break
            for axis, a, v in zip(self._axes, first, velocity, strict=True):
                if v:  # the other one is where it was sent, or was stopped
                    await axis.pass_by(a + v * (point * period_s), v)
            place = [axis.position for axis in self._axes]
            # what it takes to simulate a frame is not dead time: the next one ends when it should
            ends = began + self._wall_s(point * period_s + self._exposure.value)
            if not await self._detector.trigger_from_outside(ends):
                break
            values = [*place, *(self._monitors[name].value for name in CAPTURED[2:]), loop.time() - began]
            for name, value in zip((*CAPTURED, "Time"), values, strict=True):
                taken[name].append(value)

    async def _wait_until(self, end: float) -> None:
        """By the loop's clock, unless the flight is aborted."""
        if (wall_s := end - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._abort.wait(), wall_s)
