"""The detector's own stream, which ADEiger leaves to others while its ``DataSource`` is ``None``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptychrome.devices.ioc.channels import Database, choice, count, setting
from ptychrome.devices.simplon_simulator import SimplonSimulator, SimulatedSeries

Sent = TypeVar("Sent")
DISABLE_ENABLE = "Disable|Enable"


class StreamRecords:
    """The stream's part of the driver's records.

    Parameters
    ----------
    database : dict
        Takes the records.
    prefix : str
        Of the driver.
    simulator : SimplonSimulator or None
        Sends what is streamed; None: nothing is.
    """

    def __init__(self, database: Database, prefix: str, simulator: SimplonSimulator | None) -> None:
        self._simulator = simulator
        self._series: SimulatedSeries | None = None
        self._enabled = setting(database, f"{prefix}StreamEnable", lambda: choice(DISABLE_ENABLE, 1))
        setting(database, f"{prefix}StreamHdrDetail", lambda: choice("None|Basic|All"))
        self._dropped = database[f"{prefix}StreamDropped_RBV"] = count(0)

    async def arm(self, series: int, mask: NDArray[np.uint32], fields: Mapping[str, Any]) -> None:
        """Begin a series."""
        simulator = self._simulator
        if simulator is not None and self._enabled.value == "Enable":
            self._series = await self._try(lambda: simulator.arm(mask, fields, series))

    async def send(self, frame: NDArray[np.unsignedinteger]) -> None:
        """Send a frame, if a series has begun."""
        if (series := self._series) is not None:
            await self._try(lambda: series.append(frame))

    def lose(self) -> None:
        """Send a frame that does not arrive."""
        if self._series is not None:
            self._series.skip()

    async def disarm(self) -> None:
        """End the series."""
        series, self._series = self._series, None
        if series is not None:
            await self._try(series.close)

    async def _try(self, send: Callable[[], Sent]) -> Sent | None:
        """Off the loop, which answers clients meanwhile; None if nobody receives."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, send)
        except OSError:
            await self._dropped.post(self._dropped.value + 1)
            return None
