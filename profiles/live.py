"""Live analysis beside a RunEngine: what runs in which thread and process, and where results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.dispatch import Call, Consumer, ConsumerThread, ProcessConsumer, Report
from ptychrome.callbacks.executors import InlineExecutor, WorkerProcesses
from ptychrome.callbacks.figures.live import FigureSink
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.progress import Status
from ptychrome.callbacks.raw import JsonLines, RawWriter
from ptychrome.callbacks.results import Revision, Sink
from ptychrome.callbacks.sinks.nexus import NexusSink
from ptychrome.callbacks.sinks.tiled import TiledSink
from ptychrome.callbacks.sources.awaited import AwaitedFiles
from ptychrome.callbacks.tiled_client import connect
from ptychrome.profiles.tiled_server import raw_container, results_container

TILED_PATIENCE_S = 20.0  # a busy server is not a dead one, and nobody waits here but the analysis


@dataclass(frozen=True)
class LiveSettings:
    """What the analysis process must know; picklable.

    Attributes
    ----------
    recipe : Recipe
    directory : Path
        Folder of the results: one ``.nxs`` per run and a figure that is drawn anew as energies arrive.
    workers : int
        Reconstruction processes; 0 reconstructs inside the analysis process.
    own_file_per_run : bool
        Add the start of the uid to the names of result files, so that a second scan of a sample does not
        replace the results of the first.
    raw_batch : int
        Events and frames that are sent to Tiled at once.
    tiled_uri, tiled_api_key : str or None
        Tiled server for raw documents and results; None for neither.
    """

    recipe: Recipe
    directory: Path
    workers: int
    own_file_per_run: bool = True
    raw_batch: int = 25
    tiled_uri: str | None = None
    tiled_api_key: str | None = None


class LiveAnalysis:
    """A subscriber for ``RE.subscribe`` that only enqueues.

    Documents go to a file of JSON lines (a thread) and to the analysis process, which writes the raw run
    and the results to Tiled and reconstructs in worker processes. Nothing that fails there reaches the scan.

    Parameters
    ----------
    settings : LiveSettings
    documents : Path
        Folder of the documents files, ``<run uid>.jsonl``.
    report : callable
        Told in one line about everything that fails.
    on_status : callable
        Told how far each run is.
    """

    def __init__(
        self,
        settings: LiveSettings,
        documents: Path,
        report: Report,
        on_status: Callable[[Status], None],
    ) -> None:
        self._documents = ConsumerThread(lambda call: JsonLines(documents), report)
        self._process = ProcessConsumer(build_consumers, settings, report, on_status)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document from the RunEngine; never blocks, never raises."""
        self._documents(name, doc)
        self._process(name, doc)

    @property
    def pid(self) -> int | None:
        """Process id of the analysis."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the analysis process runs."""
        return self._process.alive

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait until all results are written; True if they were within the time."""
        finished = self._documents.close(timeout_s)
        return self._process.close(timeout_s) and finished


def build_consumers(
    settings: LiveSettings, report: Report, on_status: Callable[[Status], None]
) -> Sequence[Callable[[Call], Consumer]]:
    """What runs in the analysis process, each in a thread of its own."""

    def pipeline(call: Call) -> Consumer:
        return AwaitedFiles(build_pipeline(settings, report, on_status, call), report)

    def raw(call: Call) -> Consumer:
        writer = RawWriter(raw_container(_client(settings)), report, batch_size=settings.raw_batch)
        return AwaitedFiles(writer, report)

    return [pipeline, raw] if settings.tiled_uri else [pipeline]


def build_pipeline(
    settings: LiveSettings, report: Report, on_status: Callable[[Status], None], call: Call
) -> Pipeline:
    """The pipeline with its executor and sinks.

    Returns
    -------
    Pipeline
    """
    sinks: list[Sink] = [
        NexusSink(lambda revision: result_file(settings, revision, ".nxs")),
        FigureSink(lambda revision: result_file(settings, revision, ".png")),
    ]
    if settings.tiled_uri:
        sinks.insert(0, LateTiledSink(settings))
    executor = WorkerProcesses(settings.workers, report) if settings.workers else InlineExecutor()
    pipeline: Pipeline
    pipeline = Pipeline(
        settings.recipe,
        executor,
        sinks,
        in_flight=max(1, settings.workers),
        report=report,
        on_status=on_status,
        wake=lambda: call(lambda: pipeline.poll()),
    )
    return pipeline


class LateTiledSink:
    """A `TiledSink` that connects with its first revision: without Tiled the other sinks go on."""

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        self._sink: TiledSink | None = None

    def write(self, revision: Revision) -> None:
        """Write one revision; errors are those of `TiledSink`."""
        self._sink = self._sink or TiledSink(results_container(_client(self._settings)))
        self._sink.write(revision)

    def close(self) -> None:
        """Forget the connection."""
        self._sink = None


def result_file(settings: LiveSettings, revision: Revision, suffix: str) -> Path:
    """Where a result of a run goes: named after the sample, the start of the uid, or both."""
    parts = [safe_name(revision.sample_name), revision.raw_uid[:8]]
    if parts[0] and not settings.own_file_per_run:
        del parts[1]
    return settings.directory / ("_".join(part for part in parts if part) + suffix)


def safe_name(sample_name: str) -> str:
    """A sample's name as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in sample_name)


def _client(settings: LiveSettings) -> Any:
    assert settings.tiled_uri is not None
    return connect(settings.tiled_uri, settings.tiled_api_key, timeout_s=TILED_PATIENCE_S)
