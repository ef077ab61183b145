"""Soft signals that know their unit."""

from __future__ import annotations

from typing import Any

from ophyd import Signal
from ophyd.status import Status


class Quantity(Signal):
    """A soft signal whose description carries the unit of its value."""

    def __init__(self, *, units: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def describe(self) -> dict[str, Any]:
        """Data key of the signal, with its unit."""
        description = super().describe()
        description[self.name]["units"] = self.units
        return description

    def set(self, value: Any, **kwargs: Any) -> Status:
        """Put the value and be done.

        ophyd's own waits in a thread for the value to arrive and refuses a second call meanwhile, which a
        RunEngine that resumes after a pause makes.
        """
        self.put(value)
        status = Status(self)
        status.set_finished()
        return status
