"""Flyers: a stage moves along a line at constant speed while a detector takes one frame after the other.

`LineFlyer` holds what Bluesky asks of a flyer and which frames count; subclasses fly one line.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

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


class LineFlyer(Device):
    """Flies lines; one event of the frames' stream for every frame.

    Bluesky's order: `prepare` with a line, `kickoff`, `complete`, then `collect`, as often as `collections`
    says. The next line may be prepared before that: the stage sets out for it while documents are made. Of a
    flight that was interrupted nothing has been collected: when its line is prepared again, it takes new
    frames, and those of the first flight, which are in the detector's file, are announced together with the
    first of the second under one seq_num (see `ptychrome.devices.assets.FrameAssets`), in a collection of
    their own, since all frames that are announced in one must be equally many. For the same reason frames of
    two files are announced in two. When the run ends instead, what the flight has brought home is collected.

    Subclasses implement `_fly` and `_rest`, and `_instruct` where there is somebody to tell.

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
    detector, stage : device
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
        self._line: Line | None = None
        self._flown_line: Line | None = None
        self._ready: DeviceStatus | None = None
        self._pilot: ThreadPoolExecutor | None = None
        self._flight: Future | None = None
        self._flown: DeviceStatus | None = None
        self._halting = threading.Event()
        self._reading: Future | None = None
        self._before: Mapping[str, Mapping[str, Any]] = {}
        self._taken: list[Taken] = []
        self._strays: list[int] = []
        self._announced: list[Taken] = []

    @property
    def _devices(self) -> list[Any]:
        """All that an event is made of."""
        return [self.detector, *self.detector.companions.monitors, self.stage_axes, self._dcm]

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
        self._line, self._flown_line, self._ready, self._flight, self._flown = None, None, None, None, None
        self._taken, self._strays, self._announced = [], [], []
        return [*super().stage(), self.detector]

    def unstage(self) -> list[object]:
        """End a flight, then unstage the detector too."""
        self._land()
        if self._pilot is not None:
            self._pilot.shutdown()
        self._pilot, self._taken = None, []
        self.detector.unstage()
        return [*super().unstage(), self.detector]

    def collections(self, frames: int) -> int:
        """How often to collect after a line of so many frames, until nothing of it is left."""
        return 1 + self.detector.files_of(frames)

    def prepare(self, value: Mapping[str, Any]) -> StatusBase:
        """Move to where the line's run-up begins, as soon as the flight before allows.

        An axis that stood still on the line before moves at once, the other one when it has come to rest. For
        a line that is prepared already nothing is done.

        Parameters
        ----------
        value : mapping
            ``first_m``, ``last_m``, ``frames``, ``exposure_s``, see `Line`.

        Raises
        ------
        RuntimeError
            If the flyer is not staged.
        """
        if self._pilot is None:
            raise RuntimeError(f"{self.name} cannot prepare a line; stage it before")
        line = self._as_line(value)
        if self._ready is not None and line == self._line:
            return self._ready
        if self._flown is not None and not self._flown.done:
            self._land()
        if line == self._flown_line:
            self._strays += [taken.number for taken in self._taken]
            self._taken = []
        self._line = line
        self._halting.clear()
        speeds = (1.0, 1.0) if self._flown_line is None else self._flown_line.velocity_m_s
        statuses = []
        axes = (self.stage_axes.x, self.stage_axes.y)
        for axis, target, speed in zip(axes, line.ends_m(self._ramp_s)[0], speeds, strict=True):
            if speed:
                statuses.append(DeviceStatus(self))
                self._pilot.submit(self._move_once_at_rest, axis, target, statuses[-1])
            else:
                statuses.append(axis.set(target))
        self._instruct(line)
        self._reading = self._pilot.submit(self._read)
        self._ready = statuses[0] & statuses[1]
        return self._ready

    def _move_once_at_rest(self, axis: Any, target: float, arrived: DeviceStatus) -> None:
        """In the flyer's thread, hence when the flight before has ended; not if there is a halt."""

        def pass_on(move: StatusBase) -> None:
            error = move.exception()
            if error is None:
                arrived.set_finished()
            else:
                arrived.set_exception(error)

        try:
            if self._flight is not None:
                self._flight.result()
            if self._halting.is_set():
                arrived.set_finished()
            else:
                axis.set(target).add_callback(pass_on)
        except Exception as error:  # a thread has nobody else to tell
            arrived.set_exception(error)

    def _read(self) -> dict[str, Any]:
        """All that an event is made of, as it is before the line (in the flyer's thread)."""
        return {key: value for device in self._devices for key, value in device.read().items()}

    def kickoff(self) -> StatusBase:
        """Fly the prepared line.

        Raises
        ------
        RuntimeError
            If the flyer is not staged, or no line has been prepared.
        """
        if self._pilot is None or self._line is None:
            raise RuntimeError(f"{self.name} has no line to fly; stage it and prepare one")
        self._ready, self._flown_line = None, self._line
        self._flown = DeviceStatus(self)
        self._flight = self._pilot.submit(self._pilot_line, self._line, self._flown)
        begun = DeviceStatus(self)
        begun.set_finished()
        return begun

    def complete(self) -> StatusBase:
        """Done when the line is flown and all its frames are in the file.

        Raises
        ------
        RuntimeError
            If no flight has begun.
        """
        if self._flown is None:
            raise RuntimeError(f"{self.name} has not been kicked off")
        return self._flown

    def pause(self) -> None:
        """Give a flight up; the plan will repeat it, or end."""
        self._halting.set()
        self._ready = None
        for axis in (self.stage_axes.x, self.stage_axes.y):
            axis.stop(success=True)

    def resume(self) -> None:
        """Nothing to do: the plan prepares the line again."""

    def stop(self, *, success: bool = False) -> None:
        """As `pause`."""
        self.pause()

    def _pilot_line(self, line: Line, flown: DeviceStatus) -> None:
        """One flight (in the flyer's thread); whatever fails goes to the status, hence to the plan.

        What fails while the stage comes to rest goes to whoever prepares the next line.
        """
        try:
            assert self._reading is not None
            self._before = self._reading.result()
            for taken in self._fly(line):
                self._taken.append(taken)
        except Exception as error:  # a thread has nobody else to tell
            if not self._halting.is_set():
                flown.set_exception(error)
                return
        if self._halting.is_set():
            self._strays += [taken.number for taken in self._taken[-UNSURE:]]
            del self._taken[-UNSURE:]
        flown.set_finished()  # documents do not wait for the stage to come to rest
        self._rest(line)

    def _instruct(self, line: Line) -> None:
        """Tell whoever needs to know of a line, without waiting, while the stage moves there."""

    def _fly(self, line: Line) -> Iterator[Taken]:
        """Fly a line from where its run-up begins; end with the frame under way when `_halting` is set.

        Yields
        ------
        Taken
            Every frame that is in the detector's file.
        """
        raise NotImplementedError

    def _rest(self, line: Line) -> None:
        """Wait until the stage is at rest behind the line."""
        raise NotImplementedError

    def _land(self) -> None:
        """End a flight, if one is under way, with its frame."""
        self._halting.set()
        if self._flight is not None:
            wait([self._flight])

    def _as_line(self, value: Mapping[str, Any]) -> Line:
        return Line(**value, readout_s=self.readout_s)

    def collect_asset_docs(self) -> Iterator[tuple[str, Document]]:
        """stream_resource and stream_datum of the frames that `collect_pages` yields next."""
        if self._flown is None or not self._flown.done:
            self._land()
        if not self._taken:
            return
        first = self._taken[0].number
        earlier = sorted(number for number in self._strays if number < first)
        for number in earlier:
            self.detector.announce(number)
        self._strays = [number for number in self._strays if number > first]
        count = self.detector.announce(first, 1 if earlier else len(self._taken))
        self._announced, self._taken = self._taken[:count], self._taken[count:]
        yield from self.detector.collect_asset_docs()

    def collect_pages(self) -> Iterator[dict[str, Any]]:
        """One page with an event for each frame announced."""
        frames, self._announced = self._announced, []
        if not frames:
            return
        rows = [
            {key: frame.values.get(key, reading["value"]) for key, reading in self._before.items()}
            for frame in frames
        ]
        times = [
            {
                key: frame.time if key in frame.values else reading["timestamp"]
                for key, reading in self._before.items()
            }
            for frame in frames
        ]
        yield {
            "time": [frame.time for frame in frames],
            "data": {key: [row[key] for row in rows] for key in self._before},
            "timestamps": {key: [row[key] for row in times] for key in self._before},
        }

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
