"""Documents of a real scan through the pipeline: revisions, failures, several runs. Takes 10 s."""

import copy
from collections import deque
from concurrent.futures import Executor, Future

import numpy as np
import pytest

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks import pipeline as pipeline_module
from ptychrome.callbacks.executors import InlineExecutor
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.sinks.memory import MemorySink

ENERGIES, POSITIONS = 6, 16
RECIPE = Recipe.model_validate(
    {
        "name": "fast",
        "n_clusters": 2,
        "reconstruct": [{"engine": "epie", "sweeps": 3}],
        "warm": [{"engine": "ml", "sweeps": 2, "pixel_points": 1}],
    }
)


class Sink:
    """Keeps every revision; fails while `broken` is set."""

    def __init__(self):
        self.revisions, self.closed, self.broken = [], False, None

    def write(self, revision):
        if self.broken:
            raise self.broken
        self.revisions.append(revision)

    def close(self):
        self.closed = True
        if self.broken:
            raise self.broken


class LateExecutor(Executor):
    """Finishes a task when told to, in an order of the test's choice."""

    def __init__(self):
        self.tasks = deque()
        self.most = 0

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.tasks.append((future, lambda: fn(*args, **kwargs)))
        self.most = max(self.most, len(self.tasks))
        return future

    def finish_all(self, newest_first=False):
        while self.tasks:
            future, task = self.tasks.pop() if newest_first else self.tasks.popleft()
            future.set_result(task())


def run(documents, *sinks, executor=None, **options):
    """Everything through a pipeline; what it reported and its statuses."""
    reports, statuses = [], []
    pipeline = Pipeline(
        RECIPE,
        executor or InlineExecutor(),
        sinks,
        report=reports.append,
        on_status=statuses.append,
        **options,
    )
    for name, doc in documents:
        pipeline(name, doc)
    pipeline.close()
    return reports, statuses


def darken(documents, *indices):
    """Without beam at some energies, as the ion chamber sees it."""
    documents = copy.deepcopy(documents)
    uid = next(doc["uid"] for name, doc in documents if name == "descriptor" and doc["name"] == "primary")
    for name, doc in documents:
        if name == "event" and doc["descriptor"] == uid and (doc["seq_num"] - 1) // POSITIONS in indices:
            doc["data"]["i0"] = 0.0
    return documents


def test_every_energy_is_a_revision_and_the_last_one_is_final(twin_run):
    sink = Sink()
    reports, statuses = run(twin_run, sink)
    assert reports == []
    assert sink.closed
    assert [r.changed for r in sink.revisions] == [*((k,) for k in range(ENERGIES)), ()]
    assert [r.final for r in sink.revisions] == [False] * ENERGIES + [True]
    assert [r.attributes["energies_done"] for r in sink.revisions] == [1, 2, 3, 4, 5, 6, 6]
    assert {r.raw_uid for r in sink.revisions} == {twin_run[0][1]["uid"]}
    assert statuses[-1].finished
    assert statuses[-1].frames_written == statuses[-1].frames_reconstructed == ENERGIES * POSITIONS
    assert statuses[-1].frames_lost == statuses[-1].frames_behind == 0


def test_maps_begin_when_there_are_energies_enough(twin_run):
    sink = Sink()
    run(twin_run, sink)
    assert ["maps/edge_energy" in r.arrays for r in sink.revisions] == [False] * 4 + [True] * 3
    for done, revision in enumerate(sink.revisions[:ENERGIES], 1):
        measured = np.isfinite(revision.arrays["absorbance"]).all(axis=(1, 2))
        np.testing.assert_array_equal(np.flatnonzero(measured), np.arange(done))


def test_a_revision_is_not_altered_afterwards(twin_run):
    kept, sums = Sink(), []

    class Summing(Sink):
        def write(self, revision):
            sums.append({name: np.nansum(array) for name, array in revision.arrays.items()})

    run(twin_run, kept, Summing())
    for revision, before in zip(kept.revisions, sums, strict=True):
        assert {name: np.nansum(array) for name, array in revision.arrays.items()} == before


def test_an_energy_that_fails_is_lost_and_told_and_the_others_go_on(twin_run):
    sink = Sink()
    reports, statuses = run(darken(twin_run, 0, 3), sink)
    assert [report.partition(": not reconstructed: incident intensity")[0] for report in reports] == [
        "P1, 5420.00 eV",
        "P1, 5474.00 eV",
    ]
    assert [r.changed for r in sink.revisions] == [(1,), (2,), (), (4,), (5,), ()]
    assert statuses[-1].energies_done == ENERGIES - 2
    assert statuses[-1].frames_lost == 2 * POSITIONS
    assert sink.revisions[-1].attributes["frames_lost"] == 2 * POSITIONS
    assert np.isnan(sink.revisions[-1].arrays["absorbance"][[0, 3]]).all()


def test_a_missing_file_loses_all_and_names_it(twin_run, tmp_path):
    documents = copy.deepcopy(twin_run)
    (resource,) = [doc for name, doc in documents if name == "stream_resource"]
    resource["uri"] = f"file://localhost{tmp_path}/gone.h5"
    sink = Sink()
    reports, statuses = run(documents, sink)
    assert len(reports) == ENERGIES
    assert all(f"{tmp_path}/gone.h5: cannot read /entry/data/data" in report for report in reports)
    assert sink.revisions == []
    assert statuses[-1].finished
    assert statuses[-1].frames_lost == ENERGIES * POSITIONS


def test_maps_that_cannot_be_made_are_told_and_the_images_come_all_the_same(twin_run):
    documents = copy.deepcopy(twin_run)
    documents[0][1]["ptychrome"] |= {"element": "V", "edge": "Q7"}  # there is no such edge
    sink = Sink()
    reports, _ = run(documents, sink)
    assert len(reports) == 2  # with five and with six energies
    assert all("maps not updated" in report and "Q7" in report for report in reports)
    assert sink.revisions[-1].final
    assert sink.revisions[-1].attributes["energies_done"] == ENERGIES
    assert not [name for name in sink.revisions[-1].arrays if name.startswith("maps/")]


def test_a_failing_sink_is_told_once_and_leaves_the_others_going(twin_run):
    broken, sink = Sink(), Sink()
    broken.broken = OSError("no space left on device")
    reports, _ = run(twin_run, broken, sink)
    assert reports == ["Sink: results not written: no space left on device"]
    assert len(sink.revisions) == ENERGIES + 1
    assert broken.closed


def test_a_sink_that_works_again_gets_the_slices_it_missed(twin_run, monkeypatch):
    monkeypatch.setattr(pipeline_module, "SINK_RETRY_S", 0.0)
    sink, reports = Sink(), []
    pipeline = Pipeline(RECIPE, InlineExecutor(), [sink], report=reports.append)
    written = 0
    for name, doc in twin_run:
        sink.broken = OSError("disk full") if 2 <= written < 4 else None
        pipeline(name, doc)
        written = pipeline_done(pipeline)
    pipeline.close()
    assert reports == ["Sink: results not written: disk full"]
    assert [r.changed for r in sink.revisions] == [(0,), (1,), (2, 3, 4), (5,), ()]


def pipeline_done(pipeline):
    return max((len(run.energies) for run in pipeline._runs), default=0)


def test_a_sink_rests_after_a_failure_but_gets_the_final_revision(twin_run, monkeypatch):
    monkeypatch.setattr(pipeline_module, "SINK_RETRY_S", np.inf)
    sink, reports = Sink(), []
    pipeline = Pipeline(RECIPE, InlineExecutor(), [sink], report=reports.append)
    sink.broken = OSError("disk full")
    for name, doc in twin_run:
        if pipeline_done(pipeline) == 2:
            sink.broken = None
        pipeline(name, doc)
    pipeline.close()
    (final,) = sink.revisions
    assert final.final
    assert final.changed == tuple(range(ENERGIES))


def test_two_runs_at_once_stay_apart(twin_run, another_run):
    alone, together = MemorySink(), MemorySink()
    run(twin_run, alone)
    mixed = [document for pair in zip(twin_run, another_run, strict=True) for document in pair]
    reports, statuses = run(mixed, together)
    assert reports == []
    uids = [documents[0][1]["uid"] for documents in (twin_run, another_run)]
    assert together.revisions == dict.fromkeys(uids, ENERGIES + 1)
    assert {status.raw_uid for status in statuses if status.finished} == set(uids)
    (expected,) = alone.latest.values()
    for uid in uids:
        for name in ("absorbance", "phase", "probe"):
            np.testing.assert_array_equal(together.latest[uid].arrays[name], expected.arrays[name])


def test_a_run_that_stops_early_is_finished_with_what_it_has(twin_run):
    frames = [number for number, (name, _) in enumerate(twin_run) if name == "stream_datum"]
    cut = frames[2 * POSITIONS + 3]
    sink = Sink()
    reports, statuses = run([*twin_run[:cut], twin_run[-1]], sink)
    assert reports == []
    assert sink.revisions[-1].final
    assert sink.revisions[-1].attributes["energies_done"] == 3
    assert sink.revisions[-1].tables["quality/energies"]["frames"].tolist() == [POSITIONS, POSITIONS, 3]
    assert statuses[-1].frames_lost == 0


def test_other_plans_are_none_of_its_business(twin_run):
    documents = copy.deepcopy(twin_run)
    del documents[0][1]["ptychrome"]
    sink = Sink()
    assert run(documents, sink) == ([], [])
    assert sink.revisions == []


def test_a_start_that_is_not_valid_is_told_once(twin_run):
    documents = copy.deepcopy(twin_run)
    documents[0][1]["ptychrome"]["geometry"]["distance_m"] = -1.0
    reports, statuses = run(documents, Sink())
    (report,) = reports
    assert report.startswith("live analysis: start document not understood: ")
    assert "geometry.distance_m" in report
    assert statuses == []


def test_the_first_energy_is_alone_and_then_no_more_are_handed_out_than_asked(twin_run):
    executor, sink, reports = LateExecutor(), Sink(), []
    pipeline = Pipeline(RECIPE, executor, [sink], in_flight=2, report=reports.append)
    for name, doc in twin_run:
        pipeline(name, doc)
    assert len(executor.tasks) == 1  # all others start from it
    executor.finish_all()
    pipeline.poll()
    assert len(executor.tasks) == 2
    while executor.tasks:
        executor.finish_all(newest_first=True)
        pipeline.poll()
    assert executor.most == 2
    # energies that finish together share a revision
    assert [r.changed for r in sink.revisions] == [(0,), (1, 2), (3, 4), (5,)]
    assert sink.revisions[-1].final
    assert reports == []


def test_an_executor_that_takes_nothing_more_loses_energies_but_nothing_hangs(twin_run):
    executor = InlineExecutor()
    executor.submit = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no new futures after shutdown"))
    reports, statuses = run(twin_run, Sink(), executor=executor)
    assert len(reports) == ENERGIES
    assert all("not reconstructed: no new futures after shutdown" in report for report in reports)
    assert statuses[-1].finished
    assert statuses[-1].frames_lost == ENERGIES * POSITIONS


def test_it_wakes_whoever_polls(twin_run):
    executor, woken = LateExecutor(), []
    pipeline = Pipeline(RECIPE, executor, [], wake=lambda: woken.append(True), report=pytest.fail)
    for name, doc in twin_run[: len(twin_run) // 2]:
        pipeline(name, doc)
    assert woken == []
    executor.finish_all()
    assert woken == [True]
