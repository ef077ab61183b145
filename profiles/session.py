"""A live session: RunEngine, Tiled server and analysis wired together, for IPython, the demo and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from bluesky import RunEngine
from threadpoolctl import threadpool_limits

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.progress import Status
from ptychrome.profiles.daily import describe_focus, measure_focus
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.live import LiveAnalysis, LiveSettings
from ptychrome.profiles.remote_tiled import RemoteTiled
from ptychrome.profiles.runs import Runs
from ptychrome.profiles.settings import TwinSessionSettings, default_workers
from ptychrome.profiles.streaming import StreamedAnalysis, simulated_stream
from ptychrome.profiles.tiled_server import TiledServer, TiledServerError, raw_container, results_container
from ptychrome.schema import validate_start

if TYPE_CHECKING:
    from tiled.client.container import Container

    from ptychrome.callbacks.sources.streamed import Arrivals
    from ptychrome.devices.simulated import SimulatedBeamline

FRAMES, DOCUMENTS, TILED = "frames", "documents", "tiled"


@dataclass
class Session:
    """A RunEngine whose scans are stored, reconstructed and mapped while they run.

    Attributes
    ----------
    RE : RunEngine
        With the metadata validator and the live analysis subscribed.
    server : TiledServer or RemoteTiled
        Serves raw runs and results.
    live : LiveAnalysis or StreamedAnalysis
    runs : Runs
        How far the analysis of each run is.
    directory : Path
        Results; below it ``frames/``, ``documents/`` and ``tiled/``.
    """

    RE: RunEngine
    server: TiledServer | RemoteTiled
    live: LiveAnalysis | StreamedAnalysis
    runs: Runs
    directory: Path

    @property
    def frames(self) -> Path:
        """Folder of the detector's files."""
        return self.directory / FRAMES

    @property
    def arrivals(self) -> Arrivals | None:
        """Which frames of the detector's stream have arrived; None where it is not received."""
        return self.live.arrivals if isinstance(self.live, StreamedAnalysis) else None

    def client(self, timeout_s: float = 30.0) -> Container:
        """A Tiled client of raw runs and results."""
        return self.server.client(timeout_s)

    def progress(self) -> None:
        """Print how far the analysis of each run is."""
        print("\n".join(self.runs.lines()) or "no run yet")

    def focus(self, uid: str | None = None) -> None:
        """Print how far the sample stands from the focus of each mirror, by the probe of a run.

        Waits for its analysis. By default the newest run, as `align_focus` makes one; of another scan, the
        probe of the lowest energy counts.

        Raises
        ------
        UserError
            If there is no run, or no probe of it.
        """
        print(describe_focus(measure_focus(self, uid)))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every run measured so far is analysed; True if it was within the time."""
        return self.runs.wait(lambda: self.live.alive, timeout_s)

    def finish(self, timeout_s: float | None = None) -> bool:
        """End the analysis once everything measured is part of the results; True if within the time.

        What is measured afterwards is not analysed, nor written to Tiled.
        """
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
    tiled_uri: str | None = None,
    frames: Path | None = None,
    own_file_per_run: bool = True,
    raw_batch: int = 25,
    stream: str | None = None,
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
    tiled_uri : str, optional
        A Tiled server that others run, instead.
    frames : Path, optional
        Where the detector's files lie, if not in ``frames/`` of the folder.
    own_file_per_run, raw_batch
        See `ptychrome.profiles.live.LiveSettings`.
    stream : str, optional
        Address of a detector's stream, ``tcp://host:port``, for frames that do not come as files.
    report, on_status : callable
        Told what fails, and how far each run is.

    Raises
    ------
    UserError
        If the folder cannot be written, the server cannot start (a port in use) or does not answer, or what a
        stream needs is not installed.
    """
    directory = directory.resolve()
    runs = Runs(on_status)

    def tell(text: str) -> None:
        report(text)
        runs.wake()  # it may have been the end of the analysis

    threadpool_limits(1)  # the processors are for the analysis; what runs here waits for hardware
    try:
        for folder in (FRAMES, DOCUMENTS):
            (directory / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from None
    try:
        readable = [directory / FRAMES, *([frames] if frames else [])]
        server = (
            RemoteTiled(tiled_uri)
            if tiled_uri
            else TiledServer.begin(directory / TILED, port=port, readable=readable)
        )
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
        client = server.client()
        for make in (raw_container, results_container):  # before two processes try at once
            make(client)
        live: LiveAnalysis | StreamedAnalysis
        live = LiveAnalysis(settings, directory / DOCUMENTS, tell, runs.update)
        if stream is not None:
            live = StreamedAnalysis(live, stream, directory / FRAMES, tell)
        RE.subscribe(runs.start, "start")
        RE.subscribe(live)
    except BaseException as error:
        server.stop()
        if isinstance(error, TiledServerError):
            raise UserError(str(error)) from None
        raise
    return Session(RE, server, live, runs, directory)


def simulated(session: Session, settings: TwinSessionSettings) -> SimulatedBeamline:
    """The devices of a simulated beamline with a particle on the stage.

    Raises
    ------
    UserError
        If there is no such particle, or the address of the stream cannot be used.
    """
    from ptychrome.devices.simulated import simulated_beamline
    from ptychrome.devices.twin import TwinBeamline

    try:
        twin = TwinBeamline(settings.sample, seed=settings.seed, frame_pixels=settings.frame_pixels)
    except ValueError as error:
        raise UserError(str(error)) from None
    stream = None if settings.stream is None else simulated_stream(settings.stream)
    return simulated_beamline(twin, session.frames, clock=settings.clock, stream=stream)
