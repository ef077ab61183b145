"""Axes that arrive where they are sent, or say why not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from ophyd import DeviceStatus
from ophyd.positioner import PositionerBase
from ophyd.status import StatusBase
from ophyd.utils import DisconnectedError, StatusTimeoutError


class MotionError(RuntimeError):
    """An axis that does not stand where it should; the message names axis, target and position."""


class CheckedMove(DeviceStatus):
    """Done with a move, if nothing is wrong then; failed with a `MotionError` otherwise.

    Parameters
    ----------
    move : status
        Of the motion itself.
    complaint : callable
        ``complaint(error)`` says what is wrong, or None; `error` is the exception of the move, if any.
    """

    def __init__(self, device: Any, move: StatusBase, complaint: Callable[[Exception | None], str | None]):
        super().__init__(device)
        self.excused = False  # stopped on purpose: wherever the axis stands is right
        self._complaint = complaint
        if hasattr(move, "watch"):
            self.watch = move.watch  # for progress bars
        move.add_callback(self._moved)

    def _moved(self, move: StatusBase) -> None:
        error = move.exception()
        try:
            wrong = None if self.excused else self._complaint(error)
        except Exception as problem:  # a record that is off-line; whoever waits must not wait on
            wrong = f"{self.device.name}: whether it has arrived cannot be told: {problem}"
        if wrong is None:
            self.set_finished()
        else:
            self.set_exception(MotionError(wrong))


class Arriving:
    """Mix-in for positioners: `set` fails with a clear message unless the axis arrives.

    Attributes
    ----------
    tolerance : float
        How far from its target an axis may stand when it is done, in its own units.
    """

    tolerance = math.inf
    _move: CheckedMove | None = None

    def set(self, position: Any, **kwargs: Any) -> CheckedMove:
        """Move; the status fails with a `MotionError` that says what is wrong."""
        move = super().set(position, **kwargs)  # type: ignore[misc]
        self._move = CheckedMove(self, move, lambda error: self.complaint(position, error))
        return self._move

    def stop(self, *, success: bool = False) -> None:
        """Stop where it is; with ``success=True`` (a pause) the motion counts as done."""
        if self._move is not None:
            self._move.excused = success
        with contextlib.suppress(DisconnectedError):  # nobody there to be stopped
            super().stop(success=success)  # type: ignore[misc]
        PositionerBase.stop(self, success=success)  # ophyd's own leaves whoever waits waiting

    def complaint(self, target: Any, error: Exception | None = None) -> str | None:
        """What is wrong with an axis that is done moving to `target`; None: nothing."""
        name, position = self.name, self.position  # type: ignore[attr-defined]
        if isinstance(error, StatusTimeoutError):
            limit_s = self.timeout  # type: ignore[attr-defined]
            return (
                f"{name} did not arrive at {target:.9g} in time ({limit_s:g} s); it stands at {position:.9g}"
            )
        if not abs(position - target) <= self.tolerance:
            return (
                f"{name} stopped at {position:.9g} on its way to {target:.9g} "
                f"(tolerance {self.tolerance:g}): a stalled motor, an interlock, or somebody stopped it"
            )
        return f"{name} failed on its way to {target:.9g}: {error}" if error else None
