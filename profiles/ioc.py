"""``ptychrome ioc``: the simulated beamline behind Channel Access, in the foreground or as a child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from types import TracebackType
from typing import Any

from ptychrome.profiles.beamline_settings import BeamlineSettings
from ptychrome.profiles.errors import UserError

HOST = "127.0.0.1"
DEFAULT_PORT = 5064
PREFIX = "SIM:"
READY = "ready"
REQUEST_S = 60.0


@dataclass(frozen=True)
class IOCOptions:
    """What a simulated IOC serves.

    Attributes
    ----------
    sample : str
        Particle on the stage.
    seed : int
        Of everything random.
    frame_pixels : int
        Rows and columns of a frame.
    clock : float
        Wall seconds per physical second of motion and exposure.
    prefix : str
        Of all records.
    port : int
        Where clients search for records (UDP).
    nuisances : bool
        Whether the beamline drifts, jitters and counts photons one by one.
    stream : str
        Address of the detector's stream, ``tcp://host:port``; "": it has none.
    """

    sample: str = "P1"
    seed: int = 0
    frame_pixels: int = 128
    clock: float = 1.0
    prefix: str = PREFIX
    port: int = DEFAULT_PORT
    nuisances: bool = True
    stream: str = ""


def client_environment(port: int = DEFAULT_PORT) -> dict[str, str]:
    """Variables with which a client finds the IOC on this machine, and nothing else.

    libca reads them when ophyd is imported for the first time.
    """
    return {"EPICS_CA_ADDR_LIST": f"{HOST}:{port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """A port that nobody uses now; by default of UDP."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def free_stream() -> str:
    """An address for the detector's stream that nobody uses now."""
    return f"tcp://{HOST}:{free_port(socket.SOCK_STREAM)}"


def search_on_a_free_port() -> int:
    """Have this process search for records at a port that nobody uses, and return it."""
    port = free_port()
    os.environ.update(client_environment(port))
    return port


def ioc_settings(options: IOCOptions, **changes: Any) -> BeamlineSettings:
    """Settings of a session with the beamline that an IOC with these options simulates.

    Parameters
    ----------
    options : IOCOptions
    changes
        Fields of the settings; of a section, those fields that differ.
    """
    text = (files("ptychrome.profiles") / "profile_ioc" / "settings.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text.replace(f'"{PREFIX}', f'"{options.prefix}'))
    content["channel_access"]["addresses"] = [f"{HOST}:{options.port}"]
    content["eiger"]["shape"] = [options.frame_pixels, options.frame_pixels]
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    return BeamlineSettings.model_validate(content)


def run_ioc(options: IOCOptions) -> int:
    """Serve in the foreground until Ctrl-C or a termination signal; returns the exit status.

    Raises
    ------
    UserError
        If caproto, or what a stream needs, is not installed, there is no such sample, or a port is in use.
    """

    def ready() -> None:
        print(
            f"serving {options.prefix}* ({options.sample}) at {HOST}:{options.port}; in another shell:\n"
            "  ipython --profile-dir=profiles/profile_ioc\n"
            "Ctrl-C stops",
            flush=True,
        )

    def stop_by_signal(ending: asyncio.Event) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)

    _serve(options, ready, stop_by_signal)
    return 0


class IOCProcess:
    """An IOC in a process of its own, which ends with this one.

    Parameters
    ----------
    options : IOCOptions

    Raises
    ------
    UserError
        If it does not start; says why.
    """

    def __init__(self, options: IOCOptions) -> None:
        self.options = options
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name, json.dumps(asdict(options))],
            stdin=subprocess.PIPE,  # its end tells the IOC that this process has ended
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is for this process only
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline().strip() != READY:
            lines = self._process.stderr.read().strip().splitlines()
            self.stop()
            raise UserError(f"the simulated IOC did not start: {lines[-1] if lines else 'it said nothing'}")
        # somebody has to read what it complains about, or it waits for that
        self.complaints: list[str] = []
        threading.Thread(target=self.complaints.extend, args=(self._process.stderr,), daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def request(self, name: str, value: Any) -> None:
        """Ask it for something (see `ptychrome.devices.ioc.server.SimulatedIOC`) and wait until it is so.

        Raises
        ------
        UserError
            If it does not do so.
        """
        import epics

        record = epics.get_pv(f"{self.options.prefix}Sim:{name}")
        if not (
            record.wait_for_connection(REQUEST_S) and record.put(value, wait=True, timeout=REQUEST_S) == 1
        ):
            raise UserError(f"the simulated IOC did not take {name} = {value!r}")

    def stop(self) -> None:
        """End it in an orderly way; safe to call twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> IOCProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _serve(options: IOCOptions, ready: Callable[[], None], stop: Callable[[asyncio.Event], None]) -> None:
    try:
        from ptychrome.devices.ioc.server import SimulatedIOC, serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"the simulated IOC needs {error.name}; install it with: pip install 'ptychrome[ioc]'"
        ) from None
    from ptychrome.devices.clock import Clock
    from ptychrome.devices.twin import Nuisances, TwinBeamline

    def make_twin(sample: str) -> TwinBeamline:
        return TwinBeamline(
            sample,
            seed=options.seed,
            frame_pixels=options.frame_pixels,
            nuisances=Nuisances() if options.nuisances else Nuisances.none(),
        )

    stream = None
    if options.stream:
        from ptychrome.profiles.streaming import simulated_stream

        stream = simulated_stream(options.stream)
    try:
        ioc = SimulatedIOC(make_twin, options.sample, options.prefix, Clock(options.clock), stream)
    except ValueError as error:
        raise UserError(str(error)) from None
    try:
        serve(ioc, options.port, ready, stop)
    except OSError as error:
        raise UserError(f"the simulated IOC cannot use port {options.port} of {HOST}: {error}") from None


def _main(arguments: str) -> None:
    """Main function of the child process."""

    def stop_with_parent(ending: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def wait() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(ending.set)

        threading.Thread(target=wait, daemon=True).start()

    _serve(IOCOptions(**json.loads(arguments)), lambda: print(READY, flush=True), stop_with_parent)


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except UserError as failure:
        sys.exit(str(failure))
