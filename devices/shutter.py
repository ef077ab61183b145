"""What every shutter here does, whoever moves the blade: close whenever the scan is not running."""

from __future__ import annotations

from ophyd import Device
from ophyd.status import StatusBase


class Shutter(Device):
    """Fast shutter set to ``"open"`` or ``"closed"``; subclasses move the blade in `_move`.

    The RunEngine stops every device it has set when it pauses and when it ends, halted or not: that
    closes the shutter. Resuming opens it again if the plan had left it open.
    """

    _wanted = "closed"

    def set(self, state: str) -> StatusBase:
        """Open or close.

        Raises
        ------
        ValueError
            If the state is neither ``"open"`` nor ``"closed"``.
        """
        if state not in ("open", "closed"):
            raise ValueError(f"{self.name} cannot be set to {state!r}; expected 'open' or 'closed'")
        self._wanted = state
        return self._move(is_open=state == "open")

    def stop(self, *, success: bool = False) -> None:
        """Close; called by the RunEngine when it pauses or ends."""
        self._move(is_open=False)

    def resume(self) -> None:
        """Return to the state last set; called by the RunEngine when a plan goes on after a pause."""
        self._move(is_open=self._wanted == "open")

    def _move(self, *, is_open: bool) -> StatusBase:
        raise NotImplementedError
