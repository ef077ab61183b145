"""Signals in metres of records that are in other units of length."""

from __future__ import annotations

import math
from typing import Any

from ophyd import EpicsSignal, EpicsSignalRO

PER_METRE = {"m": 1.0, "mm": 1e3, "um": 1e6, "nm": 1e9}
_METRE = ("meter", "metre", "meters", "metres")
# what may stand in EGU
SPELLINGS = {
    "m": {"m", *_METRE},
    "mm": {"mm", *(f"milli{metre}" for metre in _METRE)},
    "um": {"um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "micron", "microns"}
    | {f"micro{metre}" for metre in _METRE},
    "nm": {"nm", *(f"nano{metre}" for metre in _METRE)},
}


class _Metres:
    """Mix-in for signals of an axis with an attribute ``units``, those of its records."""

    parent: Any
    name: str
    pvname: str
    _metadata: dict[str, Any]

    @property
    def per_metre(self) -> float:
        """The record's units in a metre."""
        return PER_METRE[self.parent.units]

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Control limits, m."""
        lower, upper = (
            None if limit is None else limit / self.per_metre
            for limit in super().limits  # type: ignore[misc]
        )
        return lower, upper

    @property
    def precision(self) -> int | None:
        """Decimals of a value in m that the record shows."""
        digits = super().precision  # type: ignore[misc]
        return None if digits is None else int(digits + round(math.log10(self.per_metre)))

    def check_units(self) -> None:
        """Refuse a record whose units are not those of the settings.

        Raises
        ------
        ValueError
            If its field EGU names other ones; an empty one is taken for right.
        """
        found, units = self._metadata["units"], self.parent.units
        if found and found.strip().lower() not in SPELLINGS[units]:
            raise ValueError(
                f"{self.name}: the record {self.pvname} is in {found!r}, the settings say units = {units!r}; "
                "correct units of the stage, or the record's EGU"
            )

    def describe(self) -> dict[str, Any]:
        """As usual, in m."""
        described = super().describe()  # type: ignore[misc]
        described[self.name]["units"] = "m"
        return described

    def _get_with_timeout(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        info = super()._get_with_timeout(*args, **kwargs)  # type: ignore[misc]
        return {**info, "value": info["value"] / self.per_metre}

    def _read_changed(self, value: float, **kwargs: Any) -> None:
        super()._read_changed(value=value / self.per_metre, **kwargs)  # type: ignore[misc]


class MetresRO(_Metres, EpicsSignalRO):
    """A record to read."""


class Metres(_Metres, EpicsSignal):
    """A record to read and to set."""

    def check_value(self, value: float) -> None:
        """Refuse what is beyond the record's limits, and records in other units."""
        self.check_units()
        super().check_value(value)

    def put(self, value: float, force: bool = False, **kwargs: Any) -> None:
        """Write a value in m."""
        if not force:
            self.check_value(value)
        super().put(value * self.per_metre, force=True, **kwargs)
