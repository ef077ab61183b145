"""Live analysis beside a RunEngine: what runs in which thread and process, and where results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.dispatch import Call, Consumer, ConsumerThread, ProcessConsumer, Report
from ptychrome.callbacks.executors import InlineExecutor, process_executor
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.progress import Status
from ptychrome.callbacks.results import Sink


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
    tiled_uri, tiled_api_key : str or None
        Tiled server for raw documents and results; None for neither.
    """

    recipe: Recipe
    directory: Path
    workers: int
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
        from ptychrome.callbacks.raw import JsonLines

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

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait until all results are written; True if they were within the time."""
        finished = self._documents.close(timeout_s)
        return self._process.close(timeout_s) and finished


def build_consumers(
    settings: LiveSettings, report: Report, on_status: Callable[[Status], None]
) -> Sequence[Callable[[Call], Consumer]]:
    """What runs in the analysis process, each in a thread of its own."""

    def pipeline(call: Call) -> Consumer:
        return build_pipeline(settings, report, on_status, call)

    def raw(call: Call) -> Consumer:
        from ptychrome.callbacks.raw import RawWriter
        from ptychrome.profiles.tiled_server import connect, raw_container

        assert settings.tiled_uri is not None
        client = connect(settings.tiled_uri, settings.tiled_api_key)
        return RawWriter(raw_container(client), report)

    return [pipeline, raw] if settings.tiled_uri else [pipeline]


def build_pipeline(
    settings: LiveSettings, report: Report, on_status: Callable[[Status], None], call: Call
) -> Pipeline:
    """The pipeline with its executor and sinks.

    Returns
    -------
    Pipeline
    """
    from ptychrome.callbacks.figures import FigureSink
    from ptychrome.callbacks.sinks.nexus import NexusSink

    sinks: list[Sink] = [
        NexusSink(lambda revision: settings.directory / f"{result_name(revision)}.nxs"),
        FigureSink(lambda revision: settings.directory / f"{result_name(revision)}.png"),
    ]
    if settings.tiled_uri:
        from ptychrome.callbacks.sinks.tiled import TiledSink
        from ptychrome.profiles.tiled_server import connect, results_container

        sinks.insert(0, TiledSink(results_container(connect(settings.tiled_uri, settings.tiled_api_key))))
    executor = process_executor(settings.workers) if settings.workers else InlineExecutor()
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


def result_name(revision: Any) -> str:
    """Stem of a run's result files: the sample's name, or the start of the uid where it has none."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in revision.sample_name)
    return name or revision.raw_uid[:8]
