"""A live session: RunEngine, Tiled server and analysis wired together, for IPython, the demo and tests."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bluesky import RunEngine
from threadpoolctl import threadpool_limits

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.progress import Status
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.live import LiveAnalysis, LiveSettings
from ptychrome.profiles.settings import TwinSessionSettings, default_workers, load_recipe, read_settings
from ptychrome.profiles.tiled_server import TiledServer, TiledServerError
from ptychrome.schema import validate_start

if TYPE_CHECKING:
    from ptychrome.devices.simulated import SimulatedBeamline

FRAMES, DOCUMENTS, TILED = "frames", "documents", "tiled"


@dataclass
class Session:
    """A RunEngine whose scans are stored, reconstructed and mapped while they run.

    Attributes
    ----------
    RE : RunEngine
        With the metadata validator and the live analysis subscribed.
    server : TiledServer
        Serves raw runs and results.
    live : LiveAnalysis
    directory : Path
        Results; below it ``frames/``, ``documents/`` and ``tiled/``.
    """

    RE: RunEngine
    server: TiledServer
    live: LiveAnalysis
    directory: Path

    @property
    def frames(self) -> Path:
        """Folder of the detector's files."""
        return self.directory / FRAMES

    def finish(self, timeout_s: float | None = None) -> bool:
        """Wait until everything measured is part of the results; True if it was within the time."""
        return self.live.close(timeout_s)

    def close(self) -> None:
        """Stop the Tiled server."""
        self.server.stop()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.live.close(0)
        self.close()


def open_session(
    directory: Path,
    recipe: Recipe,
    *,
    workers: int | None = None,
    port: int = 0,
    own_file_per_run: bool = True,
    raw_batch: int = 25,
    report: Callable[[str], None] = print,
    on_status: Callable[[Status], None] = lambda status: None,
) -> Session:
    """Start the Tiled server and the analysis process, and make a RunEngine that feeds them.

    Parameters
    ----------
    directory : Path
        Where everything goes; made when it does not exist.
    recipe : Recipe
    workers : int, optional
        Reconstruction processes; default one per processor.
    port : int
        Of the Tiled server; 0 takes a free one.
    own_file_per_run, raw_batch
        See `ptychrome.profiles.live.LiveSettings`.
    report, on_status : callable
        Told what fails, and how far each run is.

    Raises
    ------
    UserError
        If the folder cannot be written, or the server cannot start (a port in use).
    """
    directory = directory.resolve()
    threadpool_limits(1)  # the processors are for the analysis; what runs here waits for hardware
    try:
        for folder in (FRAMES, DOCUMENTS):
            (directory / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from None
    try:
        server = TiledServer.begin(directory / TILED, port=port, readable=[directory / FRAMES])
    except TiledServerError as error:
        raise UserError(str(error)) from None
    try:
        settings = LiveSettings(
            recipe=recipe,
            directory=directory,
            workers=default_workers() if workers is None else workers,
            own_file_per_run=own_file_per_run,
            raw_batch=raw_batch,
            tiled_uri=server.uri,
            tiled_api_key=server.api_key,
        )
        RE = RunEngine(md_validator=validate_start)
        server.wait_ready()
        live = LiveAnalysis(settings, directory / DOCUMENTS, report, on_status)
        RE.subscribe(live)
    except BaseException as error:
        server.stop()
        if isinstance(error, TiledServerError):
            raise UserError(str(error)) from None
        raise
    return Session(RE, server, live, directory)


def simulated(session: Session, settings: TwinSessionSettings) -> SimulatedBeamline:
    """The devices of a simulated beamline with a particle on the stage.

    Raises
    ------
    UserError
        If there is no such particle.
    """
    from ptychrome.devices.simulated import simulated_beamline
    from ptychrome.devices.twin import TwinBeamline

    try:
        twin = TwinBeamline(settings.sample, seed=settings.seed, frame_pixels=settings.frame_pixels)
    except ValueError as error:
        raise UserError(str(error)) from None
    return simulated_beamline(twin, session.frames, clock=settings.clock)


def twin_namespace(settings_file: Path) -> dict[str, Any]:
    """Everything that ``profile_twin`` puts at a user's fingertips.

    Returns
    -------
    dict
        ``RE``, ``bec``, ``sd``, ``cat`` (the Tiled client), ``session``, the devices, the plans, the energy
        grids and the trajectories.
    """
    from bluesky.callbacks.best_effort import BestEffortCallback
    from bluesky.preprocessors import SupplementalData
    from bluesky.utils import ProgressBarManager

    from ptychrome import plans

    settings = read_settings(settings_file, TwinSessionSettings)
    session = open_session(
        settings.directory,
        load_recipe(settings.recipe),
        workers=settings.workers,
        port=settings.tiled_port,
        report=lambda text: print(f"\n[ptychrome] {text}"),
        on_status=_announce,
    )
    atexit.register(session.close)
    atexit.register(session.finish)
    beamline = simulated(session, settings)
    bec = BestEffortCallback()
    bec.disable_plots()
    bec.disable_table()
    session.RE.subscribe(bec)
    sd = SupplementalData(baseline=[beamline.kb, beamline.dcm, beamline.ring_current])
    session.RE.preprocessors.append(sd)
    session.RE.waiting_hook = ProgressBarManager() if settings.clock else None
    session.RE.md["sample_name"] = settings.sample
    print(f"[ptychrome] results appear live at {session.server.web_address}")
    devices = {name: getattr(beamline, name) for name in beamline.__dataclass_fields__}
    return {
        "RE": session.RE,
        "bec": bec,
        "sd": sd,
        "cat": session.server.client(),
        "session": session,
        **devices,
        **{name: getattr(plans, name) for name in plans.__all__},
    }


def _announce(status: Status) -> None:
    """One line when a run is finished."""
    if status.finished:
        print(
            f"\n[ptychrome] {status.sample_name}: {status.energies_done} of {status.energies_planned} "
            f"energies, {status.frames_reconstructed} frames, {status.frames_lost} lost"
        )
