"""Axes that arrive where they are sent, or say why not."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

from ophyd import DeviceStatus
from ophyd.positioner import PositionerBase
from ophyd.status import StatusBase
from ophyd.utils import DisconnectedError, StatusTimeoutError

from ptychrome.devices.alarms import Alarms

ALARMS = Alarms()


class MotionError(RuntimeError):
    """An axis that does not stand where it should; the message names axis, target and position."""


class Heading:
    """Mix-in for positioners that know where they are heading: to be sent there again costs nothing.

    An axis that has set out for its next target (`depart`) goes on when it is `set` to that target; when it
    was sent there before and `stands_at` it, there is nothing to do.
    """

    _target: Any = None
    _heading: StatusBase | None = None
    _unheard = False  # whether nobody waits for the motion yet

    def set(self, position: Any, **kwargs: Any) -> StatusBase:
        """Move, unless it is on its way there or stands there."""
        move = self._heading
        if move is None or position != self._target or kwargs or not self._goes_on(move):
            move = self._start(position, **kwargs)
            self._target, self._heading = position, move
        self._unheard = False
        return move

    def depart(self, position: Any) -> None:
        """Set out; how it ends is heard of by whoever sets the axis to that position next."""
        self.set(position)
        self._unheard = True

    def stands_at(self, position: Any) -> bool:
        """Whether an axis that has arrived there needs no motion to be there; where in doubt it moves."""
        return False

    def stop(self, *, success: bool = False) -> None:
        """Stop where it is."""
        if self._heading is not None and (self._heading.success or not self._heading.done):
            self._heading = None  # one that has failed is heard of yet: ophyd stops its axis, too
        super().stop(success=success)  # type: ignore[misc]

    def _goes_on(self, move: StatusBase) -> bool:
        return self._unheard or not move.done or (move.success and self.stands_at(self._target))

    def _start(self, position: Any, **kwargs: Any) -> StatusBase:
        return super().set(position, **kwargs)  # type: ignore[misc]

    def _run_subs(self, *args: Any, sub_type: str, **kwargs: Any) -> None:
        if sub_type != PositionerBase._SUB_REQ_DONE:
            super()._run_subs(*args, sub_type=sub_type, **kwargs)  # type: ignore[misc]
            return
        waiting, known = self._callbacks[sub_type], self._cid_to_event_mapping  # type: ignore[attr-defined]
        for number in list(waiting):
            if tell := waiting.pop(number, None):  # else another thread tells it
                known.pop(number, None)
                self._unwrapped_callbacks[sub_type].pop(number, None)  # type: ignore[attr-defined]
                tell(*args, sub_type=sub_type, obj=self, **kwargs)

    def _reset_sub(self, event_type: str) -> None:
        # ophyd forgets whoever waits for a motion when it has told them, and with them whoever has begun the
        # next motion since, who would wait on; here each is forgotten as it is told
        if event_type != PositionerBase._SUB_REQ_DONE:
            super()._reset_sub(event_type)  # type: ignore[misc]


class RasterStage:
    """Mix-in for a stage whose axes ``x`` and ``y`` know where they are heading."""

    x: Heading
    y: Heading

    def prepare(self, value: tuple[float, float]) -> DeviceStatus:
        """Set out for a position (x, y), m, while whoever is going to set it has something else to do.

        What is wrong with it, or with the motion, is for the `set` of each axis to tell.
        """
        for axis, target in zip((self.x, self.y), value, strict=True):
            with contextlib.suppress(Exception):
                axis.depart(target)
        status = DeviceStatus(self)
        status.set_finished()
        return status


class CheckedMove(DeviceStatus):
    """Done with a move, if nothing is wrong then; failed with a `MotionError` otherwise.

    Parameters
    ----------
    move : status
        Of the motion itself.
    complaint : callable
        ``complaint(error)`` says what is wrong, or None; `error` is the exception of the move, if any.
    limit_s : float or None
        How long the motion may take. (A timeout of ophyd's status is a thread for each.)
    """

    def __init__(
        self,
        device: Any,
        move: StatusBase,
        complaint: Callable[[Exception | None], str | None],
        limit_s: float | None,
    ):
        super().__init__(device)
        self.excused = False  # stopped on purpose: wherever the axis stands is right
        self.stopped = False  # and not on purpose: its records may say that it is done all the same
        self._complaint = complaint
        self._once = threading.Lock()
        if hasattr(move, "watch"):
            self.watch = move.watch  # for progress bars
        late = None if limit_s is None else ALARMS.call_later(limit_s, self._expire)

        def end(move: StatusBase) -> None:
            if late is not None:
                late.cancel()
            self._end(move.exception())

        move.add_callback(end)

    def _expire(self) -> None:
        self._end(StatusTimeoutError())

    def _end(self, error: Exception | None) -> None:
        if not self._once.acquire(blocking=False):
            return  # that it was late has been said
        if error is None and self.stopped:
            error = RuntimeError("it was stopped")
        try:
            wrong = None if self.excused else self._complaint(error)
        except Exception as problem:  # a record that is off-line; whoever waits must not wait on
            wrong = f"{self.device.name}: whether it has arrived cannot be told: {problem}"
        if wrong is None:
            self.set_finished()
        else:
            self.set_exception(MotionError(wrong))


class Arriving(Heading):
    """Mix-in for positioners: `set` fails with a clear message unless the axis arrives.

    Attributes
    ----------
    tolerance : float
        How far from its target an axis may stand when it is done, in its own units.
    timeout : float or None
        How long a motion may take, s, beside the axis's ``settle_time``.
    """

    tolerance = math.inf
    timeout: float | None = None  # in place of ophyd's, which it hands to its own statuses
    _heading: CheckedMove | None

    def _start(self, position: Any, *, timeout: float | None = None, **kwargs: Any) -> CheckedMove:
        move = super()._start(position, **kwargs)
        limit_s = self.timeout if timeout is None else timeout
        if limit_s is not None:
            limit_s += self.settle_time  # type: ignore[attr-defined]
        return CheckedMove(self, move, lambda error: self.complaint(position, error), limit_s)

    def stop(self, *, success: bool = False) -> None:
        """Stop where it is; with ``success=True`` (a pause) the motion counts as done."""
        if self._heading is not None:
            self._heading.excused, self._heading.stopped = success, not success
        with contextlib.suppress(DisconnectedError):  # nobody there to be stopped
            super().stop(success=success)
        PositionerBase.stop(self, success=success)  # ophyd's own leaves whoever waits waiting

    def complaint(self, target: Any, error: Exception | None = None) -> str | None:
        """What is wrong with an axis that is done moving to `target`; None: nothing."""
        name, position = self.name, self.position  # type: ignore[attr-defined]
        if isinstance(error, StatusTimeoutError):
            return (
                f"{name} did not arrive at {target:.9g} in time ({self.timeout:g} s); "
                f"it stands at {position:.9g}"
            )
        if not abs(position - target) <= self.tolerance:
            return (
                f"{name} stopped at {position:.9g} on its way to {target:.9g} "
                f"(tolerance {self.tolerance:g}): a stalled motor, an interlock, or somebody stopped it"
            )
        return f"{name} failed on its way to {target:.9g}: {error}" if error else None
