"""``ptychrome demo``: a whole experiment on the simulated beamline, analysed live and then scored."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluesky.preprocessors import SupplementalData
from bluesky.utils import MsgGenerator, RunEngineInterrupted
from rich.console import Console
from rich.markup import escape

from ptychrome.callbacks.progress import ProgressDisplay, Status
from ptychrome.devices.simplon_simulator import SimplonSimulator
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import (
    fly_spectro_ptycho,
    jittered,
    positions,
    rows,
    spectro_ptycho,
    square,
    v_k_edge,
)
from ptychrome.profiles.channel_access import prepare_channel_access
from ptychrome.profiles.demo_scores import compare, show, summary
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.ioc import IOCOptions, IOCProcess, free_stream, ioc_settings
from ptychrome.profiles.session import Session, open_session
from ptychrome.profiles.settings import load_recipe
from ptychrome.profiles.streaming import simulated_stream

CONNECT_S = 30.0  # the IOC runs already; a busy machine may take its time all the same
EXPOSURE_S = 1.0  # physical: with the twin's flux 1e8 photons per frame


@dataclass(frozen=True)
class Size:
    """One size of the demo; flown along `lines`, half the step takes half the exposure."""

    particles: tuple[str, ...]
    frame_pixels: int
    trajectory: Mapping[str, Any]
    lines: Mapping[str, Any]
    energies: tuple[float, ...] = tuple(v_k_edge())


PAPER = ("P1", "P2", "P3", "D1", "D2", "D3", "LiVO2", "LiVO3")
SIZES = {
    "tiny": Size(
        ("P1",), 64, square(9e-7, 150e-9), rows(9e-7, 75e-9, 150e-9), (*v_k_edge()[::2], v_k_edge()[-1])
    ),
    "quick": Size(("P1", "D1"), 128, square(1.65e-6, 150e-9), rows(1.65e-6, 75e-9, 150e-9)),
    "paper": Size(PAPER, 256, jittered(2.9e-6, 150e-9), rows(2.9e-6, 75e-9, 150e-9)),
}


def demo(
    *,
    size: str = "quick",
    particles: Sequence[str] | None = None,
    seed: int = 0,
    recipe: str = "live",
    directory: Path = Path("ptychrome-results"),
    serve: bool = True,
    json_file: Path | None = None,
    port: int = 0,
    frames: str = "files",
    ioc_port: int | None = None,
    fly: bool = False,
) -> int:
    """Scan simulated particles over the V K-edge, map them while they arrive and compare with the truth.

    Parameters
    ----------
    size : str
        ``tiny``, ``quick`` or ``paper``.
    particles : sequence of str, optional
        Samples instead of those of the size.
    seed : int
        Of everything random.
    recipe : str
        Name of a recipe or path of a TOML file.
    directory : Path
        Where everything goes.
    serve : bool
        Go on serving the results until Ctrl-C.
    json_file : Path, optional
        Where the table of errors goes as JSON.
    port : int
        Of the Tiled server; 0 takes a free one.
    frames : str
        ``files``: the detector writes them where the analysis reads; ``stream``: it sends them over 0MQ.
    ioc_port : int, optional
        Put the beamline behind an IOC in a process of its own, where this process searches for records at
        that port (`ptychrome.profiles.ioc.search_on_a_free_port`).
    fly : bool
        Fly along the lines of a raster instead of stopping at its points, with the same dose.

    Returns
    -------
    int
        Exit status: 0, or 1 if anything was lost or failed.

    Raises
    ------
    UserError
        If an argument is wrong or the folder or the port cannot be used.
    """
    plan = SIZES[size]
    names = tuple(particles or plan.particles)
    twins = _twins(names, seed, plan.frame_pixels)
    n_states = len({state.name for twin in twins.values() for state in twin.particle.states})
    options = load_recipe(recipe, n_clusters=n_states)
    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise UserError(f"cannot write {json_file}: {json_file.parent} is not a folder")
    with ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay())
        stream = address = None
        if frames == "stream" and ioc_port is None:
            stream = stack.enter_context(simulated_stream())
            address = stream.address
        elif frames == "stream":
            address = free_stream()
        console = display.console
        problems: list[str] = []
        latest: dict[str, Status] = {}

        def report(text: str) -> None:
            problems.append(text)
            display.warn(text)

        def on_status(status: Status) -> None:
            latest[status.sample_name] = status
            display.show(status)

        display.message("starting the Tiled server and the analysis …")
        session = open_session(
            directory,
            options,
            port=port,
            own_file_per_run=False,
            raw_batch=len(positions(dict(plan.lines if fly else plan.trajectory))),
            stream=address,
            report=report,
            on_status=on_status,
        )
        with session:
            display.message(f"results appear live at {session.server.web_address()}")
            with _control(session, plan, twins, stream, ioc_port, address) as mount:
                _measure(session, plan, names, mount, fly)
            session.finish()
            display.stop()
            scores = compare(session, twins, options, report)
            show(console, latest, scores)
            display.message(f"figures, results, frames and documents: {session.directory}")
            if json_file is not None:
                content = json.dumps(summary(latest, scores), indent=2, allow_nan=False)
                json_file.write_text(content + "\n", encoding="utf-8")
            if lost := sum(status.frames_lost for status in latest.values()):
                problems.append(f"{lost} frames lost")
            if problems:
                console.print(
                    f"[bold red]not all went well:[/] {escape('; '.join(problems))}", highlight=False
                )
            if serve:
                _serve(console, session)
    return 1 if problems else 0


@contextmanager
def _control(
    session: Session,
    plan: Size,
    twins: Mapping[str, TwinBeamline],
    stream: SimplonSimulator | None,
    ioc_port: int | None,
    address: str | None,
) -> Iterator[Callable[[str], Any]]:
    """A function that puts a sample on the stage and returns the devices."""
    if ioc_port is None:
        yield lambda name: simulated_beamline(twins[name], session.frames, stream=stream)
        return
    from ptychrome.profiles.beamline import beamline

    first = next(iter(twins))
    options = IOCOptions(
        first, twins[first].seed, plan.frame_pixels, clock=0.0, port=ioc_port, stream=address or ""
    )
    settings = ioc_settings(options, eiger={"writer": "stream", "stream": address} if address else {})
    prepare_channel_access(settings.channel_access)
    with IOCProcess(options) as ioc:
        devices = beamline(settings, session.frames, session.arrivals)
        if offline := devices.wait(CONNECT_S):
            raise UserError(f"the simulated IOC does not serve {', '.join(offline)}")

        def mount(name: str) -> Any:
            ioc.request("Sample", name)
            return devices

        yield mount


def _measure(
    session: Session, plan: Size, names: Sequence[str], mount: Callable[[str], Any], fly: bool
) -> None:
    """Scan one particle after the other; Ctrl-C ends the run in an orderly way."""
    for name in names:
        beamline = mount(name)
        try:
            session.RE(SupplementalData(baseline=beamline.baseline)(_scan(beamline, plan, name, fly)))
        except RunEngineInterrupted:
            logging.getLogger("bluesky").setLevel(logging.CRITICAL)  # it would print where the plan was
            session.RE.abort("interrupted by the user")
            raise KeyboardInterrupt from None


def _scan(beamline: Any, plan: Size, name: str, fly: bool) -> MsgGenerator[str]:
    """The scan of one particle, over all energies."""
    common: dict[str, Any] = {"energies": list(plan.energies), "sample_name": name}
    if fly:
        return fly_spectro_ptycho(
            beamline.flyer, beamline.dcm, trajectory=dict(plan.lines), exposure_s=EXPOSURE_S / 2, **common
        )
    return spectro_ptycho(
        [beamline.eiger],
        beamline.dcm,
        beamline.stage,
        trajectory=dict(plan.trajectory),
        exposure_s=EXPOSURE_S,
        **common,
    )


def _twins(names: Sequence[str], seed: int, frame_pixels: int) -> dict[str, TwinBeamline]:
    try:
        return {name: TwinBeamline(name, seed=seed, frame_pixels=frame_pixels) for name in names}
    except ValueError as error:
        raise UserError(str(error)) from None


def _serve(console: Console, session: Session) -> None:
    """Until Ctrl-C or a termination signal."""
    console.print(f"[bold]serving {session.server.web_address()}[/] until Ctrl-C")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        session.server.wait()
    except KeyboardInterrupt:
        console.print("stopped")
