"""Simulated axes as a motor controller moves them, behind motor records and behind plain records."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from caproto import SkipWrite

from ptychrome.devices.ioc.channels import Database, choice, count, label, number

PER_METRE = 1e6  # micrometres
TICK_S = 0.1  # between two readbacks of a moving motor record


@dataclass(frozen=True)
class AxisModel:
    """What an axis is like.

    Attributes
    ----------
    units : str
    velocity : float
        Units per second.
    settle_s : float
    start : float
        Where it stands at first.
    limits : (float, float)
        Soft limits; equal ones do not limit.
    precision : int
        Digits behind the point.
    """

    units: str
    velocity: float
    settle_s: float = 0.0
    start: float = 0.0
    limits: tuple[float, float] = (0.0, 0.0)
    precision: int = 6

    def limit_metadata(self) -> dict[str, Any]:
        """The soft limits as a channel has them."""
        return {"lower_ctrl_limit": self.limits[0], "upper_ctrl_limit": self.limits[1]}


class Fault(StrEnum):
    """What can go wrong with one motion, half-way."""

    NONE = ""
    STALL = "stall"
    LIMIT = "limit"


class Axis:
    """Motion itself: ``|distance| / velocity + settle_s`` by the clock.

    Parameters
    ----------
    model : AxisModel
    wall_s : callable
        Seconds to wait for something that physically takes so many.

    Attributes
    ----------
    position : float
    speed : float
        Units per second at which it passes by in a flight.
    next_fault : Fault
        What happens to the next motion.
    listeners : list of coroutine functions
        Called with each new position.
    """

    def __init__(self, model: AxisModel, wall_s: Callable[[float], float]) -> None:
        self.model = model
        self.position = model.start
        self.speed = 0.0
        self._told = 0.0  # when the listeners heard of it last
        self.next_fault = Fault.NONE
        self.listeners: list[Callable[[float], Awaitable[None]]] = []
        self._wall_s = wall_s
        self._halt = asyncio.Event()
        self._busy = asyncio.Lock()

    def halt(self) -> None:
        """Stop where it is."""
        self._halt.set()

    def supersede(self) -> asyncio.Event:
        """End the motion under way; returns what `move` needs for the next one."""
        self.halt()
        self._halt = asyncio.Event()
        return self._halt

    async def move(self, target: float, halt: asyncio.Event) -> Fault:
        """Move, once the motion before has ended; returns what went wrong, mostly nothing.

        Parameters
        ----------
        target : float
        halt : Event
            From `supersede`; ends the motion when it is set.
        """
        async with self._busy:
            fault, self.next_fault = self.next_fault, Fault.NONE
            start, distance = self.position, target - self.position
            if fault:
                distance /= 2
            stands = math.isclose(target, start)  # sums round
            seconds = 0.0 if stands else abs(distance) / self.model.velocity + self.model.settle_s
            duration = self._wall_s(seconds)
            began = time.monotonic()
            while (left := began + duration - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(halt.wait(), min(left, TICK_S))
                done = (time.monotonic() - began) / duration
                if halt.is_set() or done < 1:
                    await self._arrive(start + min(done, 1.0) * distance)
                if halt.is_set():
                    return fault
            if not halt.is_set():
                await self._arrive(start + distance if fault else target)
            return fault

    async def come_to_rest(self) -> None:
        """Wait until the motion under way, if any, has ended."""
        async with self._busy:
            pass

    async def pass_by(self, position: float, speed: float) -> None:
        """Be at a position in the course of a flight, whose pace is that of who flies it.

        Readbacks follow at their own pace, and when it rests.
        """
        self.position, self.speed = position, speed
        if not speed or time.monotonic() - self._told > TICK_S:
            await self._arrive(position)

    async def _arrive(self, position: float) -> None:
        self.position, self._told = position, time.monotonic()
        for listener in self.listeners:
            await listener(position)


class Micrometres:
    """An axis in m as a controller that counts in µm has it; for records of its own.

    Parameters
    ----------
    axis : Axis
    """

    def __init__(self, axis: Axis) -> None:
        self._axis = axis
        model = axis.model
        low_m, high_m = model.limits
        self.model = replace(
            model,
            units="um",
            velocity=model.velocity * PER_METRE,
            start=model.start * PER_METRE,
            limits=(low_m * PER_METRE, high_m * PER_METRE),
            precision=model.precision - 6,
        )
        self.listeners: list[Callable[[float], Awaitable[None]]] = []
        self.halt, self.supersede = axis.halt, axis.supersede
        axis.listeners.append(self._arrive)

    @property
    def position(self) -> float:
        """µm."""
        return self._axis.position * PER_METRE

    async def move(self, target: float, halt: asyncio.Event) -> Fault:
        """As of the axis, µm."""
        return await self._axis.move(target / PER_METRE, halt)

    async def _arrive(self, position_m: float) -> None:
        for listener in self.listeners:
            await listener(position_m * PER_METRE)


def add_motor_record(database: Database, name: str, axis: Axis | Micrometres) -> None:
    """Serve an axis as a motor record, with the fields that ophyd's EpicsMotor looks at."""
    model = axis.model
    digits: dict[str, Any] = {"units": model.units, "precision": model.precision}
    value = number(model.start, **digits, **model.limit_metadata())
    readback = number(model.start, **digits)
    done, moving = count(1), count(0)
    low, high = count(0), count(0)
    towards_high, missed = count(1), count(0)
    stop = count(0)

    latest = 0

    async def run(target: float, halt: asyncio.Event, number: int) -> None:
        for switch in (low, high, missed):
            if switch.value:
                await switch.post(0)
        await towards_high.post(int(target >= axis.position))
        await moving.post(1)
        await done.post(0)
        fault = await axis.move(target, halt)
        if number != latest:
            return  # a newer target: still moving
        if fault is Fault.LIMIT:
            await (high if towards_high.value else low).post(1)
        elif fault is Fault.STALL:
            await missed.post(1)
        await moving.post(0)
        await done.post(1)

    tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly

    async def put(target: float) -> None:
        lowest, highest = model.limits
        if not math.isfinite(target) or (lowest < highest and not lowest <= target <= highest):
            raise SkipWrite
        nonlocal latest
        latest += 1
        task = asyncio.get_running_loop().create_task(run(target, axis.supersede(), latest))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def put_stop(requested: int) -> None:
        axis.halt()
        raise SkipWrite

    axis.listeners.append(readback.post)
    value.on_put, stop.on_put = put, put_stop
    database[name] = database[f"{name}.VAL"] = value
    fields = {
        "RBV": readback,
        "DMOV": done,
        "MOVN": moving,
        "LLS": low,
        "HLS": high,
        "TDIR": towards_high,
        "MISS": missed,
        "STOP": stop,
        "EGU": label(model.units),
        "VELO": number(model.velocity, **digits),
        "ACCL": number(0.1),
        "LLM": number(model.limits[0], **digits),
        "HLM": number(model.limits[1], **digits),
        "OFF": number(0.0, **digits),
        "DIR": choice("Pos|Neg"),
        "FOFF": choice("Variable|Frozen"),
        "SET": choice("Use|Set"),
        "HOMF": count(0),
        "HOMR": count(0),
        "PREC": count(model.precision),
        "RTYP": label("motor"),
    }
    database.update({f"{name}.{field}": channel for field, channel in fields.items()})


def add_piezo_records(database: Database, name: str, axis: Axis | Micrometres) -> None:
    """Serve an axis as a set-point record, whose put completes when it has settled, and its ``_RBV``."""
    model = axis.model
    digits: dict[str, Any] = {"units": model.units, "precision": model.precision}
    setpoint = number(model.start, **digits, **model.limit_metadata())
    readback = number(model.start, **digits)
    readback.read_only = True

    async def put(target: float) -> None:
        await axis.move(target, axis.supersede())

    axis.listeners.append(readback.post)
    setpoint.on_put = put
    database[name], database[f"{name}_RBV"] = setpoint, readback
