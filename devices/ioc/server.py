"""The IOC: a twin behind records, faults on request, and the Channel Access server of it all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import caproto
from caproto.asyncio.server import Context, VirtualCircuit
from caproto.server.common import DisconnectedCircuit

from ptychrome.devices.bragg import bragg_angle_deg, bragg_energy_eV, fixed_exit_gap_mm
from ptychrome.devices.clock import Clock
from ptychrome.devices.ioc.axes import (
    Axis,
    AxisModel,
    Fault,
    Micrometres,
    add_motor_record,
    add_piezo_records,
)
from ptychrome.devices.ioc.channels import Database, choice, count, label, number
from ptychrome.devices.ioc.detector import EigerRecords, Exposure
from ptychrome.devices.ioc.flight import FlightRecords
from ptychrome.devices.simplon_simulator import SimplonSimulator

HOST = "127.0.0.1"
HOME_DEG = bragg_angle_deg(5420.0)
BRAGG = AxisModel("deg", velocity=0.05, settle_s=0.5, start=HOME_DEG, limits=(3.0, 60.0), precision=7)
STAGE = AxisModel("m", velocity=20e-6, settle_s=0.005, limits=(-50e-6, 50e-6), precision=10)
MIRROR_PITCH = AxisModel("mrad", velocity=0.1, start=4.0)
MIRROR_BEND = AxisModel("N", velocity=1.0, start=20.0)
MIRROR_STRIPE = AxisModel("mm", velocity=1.0)
MOTORS = {
    "DCM:Bragg": BRAGG,
    "DCM:Gap": AxisModel("mm", velocity=0.1, start=fixed_exit_gap_mm(HOME_DEG, 20.0), limits=(5.0, 30.0)),
    "DCM:Pitch": AxisModel("urad", velocity=10.0),
    **{f"KB:{mirror}:Pitch": MIRROR_PITCH for mirror in "VH"},
    **{f"KB:{mirror}:Bend": MIRROR_BEND for mirror in "VH"},
    **{f"KB:{mirror}:Stripe": MIRROR_STRIPE for mirror in "VH"},
}


class SimulatedIOC:
    """All records of a simulated beamline.

    Records below the prefix: motor records ``DCM:Bragg``, ``DCM:Gap``, ``DCM:Pitch``, ``KB:V:Pitch`` and so
    on; the stage twice, as ``Piezo:X``, ``Piezo:Y`` with ``_RBV`` and as motor records ``Stage:X``,
    ``Stage:Y``, and both in µm as ``PiezoUm:X`` and ``StageUm:X``; ``I0``, ``Ring:Current``,
    ``FrontEnd:Open``, ``Shutter``; the detector below ``Eiger:``; a controller that flies
    lines below ``Fly:``.
    On request, below ``Sim:``: ``Sample`` mounts another sample; ``Dump`` loses the beam; ``CloseFrontEnd``
    shuts it off; ``Stall`` and ``Limit`` take the name of an axis whose next motion fails half-way;
    ``DropFrames`` loses as many frames; ``DelayFrame`` holds the next one up for so many seconds; ``Hang``
    makes the detector deaf; ``Restart`` has it count its series anew; ``Clock`` is the pace (0: nothing takes
    time); ``Offline`` takes the beginning of names below the prefix: such records disconnect until it is set
    to something else.

    Parameters
    ----------
    make_twin : callable
        ``make_twin(sample)`` returns a `ptychrome.devices.twin.TwinBeamline`.
    sample : str
    prefix : str
    clock : Clock
    stream : SimplonSimulator, optional
        The detector's stream.
    """

    def __init__(
        self,
        make_twin: Callable[[str], Any],
        sample: str,
        prefix: str,
        clock: Clock,
        stream: SimplonSimulator | None = None,
    ) -> None:
        self.database: Database = {}
        self.offline = ""
        self.on_offline: Callable[[], Any] | None = None
        self._prefix = prefix
        self._clock = clock
        self._stream = stream
        self._make_twin = make_twin
        self._twin = make_twin(sample)
        self._thread = ThreadPoolExecutor(1)  # the physics; the loop answers clients meanwhile
        self.axes = {name: Axis(model, self.wall_s) for name, model in MOTORS.items()}
        self.axes |= {f"Stage:{name}": Axis(STAGE, self.wall_s) for name in "XY"}
        for name, axis in self.axes.items():
            add_motor_record(self.database, prefix + name, axis)
        for name in "XY":
            axis = self.axes[f"Stage:{name}"]
            micrometres = Micrometres(axis)
            add_piezo_records(self.database, f"{prefix}Piezo:{name}", axis)
            add_piezo_records(self.database, f"{prefix}PiezoUm:{name}", micrometres)
            add_motor_record(self.database, f"{prefix}StageUm:{name}", micrometres)
        self._i0 = self._add("I0", number(0.0, units="counts", precision=1))
        self._ring = self._add("Ring:Current", number(100.0, units="mA", precision=3))
        self._front_end = self._add("FrontEnd:Open", count(1))
        self._shutter = self._add("Shutter", count(0))
        self._eiger = EigerRecords(
            self.database, f"{prefix}Eiger:", self._twin.detector, self._expose, self.wall_s, stream
        )
        self._flight = FlightRecords(
            self.database,
            f"{prefix}Fly:",
            (self.axes["Stage:X"], self.axes["Stage:Y"]),
            self._eiger,
            {"I0": self._i0, "Ring": self._ring},
            self.wall_s,
        )
        self._add_requests(sample)

    def wall_s(self, seconds: float) -> float:
        """Seconds to wait for something that physically takes `seconds`."""
        return self._clock.wall_s(seconds)

    def close(self) -> None:
        """Close the detector's file and stream."""
        self._eiger.close()
        if self._stream is not None:
            self._stream.close()
        self._thread.shutdown(wait=False)

    def _add(self, name: str, channel: Any, on_put: Any = None) -> Any:
        channel.on_put = on_put
        self.database[self._prefix + name] = channel
        return channel

    def _add_requests(self, sample: str) -> None:
        async def mount(name: str) -> None:
            loop = asyncio.get_running_loop()
            self._twin = await loop.run_in_executor(self._thread, self._make_twin, name)

        async def dump(state: str) -> None:
            await self._ring.post(0.0 if state == "Yes" else 100.0)

        async def close_front_end(state: str) -> None:
            await self._front_end.post(0 if state == "Yes" else 1)

        def fail(fault: Fault) -> Any:
            async def prepare(axis: str) -> None:
                self.axes[axis].next_fault = fault

            return prepare

        async def drop(frames: int) -> None:
            self._eiger.frames_to_drop = int(frames)

        async def delay(seconds: float) -> None:
            self._eiger.delay_s = float(seconds)

        async def hang(state: str) -> None:
            self._eiger.hanging = state == "Yes"

        async def restart(_: str) -> None:
            self._eiger.restart()

        async def pace(factor: float) -> None:
            self._clock = Clock(factor)

        async def disconnect(part: str) -> None:
            self.offline = self._prefix + part if part else ""
            if self.on_offline is not None and part:
                await self.on_offline()

        self._add("Sim:Sample", label(sample), mount)
        self._dump = self._add("Sim:Dump", choice("No|Yes"), dump)
        self._add("Sim:CloseFrontEnd", choice("No|Yes"), close_front_end)
        self._add("Sim:Stall", label(), fail(Fault.STALL))
        self._add("Sim:Limit", label(), fail(Fault.LIMIT))
        self._add("Sim:DropFrames", count(0), drop)
        self._add("Sim:DelayFrame", number(), delay)
        self._add("Sim:Hang", choice("No|Yes"), hang)
        self._add("Sim:Restart", choice("No|Yes"), restart)
        self._add("Sim:Clock", number(self._clock.factor), pace)
        self._add("Sim:Offline", label(), disconnect)

    async def _expose(self, exposure_s: float) -> Exposure:
        beam = self._dump.value == "No"
        twin = self._twin
        twin.energy_eV = bragg_energy_eV(self.axes["DCM:Bragg"].position)
        twin.stage_m = (self.axes["Stage:X"].position, self.axes["Stage:Y"].position)
        twin.stage_velocity_m_s = (self.axes["Stage:X"].speed, self.axes["Stage:Y"].speed)
        twin.shutter_open = beam and bool(self._front_end.value and self._shutter.value)
        exposure = await asyncio.get_running_loop().run_in_executor(self._thread, twin.expose, exposure_s)
        await self._i0.post(float(exposure.i0))
        if beam:
            await self._ring.post(float(exposure.ring_current_mA))
        return exposure


class _Written(asyncio.Event):
    """Set unless a put is under way; reads wait for those only that need no time, as in an IOC in C.

    caproto has reads wait for 1 ms, each of them, as long as an axis moves.
    """

    async def wait(self, timeout: float | None = None) -> Literal[True]:
        """Let a put that has just come run."""
        if not self.is_set():
            await asyncio.sleep(0)
        return True


class _Circuit(VirtualCircuit):
    """A client's connection that survives what was on its way, either way, when a channel was closed.

    caproto lets the exception end the task that serves this client, which then hangs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.write_event = _Written()

    async def get_from_sub_queue(self, timeout: float | None = None) -> Any:
        """Send updates as soon as no more are queued, as an IOC in C does.

        caproto waits for 10 ms whether another one comes, with every update but the first of a burst.
        """
        if timeout is None:
            return await super().get_from_sub_queue()
        with contextlib.suppress(asyncio.QueueEmpty):
            return self.subscription_queue.get_nowait()
        return None

    async def _command_queue_iteration(self, command: Any) -> Any:
        with contextlib.suppress(KeyError):  # the request is for a channel that is gone
            return await super()._command_queue_iteration(command)

    async def send(self, *commands: Any) -> None:
        if not self.connected:
            return
        buffers: list[Any] = []
        for command in commands:
            with contextlib.suppress(KeyError, caproto.LocalProtocolError):
                buffers += self.circuit.send(command)
        try:
            await self._send_buffers(*buffers)
        except (OSError, caproto.CaprotoNetworkError) as error:
            raise DisconnectedCircuit(f"Circuit disconnected: {error}") from error


class _Server(Context):
    """caproto's server, which can hide some of its records as if their IOC were off."""

    CircuitClass = _Circuit

    def __init__(self, ioc: SimulatedIOC) -> None:
        super().__init__(ioc.database, [HOST])
        self._ioc = ioc
        ioc.on_offline = self._disconnect

    def _hidden(self, name: str) -> bool:
        return bool(self._ioc.offline) and name.startswith(self._ioc.offline)

    async def _broadcaster_queue_iteration(self, addr: Any, commands: Any) -> None:
        heard = [
            command
            for command in commands
            if not (isinstance(command, caproto.SearchRequest) and self._hidden(command.name))
        ]
        await super()._broadcaster_queue_iteration(addr, heard)

    async def tcp_handler(self, client: Any, addr: Any) -> None:
        """Answer at once; else the second of two small packets (readback, completion) waits 40 ms."""
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().tcp_handler(client, addr)

    async def server_accept_loop(self, sock: socket.socket) -> None:
        """Listen; caproto closes the socket while the loop still waits for clients: `select` refuses it."""
        await super().server_accept_loop(sock)
        try:
            await asyncio.Event().wait()
        finally:
            if sock.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(sock)

    async def broadcast_beacon_loop(self) -> None:
        """No beacons: they reach clients through a CA repeater, which a Python environment does not have."""
        await asyncio.Event().wait()

    async def _disconnect(self) -> None:
        for circuit in list(self.circuits):
            for channel in list(circuit.circuit.channels_sid.values()):
                if self._hidden(channel.name):
                    await circuit._cull_subscriptions(
                        self[channel.name], lambda sub, channel=channel: sub.channel is channel
                    )
                    await circuit.send(caproto.ServerDisconnResponse(cid=channel.cid))


def serve(
    ioc: SimulatedIOC, port: int, ready: Callable[[], None], stop: Callable[[asyncio.Event], None]
) -> None:
    """Serve until told to stop.

    Parameters
    ----------
    ioc : SimulatedIOC
    port : int
        Of searches (UDP); the server's own (TCP) is the same, or any other one where that is taken.
    ready : callable
        Called when clients find the records.
    stop : callable
        ``stop(event)`` is given the event that ends the server, before anything else.
    """
    os.environ["EPICS_CA_SERVER_PORT"] = os.environ["EPICS_CAS_SERVER_PORT"] = str(port)
    logging.getLogger("caproto").setLevel(logging.ERROR)  # it warns of every delay of some ms

    async def main() -> None:
        ending = asyncio.Event()
        stop(ending)
        server = asyncio.create_task(_Server(ioc).run(startup_hook=_call(ready)))
        waiting = asyncio.create_task(ending.wait())
        await asyncio.wait({server, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await server  # it failed: say why
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server

    try:
        with asyncio.Runner(loop_factory=_punctual_loop) as runner:
            runner.run(main())
    finally:
        ioc.close()


def _punctual_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers keep to the microsecond; epoll's would be up to 1 ms late."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def _call(ready: Callable[[], None]) -> Any:
    async def startup_hook(_: Any) -> None:
        ready()

    return startup_hook
