"""Channels of a caproto server: what a client writes goes to a coroutine, what the IOC posts does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from caproto import (
    ChannelChar,
    ChannelData,
    ChannelDouble,
    ChannelEnum,
    ChannelInteger,
    ChannelString,
    ChannelType,
    SkipWrite,
)

Put = Callable[[Any], Awaitable[None]]
Database = dict[str, ChannelData]
TEXT_LENGTH = 256
MAX_SERIES = 10_000


class _Channel:
    """Mix-in for channels.

    Attributes
    ----------
    on_put : coroutine function or None
        Called with what a client writes, before it becomes the value; a put with completion completes when
        it returns.
    read_only : bool
    """

    on_put: Put | None = None
    read_only = False

    async def verify_value(self, data: Any) -> Any:
        """Hand over what a client writes."""
        data = await super().verify_value(data)  # type: ignore[misc]
        if self.read_only:
            raise SkipWrite
        if self.on_put is not None:
            await self.on_put(data)
        return data

    async def post(self, value: Any) -> None:
        """Set the value from within the IOC."""
        await self.write(value, verify_value=False)  # type: ignore[attr-defined]


class Number(_Channel, ChannelDouble):
    """A floating-point record."""


class Series(_Channel, ChannelDouble):
    """A waveform record of floating-point numbers."""


class Count(_Channel, ChannelInteger):
    """A long-integer record."""


class Choice(_Channel, ChannelEnum):
    """A record with named states; its value is the name."""


class Text(_Channel, ChannelChar):
    """A character waveform, as areaDetector uses for paths and names."""

    async def write_from_dbr(self, data: Any, data_type: Any, metadata: Any, *, flags: int = 0) -> None:
        """Take what comes from the network; caproto itself stumbles over an empty text."""
        if data_type == ChannelType.CHAR and not bytes(data).strip(b"\0"):
            await self.write("", flags=flags)
        else:
            await super().write_from_dbr(data, data_type, metadata, flags=flags)


class Label(_Channel, ChannelString):
    """A string record of at most 39 characters."""


def number(value: float = 0.0, *, units: str = "", precision: int = 6, **limits: float) -> Number:
    """A `Number`; limits as ``lower_ctrl_limit`` and ``upper_ctrl_limit``."""
    return Number(value=value, units=units, precision=precision, **limits)


def series() -> Series:
    """A `Series` that is empty at first and that clients cannot write."""
    made = Series(value=[], max_length=MAX_SERIES)
    made.read_only = True
    return made


def count(value: int = 0) -> Count:
    """A `Count`."""
    return Count(value=value)


def choice(states: str, value: int = 0) -> Choice:
    """A `Choice` among states separated by bars, such as ``"No|Yes"``."""
    names = states.split("|")
    return Choice(value=names[value], enum_strings=names)


def label(value: str = "") -> Label:
    """A `Label`."""
    return Label(value=value)


def text(value: str = "") -> Text:
    """A `Text`."""
    return Text(value=value, max_length=TEXT_LENGTH)


def setting(database: Database, name: str, make: Callable[[], Any], on_put: Put | None = None) -> Any:
    """A setting as areaDetector has them: record and ``_RBV``, which repeats what was written.

    Parameters
    ----------
    database : dict
        Takes both.
    name : str
        Of the record.
    make : callable
        Makes one channel.
    on_put : coroutine function, optional
        What else a client's put does.

    Returns
    -------
    channel
        The readback, whose value is the setting.
    """
    record, readback = make(), make()
    readback.read_only = True

    async def take(value: Any) -> None:
        if on_put is not None:
            await on_put(value)
        await readback.post(value)

    record.on_put = take
    database[name], database[f"{name}_RBV"] = record, readback
    return readback
