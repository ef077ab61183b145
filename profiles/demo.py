"""``ptychrome demo``: a whole experiment on the simulated beamline, analysed live and then scored."""

from __future__ import annotations

import json
import logging
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bluesky.preprocessors import SupplementalData
from bluesky.utils import MsgGenerator, RunEngineInterrupted
from rich.console import Console
from rich.table import Table

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.dispatch import Report
from ptychrome.callbacks.figures.layout import save_figure
from ptychrome.callbacks.figures.live import results_figure, summary_figure
from ptychrome.callbacks.progress import ProgressDisplay, Status
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import load_result, write_nexus
from ptychrome.callbacks.sinks.tiled import TiledSink
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
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.ioc import IOCOptions, IOCProcess, free_stream, ioc_settings
from ptychrome.profiles.live import safe_name
from ptychrome.profiles.pooled import pool_clusters
from ptychrome.profiles.scoring import Score, score
from ptychrome.profiles.session import Session, open_session
from ptychrome.profiles.settings import load_recipe
from ptychrome.profiles.streaming import simulated_stream
from ptychrome.profiles.tiled_server import results_container

CONNECT_S = 30.0  # the IOC runs already; a busy machine may take its time all the same
EXPOSURE_S = 1.0  # physical: with the twin's flux 1e8 photons per frame


@dataclass(frozen=True)
class Size:
    """One size of the demo; flown along `lines`, half the step takes half the exposure."""

    particles: tuple[str, ...]
    frame_pixels: int
    trajectory: Mapping[str, Any]
    lines: Mapping[str, Any]


PAPER = ("P1", "P2", "P3", "D1", "D2", "D3", "LiVO2", "LiVO3")
SIZES = {
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
        ``quick`` or ``paper``.
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
            scores = _compare(session, twins, options, report)
            _show(console, latest, scores)
            display.message(f"figures, results, frames and documents: {session.directory}")
            if json_file is not None:
                content = json.dumps(_summary(latest, scores), indent=2, allow_nan=False)
                json_file.write_text(content + "\n", encoding="utf-8")
            if serve:
                _serve(console, session)
    lost = sum(status.frames_lost for status in latest.values())
    return 1 if problems or lost or set(scores) != set(names) else 0


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
    common: dict[str, Any] = {"energies": v_k_edge(), "sample_name": name}
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


def _compare(
    session: Session, twins: Mapping[str, TwinBeamline], recipe: Recipe, report: Report
) -> dict[str, Score]:
    """Scores of all particles; those without a result are reported and left out."""
    try:
        results = _pooled_results(session, twins, recipe)
    except (OSError, ValueError) as error:
        report(f"particles not compared with the truth: {error}")
        return {}
    return {name: _score(result, twins[name]) for name, result in results.items()}


def _twins(names: Sequence[str], seed: int, frame_pixels: int) -> dict[str, TwinBeamline]:
    try:
        return {name: TwinBeamline(name, seed=seed, frame_pixels=frame_pixels) for name in names}
    except ValueError as error:
        raise UserError(str(error)) from None


def _pooled_results(session: Session, names: Iterable[str], recipe: Recipe) -> dict[str, Revision]:
    """Results of all particles with their common clusters, written everywhere."""
    files = {name: session.directory / f"{safe_name(name)}.nxs" for name in names}
    loaded = {name: load_result(file) for name, file in files.items()}
    results = pool_clusters(loaded, recipe.n_clusters, recipe.clusters)
    for name, result in results.items():
        write_nexus(files[name], result)
        save_figure(results_figure(result), files[name].with_suffix(".png"))
    save_figure(summary_figure(list(results.values())), session.directory / "summary.png")
    clusters = {
        result.raw_uid: {key: array for key, array in result.arrays.items() if key.startswith("clusters/")}
        for result in results.values()
    }
    TiledSink(results_container(session.server.client())).write_pooled("demo", clusters)
    return results


def _score(result: Revision, twin: TwinBeamline) -> Score:
    pixel_m = abs(float(result.arrays["x"][1] - result.arrays["x"][0]))
    return score(result.arrays, twin.truth(pixel_m, result.arrays["energy"]))


def _summary(latest: Mapping[str, Status], scores: Mapping[str, Score]) -> dict[str, Any]:
    """Content of ``--json``; null where there is no number."""
    frames = ("frames_written", "frames_reconstructed", "frames_lost")
    particles = {}
    for name, result in scores.items():
        status = asdict(latest[name])
        particles[name] = {
            field: status[field] for field in ("energies_done", *frames, "lag_s_max", "elapsed_s")
        }
        for title, values in (("errors", result.errors), ("bias", result.bias)):
            particles[name][title] = {key: v if math.isfinite(v) else None for key, v in values.items()}
    return {"particles": particles}


def _show(console: Console, latest: Mapping[str, Status], scores: Mapping[str, Score]) -> None:
    table = Table(title="result − truth, over the pixels")
    table.add_column("particle")
    table.add_column("")
    columns = {
        "b2 (eV)": ("edge_energy_eV", 1, ".3f"),
        "PE/Δμt (eV)": ("pre_edge_ratio_eV", 1, ".3f"),
        "N_V (%)": ("n_v_rel", 100, ".1f"),
        "Re N_eff/N_V": ("n_eff_ratio", 1, ".2f"),
        "ARI": ("cluster_ari", 1, ".2f"),
    }
    for title in columns:
        table.add_column(title, justify="right")
    for name, result in scores.items():
        for label, values, sign in (("error", result.errors, ""), ("bias", result.bias, "+")):
            cells = [
                format(scale * values[key], sign + form) if key in values else ""
                for key, scale, form in columns.values()
            ]
            table.add_row(name if label == "error" else "", label, *cells, end_section=label == "bias")
    console.print(table)
    for status in latest.values():
        console.print(
            f"{status.sample_name}: {status.frames_reconstructed} of {status.frames_written} frames in "
            f"{status.elapsed_s:.0f} s, {status.frames_lost} lost, lag at most {status.lag_s_max:.0f} s"
        )


def _serve(console: Console, session: Session) -> None:
    """Until Ctrl-C or a termination signal."""
    console.print(f"[bold]serving {session.server.web_address()}[/] until Ctrl-C")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        session.server.wait()
    except KeyboardInterrupt:
        console.print("stopped")
