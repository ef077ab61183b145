"""Flyers: a stage moves along a line at constant speed while a detector takes one frame after the other.

`LineFlyer` holds what Bluesky asks of a flyer and which frames count; subclasses fly one line.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from bluesky.utils import NoReplayAllowed
from ophyd import Device, DeviceStatus
from ophyd.status import StatusBase

from ptychrome.devices.assets import Document
from ptychrome.devices.file_detector import FileDetector
from ptychrome.devices.line import Line, Taken

# Of a piezo scanner of 100 µm with its first resonance at 350 Hz (Queensgate NPS-XY-100A). A controller that
# shapes its ramps settles within one period of the resonance, 3 ms (PI, InputShaping); a simple one follows
# at a tenth of the resonance (PI), with a time constant of 4.5 ms, and needs three of them.
RAMP_S = 0.005
UNSURE = 2  # last frames of a flight cut short: the shutter closes a moment before the flyer is told

Readings = Mapping[str, Mapping[str, Any]]


class Flight(DeviceStatus):
    """Of a flight under way; tells progress bars of its lines."""

    def __init__(self, device: Any, lines: int) -> None:
        super().__init__(device, call_stop_on_failure=False)  # whoever flies has stopped by then
        self._lines = lines

    def tell(self, flown: int) -> None:
        """So many lines have been flown."""
        where = {"current": flown, "initial": 0, "target": self._lines, "unit": "lines"}
        for watcher in self._watchers:
            with contextlib.suppress(Exception):  # a flight does not end for that
                watcher(name=self.device.name, fraction=1 - flown / self._lines, **where)

    def fail(self, error: Exception) -> None:
        """As `set_exception`, which does not take ophyd's own time-outs."""
        if isinstance(error, TimeoutError):
            late, error = error, RuntimeError(f"{self.device.name}: {error or type(error).__name__}")
            error.__cause__ = late
        self.set_exception(error)


class LineFlyer(Device):
    """Flies lines; one event of the frames' stream for every frame.

    Bluesky's order: `prepare` with lines, `kickoff`, `complete`. Meanwhile and afterwards `collect` makes
    documents of a line that is flown, as long as some are `uncollected`: a page, or one for each file that
    the line's frames lie in, and one for the first frame of a repetition (below), since all that are
    announced in one collection must be equally many.

    A pause ends the flight with the frame under way, and the next `kickoff` goes on with the line that it
    has cut short. That line takes new frames. Those of the first attempt, which are in the detector's file,
    are announced together with the first of the second under one seq_num (see
    `ptychrome.devices.assets.FrameAssets`). Since documents were made meanwhile, the RunEngine must repeat
    nothing; that it may again is told by a collection that finds nothing left, after a checkpoint. When
    the run ends instead, `stop` has what the line has brought home collected, too.

    Subclasses implement `_fly`, and `_instruct` where there is somebody to tell.

    Parameters
    ----------
    detector : FileDetector
        Staged and unstaged along with the flyer.
    stage : device
        With positioners ``x`` and ``y``, m.
    dcm : readable
        Read before every line, while the stage moves there.
    max_speed_m_s : float
        Of the stage, on a line.
    ramp_s : float
        Time to come to speed and to rest.

    Attributes
    ----------
    detector, stage_axes : device
    readout_s : float
        Least time from the end of one exposure to the beginning of the next.
    """

    readout_s = 20e-6  # an EIGER's is shorter

    def __init__(
        self,
        prefix: str = "",
        *,
        name: str,
        detector: FileDetector,
        stage: Any,
        dcm: Any,
        max_speed_m_s: float,
        ramp_s: float = RAMP_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.detector, self.stage_axes, self._dcm = detector, stage, dcm
        self._max_speed_m_s, self._ramp_s = max_speed_m_s, ramp_s
        self._pilot: ThreadPoolExecutor | None = None
        self._flight: Future | None = None
        self._halting = threading.Event()
        self._helm = threading.Lock()  # of the axes: after a halt nobody sends them anywhere
        self._forget()

    def _forget(self) -> None:
        """As it is before the first flight."""
        self._lines: deque[Line] = deque()  # that are left
        self._ahead: tuple[Line, dict[Any, StatusBase]] | None = None  # where axes are heading
        self._steps: list[StatusBase] = []  # of axes that stand still on the line under way
        self._flown: Flight | None = None
        self._replayable, self._giving_up = True, False
        self._before: Readings = {}  # all that an event is made of, before the line under way
        self._attempt: list[Taken] = []  # its frames
        self._whole: deque[tuple[Readings, list[Taken]]] = deque()  # lines that are flown, not collected
        self._strays: set[int] = set()  # frames that do not count, not announced
        self._announced: tuple[Readings, list[Taken]] = {}, []

    @property
    def _devices(self) -> list[Any]:
        """All that an event is made of."""
        return [self.detector, *self.detector.companions.monitors, self.stage_axes, self._dcm]

    @property
    def lines_left(self) -> int:
        """How many of the prepared lines have not been flown as a whole."""
        return len(self._lines)

    @property
    def uncollected(self) -> int:
        """Lines of which there are no documents, or not of all frames."""
        return len(self._whole) + (self._giving_up and (self._flying or bool(self._attempt)))

    @property
    def _flying(self) -> bool:
        return self._flight is not None and not self._flight.done()

    def check_value(self, line: Mapping[str, Any]) -> None:
        """Refuse a line (see `prepare`) that cannot be flown.

        Raises
        ------
        ValueError
            If the stage cannot reach an end of it with its run-up, or not move so fast.
        """
        wanted = self._as_line(line)
        for end in wanted.ends_m(self._ramp_s):
            self.stage_axes.x.check_value(end[0])
            self.stage_axes.y.check_value(end[1])
        speed = math.hypot(*wanted.velocity_m_s)
        if not speed <= self._max_speed_m_s:
            least_s = wanted.exposure_s * speed / self._max_speed_m_s
            raise ValueError(
                f"{self.name} would have to move at {speed * 1e6:.3g} µm/s, faster than "
                f"{self._max_speed_m_s * 1e6:.3g} µm/s; expected exposures of at least {least_s:.3g} s, or "
                "smaller steps"
            )

    def stage(self) -> list[object]:
        """Stage the detector too."""
        self.detector.stage()
        self._pilot = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        self._forget()
        return [*super().stage(), self.detector]

    def unstage(self) -> list[object]:
        """End a flight, then unstage the detector too."""
        self._land()
        if self._pilot is not None:
            self._pilot.shutdown()
        self._pilot = None
        self._forget()
        self.detector.unstage()
        return [*super().unstage(), self.detector]

    def prepare(self, value: Sequence[Mapping[str, Any]]) -> StatusBase:
        """Take lines to be flown, and move to where the run-up of the first one begins.

        Parameters
        ----------
        value : sequence of mapping
            ``first_m``, ``last_m``, ``frames``, ``exposure_s`` of each, see `Line`.

        Raises
        ------
        RuntimeError
            If the flyer is not staged.
        ValueError
            If there are no lines.
        """
        if self._pilot is None:
            raise RuntimeError(f"{self.name} cannot prepare lines; stage it before")
        if not value:
            raise ValueError(f"{self.name} has been given no lines; expected at least one")
        self._land()
        self._halting.clear()
        self._lines = deque(map(self._as_line, value))
        x, y = self._set_out(self._lines[0]).values()
        return x & y

    def kickoff(self) -> StatusBase:
        """Fly the prepared lines, or those that are left of them.

        Raises
        ------
        RuntimeError
            If the flyer is not staged, or no line is left.
        """
        if self._pilot is None or not self._lines:
            raise RuntimeError(f"{self.name} has no line to fly; stage it and prepare one")
        self._land()
        self._halting.clear()
        self._replayable, self._giving_up = False, False
        self._strays.update(taken.number for taken in self._attempt)
        self._attempt = []
        self._flown = Flight(self, len(self._lines))
        self._flight = self._pilot.submit(self._fly_lines, self._flown)
        begun = DeviceStatus(self)
        begun.set_finished()
        return begun

    def complete(self) -> StatusBase:
        """Done when the lines are flown and all their frames are in the file, or the flight was cut short.

        Raises
        ------
        RuntimeError
            If no flight has begun.
        """
        if self._flown is None:
            raise RuntimeError(f"{self.name} has not been kicked off")
        return self._flown

    def pause(self) -> None:
        """Give the line under way up.

        Raises
        ------
        NoReplayAllowed
            If the RunEngine must not go back, see the class.
        """
        self._halt()
        if not self._replayable:
            raise NoReplayAllowed

    def resume(self) -> None:
        """Nothing to do: the plan kicks off again."""

    def stop(self, *, success: bool = False) -> None:
        """As `pause`; without `success` the lines that are left will not be flown."""
        self._giving_up |= not success
        self._halt()

    def _halt(self) -> None:
        with self._helm:
            self._halting.set()
            self._ahead = None
            for axis in (self.stage_axes.x, self.stage_axes.y):
                try:
                    axis.stop(success=True)
                except Exception:  # the other one, the detector and the plan must hear of it, too
                    self.log.exception("%s could not be stopped", axis.name)

    def _land(self) -> None:
        """End a flight, if one is under way, with its frame."""
        if self._flight is not None and self._flying:
            self._halt()
            wait([self._flight])

    def _fly_lines(self, flown: Flight) -> None:
        """One flight (in the flyer's thread); whatever fails goes to the status, hence to the plan."""
        planned = len(self._lines)
        try:
            while self._lines:
                self._approach(self._lines[0])
                if self._halting.is_set():
                    break
                for taken in self._fly(self._lines[0]):
                    self._attempt.append(taken)
                if self._halting.is_set():
                    break
                self._keep_attempt()
                self._lines.popleft()
                flown.tell(planned - len(self._lines))
        except Exception as error:  # a thread has nobody else to tell
            if not self._halting.is_set():
                self._lines.clear()
                self.stop()
                flown.fail(error)
                return
        if self._halting.is_set():
            self._strays.update(taken.number for taken in self._attempt[-UNSURE:])
            del self._attempt[-UNSURE:]
        flown.set_finished()

    def _keep_attempt(self) -> None:
        self._whole.append((self._before, self._attempt))
        self._attempt = []

    def _approach(self, line: Line) -> None:
        """Move to where the run-up begins, and read everything meanwhile; for `_steps`, `_fly` waits."""
        heading = self._set_out(line)
        self._instruct(line)
        self._before = {key: value for device in self._devices for key, value in device.read().items()}
        self._ahead, self._steps = None, []
        speeds = dict(zip((self.stage_axes.x, self.stage_axes.y), line.velocity_m_s, strict=True))
        for axis, arrival in heading.items():
            if speeds[axis]:
                arrival.wait()
            else:
                self._steps.append(arrival)

    def _set_out(self, line: Line, passing: tuple[float, float] = (0.0, 0.0)) -> dict[Any, StatusBase]:
        """Send axes to where a line's run-up begins, unless they are on their way; none during a halt.

        Those that are `passing` at a speed other than 0 are not sent yet.
        """
        with self._helm:
            if self._halting.is_set():
                return {}
            if self._ahead is None or self._ahead[0] is not line:
                self._ahead = line, {}
            heading = self._ahead[1]
            axes = (self.stage_axes.x, self.stage_axes.y)
            for axis, target, speed in zip(axes, line.ends_m(self._ramp_s)[0], passing, strict=True):
                if not speed and axis not in heading:
                    heading[axis] = axis.set(target)
            return heading

    def _turn(self, passing: tuple[float, float] = (0.0, 0.0)) -> None:
        """Send axes ahead to the next line; for `_fly`, when they are at rest. See `_set_out`."""
        if len(self._lines) > 1:
            self._set_out(self._lines[1], passing)

    def _instruct(self, line: Line) -> None:
        """Tell whoever needs to know of a line, without waiting, while the stage moves there."""

    def _fly(self, line: Line) -> Iterator[Taken]:
        """Fly a line from where its run-up begins to rest; end with the frame under way when halting.

        No exposure begins before the axes that stand still on the line have arrived (`_steps`).

        Yields
        ------
        Taken
            Every frame that is in the detector's file.
        """
        raise NotImplementedError

    def _as_line(self, value: Mapping[str, Any]) -> Line:
        return Line(**value, readout_s=self.readout_s)

    def collect_asset_docs(self) -> Iterator[tuple[str, Document]]:
        """stream_resource and stream_datum of the frames that `collect_pages` yields next."""
        over = self._flown is None or self._flown.done
        if self._giving_up:
            self._land()
            if self._attempt:
                self._keep_attempt()
        if not self._whole:
            self._replayable = over and not self._lines
            return
        before, frames = self._whole[0]
        first = frames[0].number
        strays = sorted(number for number in list(self._strays) if number < first)
        self._strays.difference_update(strays)
        for number in strays:
            self.detector.announce(number)
        count = self.detector.announce(first, 1 if strays else len(frames))
        self._announced = before, frames[:count]
        if count < len(frames):
            self._whole[0] = before, frames[count:]
        else:
            self._whole.popleft()
        yield from self.detector.collect_asset_docs()

    def collect_pages(self) -> Iterator[dict[str, Any]]:
        """One page with an event for each frame announced."""
        (before, frames), self._announced = self._announced, ({}, [])
        if not frames:
            return
        data, timestamps = {}, {}
        for key, reading in before.items():
            measured = key in frames[0].values
            data[key] = [each.values[key] if measured else reading["value"] for each in frames]
            timestamps[key] = [each.time if measured else reading["timestamp"] for each in frames]
        yield {"time": [each.time for each in frames], "data": data, "timestamps": timestamps}

    def describe_collect(self) -> dict[str, Any]:
        """Data keys of an event; the frames are external."""
        return {key: info for device in self._devices for key, info in device.describe().items()}

    def read_configuration(self) -> dict[str, Any]:
        """That of all devices an event is made of."""
        return {key: info for device in self._devices for key, info in device.read_configuration().items()}

    def describe_configuration(self) -> dict[str, Any]:
        """See `read_configuration`."""
        return {
            key: info for device in self._devices for key, info in device.describe_configuration().items()
        }

    @property
    def hints(self) -> dict[str, Any]:
        """Those of all devices an event is made of."""
        return {"fields": [field for device in self._devices for field in device.hints.get("fields", [])]}
