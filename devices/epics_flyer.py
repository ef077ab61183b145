"""The flyer over Channel Access: a controller moves the stage, triggers the EIGER and captures positions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from ophyd import Component as Cpt
from ophyd import EpicsSignal, EpicsSignalRO
from ophyd.status import StatusBase

from ptychrome.devices.epics_eiger import EpicsEiger
from ptychrome.devices.flyer import LineFlyer
from ptychrome.devices.line import Line, Taken


class FlightError(RuntimeError):
    """A flight that did not take the frames it should; the message says what to look at."""


class EpicsFlyer(LineFlyer):
    """Flyer of a controller with the records of `ptychrome.devices.ioc.flight`, and an `EpicsEiger`.

    The controller waits for an axis that is still on its way to the line. Staged, the detector takes one
    frame for each of the controller's triggers. A line of which a frame was lost is flown again, as often as
    the detector's settings have it take a lost frame again.

    Parameters
    ----------
    prefix : str
        Of the controller's records.
    patience_s : float
        How much longer than planned a flight and its frames may take.
    """

    first_x = Cpt(EpicsSignal, "FirstX", kind="omitted")
    first_y = Cpt(EpicsSignal, "FirstY", kind="omitted")
    last_x = Cpt(EpicsSignal, "LastX", kind="omitted")
    last_y = Cpt(EpicsSignal, "LastY", kind="omitted")
    points = Cpt(EpicsSignal, "Points", kind="omitted")
    exposure = Cpt(EpicsSignal, "Exposure", kind="omitted")
    period = Cpt(EpicsSignal, "Period", kind="omitted")
    ramp = Cpt(EpicsSignal, "Ramp", kind="omitted")
    go = Cpt(EpicsSignal, "Go", kind="omitted")
    abort = Cpt(EpicsSignal, "Abort", kind="omitted")
    captured = Cpt(EpicsSignalRO, "Captured", auto_monitor=True, kind="omitted")
    x_captured = Cpt(EpicsSignalRO, "X", auto_monitor=True, kind="omitted")
    y_captured = Cpt(EpicsSignalRO, "Y", auto_monitor=True, kind="omitted")
    i0_captured = Cpt(EpicsSignalRO, "I0", auto_monitor=True, kind="omitted")
    ring_captured = Cpt(EpicsSignalRO, "Ring", auto_monitor=True, kind="omitted")
    time_captured = Cpt(EpicsSignalRO, "Time", auto_monitor=True, kind="omitted")

    detector: EpicsEiger

    def __init__(self, prefix: str = "", *, patience_s: float = 5.0, **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        self._patience_s = patience_s
        self._known: dict[EpicsSignal, float] = {}  # what the controller was told in this flight
        self._told: dict[EpicsSignal, threading.Event] = {}
        self._rested = threading.Event()

    def stage(self) -> list[object]:
        """Stage the detector too, for triggers from outside."""
        self.detector.external_triggers = True
        try:
            return super().stage()
        finally:
            self.detector.external_triggers = False

    def kickoff(self) -> StatusBase:
        """See `LineFlyer.kickoff`."""
        self._known = {}
        return super().kickoff()

    def _instruct(self, line: Line) -> None:
        settings = {
            self.first_x: line.first_m[0],
            self.first_y: line.first_m[1],
            self.last_x: line.last_m[0],
            self.last_y: line.last_m[1],
            self.points: line.frames,
            self.exposure: line.exposure_s,
            self.period: line.period_s,
            self.ramp: self._ramp_s,
        }
        settings = dict(settings.items() - self._known.items())
        self._known |= settings
        settings |= self.detector.line_settings
        self._told = {signal: threading.Event() for signal in settings}
        for signal, value in settings.items():
            signal.put(value, wait=False, callback=lambda told=self._told[signal], **_: told.set())

    def _fly(self, line: Line) -> Iterator[Taken]:
        for retries_left in reversed(range(self.detector.retries + 1)):
            began, heard = self._pass_along(line)
            for step in self._steps:
                step.wait()
            self._turn(line.velocity_m_s)
            self._wait_for(self._rested, line)
            self._turn()
            count = line.frames if heard else int(self.captured.get(use_monitor=False))
            come = self.detector.come(count, self._patience_s)
            if come == count and (count == line.frames or self._halting.is_set()):
                yield from self._captured_frames(count, began, heard)
                return
            told = f"{self.name}: {line.frames} frames planned, {count} triggered, {come} in the file"
            again = retries_left and come < count == line.frames
            if not (again or self._halting.is_set()):
                raise FlightError(
                    f"{told}; a frame was lost, or the controller stopped ({self.detector.retries} retries). "
                    "The lines so far are good; look at the detector and its DroppedArrays, then scan again"
                )
            self._strays.update(self.detector.give_up(count))  # what was late has come then
            if self._halting.is_set():
                return
            self.log.warning("%s; the line is flown again", told)
            self._approach(line)

    def _pass_along(self, line: Line) -> tuple[float, bool]:
        """Fly once; the time of the first trigger, and whether updates of all that was captured have come."""
        for signal, told in self._told.items():
            if not told.wait(self._patience_s):
                raise FlightError(
                    f"{self.name}: {signal.pvname} did not take its value within {self._patience_s:g} s; "
                    "look at the motion controller"
                )
        self._rested.clear()
        over, begun, heard = threading.Event(), threading.Event(), threading.Event()

        def count_frames(value: int, **_: Any) -> None:
            if value == 0:
                begun.set()  # what comes from now on is not of the flight before
            elif value == line.frames and begun.is_set():
                heard.set()
                over.set()

        def end(**_: Any) -> None:
            self._rested.set()
            over.set()

        self.captured.subscribe(count_frames, run=False)
        try:
            with self._helm:
                if self._halting.is_set():
                    raise FlightError(f"{self.name} was stopped before the line")
                began = time.time() + self._ramp_s
                self.go.put(1, wait=False, callback=end)
            self._wait_for(over, line)
        finally:
            self.captured.clear_sub(count_frames)
        return began, heard.is_set()

    def _wait_for(self, event: threading.Event, line: Line) -> None:
        """Until an event of the flight; a halt ends the flight sooner."""
        planned_s = 2 * self._ramp_s + line.frames * line.period_s
        end = time.monotonic() + planned_s + self._patience_s
        asked = False
        while not event.wait(0.02):
            if self._halting.is_set() and not asked:
                asked = True
                self.abort.put(1, wait=False)
            if time.monotonic() > end:
                self.abort.put(1, wait=False)
                raise FlightError(
                    f"{self.name}: the flight did not end within {planned_s + self._patience_s:.3g} s; look "
                    "at the motion controller"
                )

    def _captured_frames(self, count: int, began: float, heard: bool) -> Iterator[Taken]:
        i0, ring = (monitor.name for monitor in self.detector.companions.monitors)
        keys = {
            self.stage_axes.x.name: self.x_captured,
            self.stage_axes.y.name: self.y_captured,
            i0: self.i0_captured,
            ring: self.ring_captured,
        }
        values = {key: signal.get(use_monitor=heard) for key, signal in keys.items()}
        times = self.time_captured.get(use_monitor=heard)
        values[self.detector.total.name] = self.detector.sums(count)
        first = self.detector.accept(count)
        for number in range(count):
            frame = {key: float(column[number]) for key, column in values.items()}
            yield Taken(first + number, began + float(times[number]), frame)
