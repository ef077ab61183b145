"""Documents to maps: collects energies, sends them to an executor and grows the results as they return."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.intake import EnergyJob
from ptychrome.callbacks.progress import Status
from ptychrome.callbacks.quality import QualityTask, assess
from ptychrome.callbacks.reconstruct import Refinement, reconstruct, refine
from ptychrome.callbacks.results import Revision, Sink
from ptychrome.callbacks.run_analysis import RunAnalysis
from ptychrome.schema import START_KEY

SINK_RETRY_S = 20.0


@dataclass(frozen=True, eq=False)
class Task:
    """One piece of work of a run.

    Attributes
    ----------
    run : RunAnalysis
    call : callable
        The function for a worker and its arguments, asked for when one is free.
    conclude : callable
        Takes what came of it into the results.
    urgent : bool
        Of the maps; what is not waits until nothing else is ready.
    """

    run: RunAnalysis
    call: Callable[[], tuple[Any, ...]]
    conclude: Callable[[Future], None]
    urgent: bool = True


class Pipeline:
    """A plain ``(name, doc)`` callable that turns documents into revisions of the results.

    Call it from one thread only, which is never the RunEngine's. Results come back between documents,
    when `poll` is called, and in `drain`. What fails is reported and leaves the rest going.

    Parameters
    ----------
    recipe : Recipe
    executor : concurrent.futures.Executor
        Runs the reconstructions; belongs to the pipeline from now on.
    sinks : sequence of Sink
    in_flight : int
        Energies handed to the executor at once; the others wait, so that they can start from the newest
        probe.
    report : callable
        Told in one line about everything that fails.
    on_status : callable
        Told how far each run is.
    wake : callable
        Called from any thread when a result waits to be polled.
    """

    def __init__(
        self,
        recipe: Recipe,
        executor: Executor,
        sinks: Sequence[Sink],
        *,
        in_flight: int = 1,
        report: Callable[[str], None] = print,
        on_status: Callable[[Status], None] = lambda status: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._recipe = recipe
        self._executor = executor
        self._sinks = [_GuardedSink(sink, report) for sink in sinks]
        self._free_slots = in_flight
        self._report = report
        self._on_status = on_status
        self._wake = wake
        self._runs: list[RunAnalysis] = []
        self._run_of: dict[str, RunAnalysis] = {}
        self._waiting: deque[Task] = deque()
        self._finished: queue.SimpleQueue[tuple[Task, Future]] = queue.SimpleQueue()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document, then whatever has finished meanwhile."""
        try:
            self._take(name, doc)
        except Exception as error:
            self._report(f"live analysis: {name} document not understood: {error}")
        self.poll()

    def poll(self) -> None:
        """Take what has finished."""
        while not self._finished.empty():
            self._conclude(*self._finished.get())

    def drain(self) -> None:
        """Wait until every energy, and the check of every run that has stopped, is part of the results."""
        self.poll()
        while self._waiting or any(run.outstanding for run in self._runs):
            self._conclude(*self._finished.get())

    def close(self) -> None:
        """Drain, then close the sinks and shut the executor down."""
        self.drain()
        self._executor.shutdown()
        for sink in self._sinks:
            sink.close()

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            if START_KEY in doc:
                run = RunAnalysis.from_start(doc, self._recipe)
                self._runs.append(run)
                self._run_of[doc["uid"]] = run
                self._on_status(run.status())
            return
        parent = self._run_of.get(doc.get("run_start") or doc.get("descriptor") or "")
        if parent is None:
            return
        if name in ("descriptor", "stream_resource"):
            self._run_of[doc["uid"]] = parent
        jobs = parent.take(name, doc)
        self._waiting.extend(self._energy(parent, job) for job in jobs)
        self._submit()
        if name == "stop":
            self._begin_round(parent)
            self._begin_check(parent)
            if parent.finished:
                self._publish(parent, ())
        if jobs or name == "stop":
            self._on_status(parent.status())

    def _submit(self) -> None:
        while self._free_slots and (task := self._next_ready()) is not None:
            self._waiting.remove(task)
            self._free_slots -= 1
            task.run.started += 1
            try:
                future = self._executor.submit(*task.call())
            except Exception as error:  # an executor that takes no more work; the energy counts as lost
                future = Future()
                future.set_exception(error)
            future.add_done_callback(partial(self._hand_back, task))

    def _energy(self, run: RunAnalysis, job: EnergyJob) -> Task:
        """The neighbour is the nearest one that is finished when a worker is free."""
        return Task(
            run,
            lambda: (reconstruct, job, run.recipe, run.neighbour(job)),
            partial(self._conclude_energy, run, job),
        )

    def _refinement(self, run: RunAnalysis, task: Refinement) -> Task:
        call = refine, task, run.recipe
        return Task(run, lambda: call, partial(self._conclude_refinement, run, task))

    def _check(self, run: RunAnalysis, task: QualityTask) -> Task:
        call = assess, task, run.recipe
        return Task(run, lambda: call, partial(self._conclude_check, run), urgent=False)

    def _begin_round(self, run: RunAnalysis) -> None:
        """Send out the next round of the joint refinement, if all energies are in."""
        try:
            self._waiting.extend(self._refinement(run, task) for task in run.next_round())
        except Exception as error:
            self._report(f"{run.label}: energies not refined together: {error}")
        self._submit()

    def _begin_check(self, run: RunAnalysis) -> None:
        """Send out the check of a run whose maps are all out."""
        if (task := run.next_check()) is not None:
            self._waiting.append(self._check(run, task))
            self._submit()

    def _next_ready(self) -> Task | None:
        """The oldest task that need not wait: the first energy of a run is the start of all others."""
        ready = [
            task
            for task in self._waiting
            if task.run.energies or not (task.run.started and task.run.recipe.warm)
        ]
        return min(ready, key=lambda task: not task.urgent, default=None)

    def _hand_back(self, task: Task, future: Future) -> None:
        self._finished.put((task, future))
        self._wake()

    def _conclude(self, task: Task, future: Future) -> None:
        self._free_slots += 1
        task.run.outstanding -= 1
        task.run.started -= 1
        task.conclude(future)
        revised = [run for run in self._runs if run.concluded] if self._finished.empty() else []
        for run in revised:
            self._revise(run)
        for run in dict.fromkeys([task.run, *revised]):  # what is told to be done is in the sinks
            self._on_status(run.status())

    def _conclude_energy(self, run: RunAnalysis, job: EnergyJob, future: Future) -> None:
        try:
            run.add(future.result())
        except Exception as error:
            run.failed(job)
            self._report(f"{run.label}, {job.energy_eV:.2f} eV: not reconstructed: {error}")
        run.concluded.append(job)
        self._submit()

    def _revise(self, run: RunAnalysis) -> None:
        """Maps with the energies since the last time: those that are there together share a revision."""
        jobs, changed = run.concluded.copy(), run.places_of(run.concluded)
        run.concluded.clear()
        try:
            if changed:
                run.interpret()
        except Exception as error:
            self._report(f"{run.label}, {jobs[-1].energy_eV:.2f} eV: maps not updated: {error}")
        run.shown(jobs)  # for the table of a final revision; once more when the maps are out
        self._begin_round(run)
        self._publish(run, changed)
        run.shown(jobs)
        self._begin_check(run)

    def _conclude_refinement(self, run: RunAnalysis, task: Refinement, future: Future) -> None:
        """The maps follow when the round is over; an energy that fails stays as it was."""
        try:
            run.refined(task, future.result())
        except Exception as error:
            self._report(f"{run.label}, {task.energy_eV:.2f} eV: not refined: {error}")
        self._submit()
        if not run.outstanding:
            self._begin_round(run)
            self._publish(run, tuple(sorted(run.energies)))
            self._begin_check(run)

    def _conclude_check(self, run: RunAnalysis, future: Future) -> None:
        try:
            run.check = future.result()
        except Exception as error:
            self._report(f"{run.label}: quality not checked: {error}")
        self._submit()
        self._publish(run, ())

    def _publish(self, run: RunAnalysis, changed: tuple[int, ...]) -> None:
        if run.energies:
            revision = run.revision(changed)
            for sink in self._sinks:
                sink.write(revision)
        if run.finished:
            self._runs.remove(run)
            self._run_of = {uid: other for uid, other in self._run_of.items() if other is not run}


class _GuardedSink:
    """Keeps a failing sink away from the others: tells once, then tries again now and then.

    The slices that a failed write left behind are written with the next one that works.
    """

    def __init__(self, sink: Sink, report: Callable[[str], None]) -> None:
        self._sink = sink
        self._report = report
        self._failed_at: float | None = None
        self._missed: dict[str, set[int]] = {}

    def write(self, revision: Revision) -> None:
        """Write unless the sink failed a moment ago."""
        missed = self._missed.setdefault(revision.raw_uid, set())
        missed.update(revision.changed)
        resting = self._failed_at is not None and time.monotonic() - self._failed_at < SINK_RETRY_S
        if resting and not revision.final:
            return
        try:
            self._sink.write(replace(revision, changed=tuple(sorted(missed))))
        except Exception as error:
            self._tell(error)
            self._failed_at = time.monotonic()
            return
        del self._missed[revision.raw_uid]
        self._failed_at = None

    def close(self) -> None:
        """Close the sink; a failure is told."""
        try:
            self._sink.close()
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if self._failed_at is None:
            self._report(f"{type(self._sink).__name__}: results not written: {error}")
