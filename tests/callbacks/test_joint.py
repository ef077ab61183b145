"""A run whose energies are refined together: rounds, revisions, failures. Takes 30 s."""

from typing import Any

import numpy as np
import pytest

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks import pipeline as pipeline_module
from ptychrome.callbacks.executors import InlineExecutor
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.reconstruct import refine

POSITIONS = 16
ENERGIES_EV = [5420.0, 5440.0, 5455.0, 5462.0, 5467.0, 5474.0, 5478.0, 5482.0, 5500.0, 5530.0]
N = len(ENERGIES_EV)
ROUNDS = 2
SINGLE = {
    "name": "fast",
    "n_clusters": 2,
    "reconstruct": [{"engine": "epie", "sweeps": 3}],
    "warm": [{"engine": "ml", "sweeps": 2, "pixel_points": 1}],
}
JOINT = {"rounds": ROUNDS, "refine": [{"engine": "ml", "sweeps": 1, "pixel_points": 1}]}


class Sink:
    def __init__(self):
        self.revisions = []

    def write(self, revision):
        self.revisions.append(revision)

    def close(self):
        pass


def run(documents, joint: dict[str, Any] | None = None):
    """Everything through a pipeline; its revisions and what it reported."""
    sink, reports, statuses = Sink(), [], []
    recipe = Recipe.model_validate(SINGLE if joint is None else SINGLE | {"joint": joint})
    pipeline = Pipeline(recipe, InlineExecutor(), [sink], report=reports.append, on_status=statuses.append)
    for name, doc in documents:
        pipeline(name, doc)
    pipeline.close()
    return sink.revisions, reports, statuses


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """A scan of ten energies of 16 frames of 48² pixels."""
    from bluesky import RunEngine

    from ptychrome.devices.simulated import simulated_beamline
    from ptychrome.devices.twin import TwinBeamline
    from ptychrome.plans import spectro_ptycho, square

    beamline = simulated_beamline(TwinBeamline("P1", frame_pixels=48), tmp_path_factory.mktemp("joint_run"))
    documents: list[tuple[str, dict[str, Any]]] = []
    RE = RunEngine()
    RE.subscribe(lambda name, doc: documents.append((name, doc)))
    RE(
        spectro_ptycho(
            [beamline.eiger],
            beamline.dcm,
            beamline.stage,
            energies=ENERGIES_EV,
            trajectory=square(600e-9, 200e-9),
            sample_name="P1",
        )
    )
    return documents


@pytest.fixture(scope="module")
def alone(documents):
    """The last revision of the same run without a joint refinement."""
    revisions, reports, _ = run(documents)
    assert reports == []
    return revisions[-1]


@pytest.fixture(scope="module")
def together(documents):
    return run(documents, JOINT)


def test_rounds_follow_the_last_energy_and_each_is_a_revision(together):
    revisions, reports, statuses = together
    assert reports == []
    assert [r.changed for r in revisions] == [*((k,) for k in range(N)), *[tuple(range(N))] * ROUNDS]
    assert [r.final for r in revisions] == [False] * (N + ROUNDS - 1) + [True]
    assert [r.attributes["joint_rounds"] for r in revisions] == [0] * N + [1, 2]
    assert statuses[-1].finished
    assert statuses[-1].frames_reconstructed == N * POSITIONS


def test_a_run_is_not_finished_between_rounds(together):
    _, _, statuses = together
    finished = [status.finished for status in statuses]
    assert finished == sorted(finished)
    assert sum(finished) == 1


def test_results_tell_of_the_model(together, alone):
    revisions, _, _ = together
    final = revisions[-1]
    strength, residual = (final.arrays[f"quality/spectral_{name}"] for name in ("strength", "residual"))
    assert strength.shape == (2 * N,)
    assert residual.shape == final.arrays["absorbance"].shape[1:]
    assert np.nanmedian(residual) == pytest.approx(1)
    assert np.isnan(residual).any()
    assert final.attributes["options"]["joint"]["rounds"] == ROUNDS
    assert "quality/spectral_residual" not in alone.arrays
    assert "quality/spectral_residual" not in revisions[N - 1].arrays
    assert alone.attributes["joint_rounds"] == 0


def test_energies_go_on_from_where_they_were(together, alone):
    """One sweep a round, at each energy, is seen in the convergence."""
    revisions, _, _ = together
    sweeps = np.isfinite(revisions[-1].arrays["quality/error"]).sum(axis=1)
    np.testing.assert_array_equal(sweeps, np.isfinite(alone.arrays["quality/error"]).sum(axis=1) + ROUNDS)
    before, after = alone.arrays["quality/error"], revisions[-1].arrays["quality/error"]
    last = [[row[np.isfinite(row)][-1] for row in error] for error in (before, after)]
    assert np.mean(last[1]) < np.mean(last[0])


def test_maps_are_those_of_the_model(together):
    """Images stay what was reconstructed; in the maps there is only what the model says."""
    revisions, _, _ = together
    first, last = revisions[N - 1].arrays, revisions[-1].arrays
    assert np.isfinite(last["object"]).all()
    assert first["maps/fitted"].any()
    assert not np.array_equal(last["maps/edge_energy"], first["maps/edge_energy"], equal_nan=True)
    for name in ("edge_energy", "n_v"):
        fitted = last["maps/fitted"] == 1
        assert np.isfinite(last[f"maps/{name}"][fitted]).all()


def test_a_revision_is_not_altered_by_the_next_round(documents):
    sums = []

    class Summing(Sink):
        def write(self, revision):
            super().write(revision)
            sums.append({name: np.nansum(array) for name, array in revision.arrays.items()})

    sink = Summing()
    recipe = Recipe.model_validate(SINGLE | {"joint": JOINT})
    pipeline = Pipeline(recipe, InlineExecutor(), [sink], report=pytest.fail)
    for name, doc in documents:
        pipeline(name, doc)
    pipeline.close()
    for revision, before in zip(sink.revisions, sums, strict=True):
        assert {name: np.nansum(array) for name, array in revision.arrays.items()} == before


def test_a_refinement_that_fails_is_told_and_leaves_its_energy_as_it_was(documents, together, monkeypatch):
    def failing(task, recipe):
        if task.energy_eV == ENERGIES_EV[4]:
            raise RuntimeError("worker lost")
        return refine(task, recipe)

    monkeypatch.setattr(pipeline_module, "refine", failing)
    revisions, reports, statuses = run(documents, JOINT)
    assert reports == ["P1, 5467.00 eV: not refined: worker lost"] * ROUNDS
    assert revisions[-1].final
    assert revisions[-1].attributes["energies_done"] == N
    assert statuses[-1].frames_lost == 0
    sweeps, usual = (np.isfinite(r[-1].arrays["quality/error"]).sum(axis=1) for r in (revisions, together[0]))
    assert (usual - sweeps).tolist() == [ROUNDS if k == 4 else 0 for k in range(N)]
    assert np.isfinite(revisions[-1].arrays["object"]).all()


def test_too_few_energies_are_told_once_and_keep_the_results_of_the_single_ones(twin_run):
    revisions, reports, statuses = run(twin_run, JOINT)
    single, _, _ = run(twin_run)
    (report,) = reports
    assert report.startswith("P1: energies not refined together: 6 energies and ")
    assert "8 energies" in report
    assert revisions[-1].final
    assert statuses[-1].finished
    assert revisions[-1].attributes["joint_rounds"] == 0
    for name, array in single[-1].arrays.items():
        np.testing.assert_array_equal(revisions[-1].arrays[name], array, err_msg=name)


def test_energies_that_were_lost_leave_the_others_refined(documents):
    """The rows of the model are those of the energies that are there."""
    kept = [(name, doc if name != "event" else {**doc, "data": dict(doc["data"])}) for name, doc in documents]
    uid = next(doc["uid"] for name, doc in kept if name == "descriptor" and doc["name"] == "primary")
    for name, doc in kept:
        if name == "event" and doc["descriptor"] == uid and (doc["seq_num"] - 1) // POSITIONS == 2:
            doc["data"]["i0"] = 0.0
    revisions, reports, _ = run(kept, JOINT)
    assert [report.partition(":")[0] for report in reports] == ["P1, 5455.00 eV"]
    done = [k for k in range(N) if k != 2]
    assert revisions[-1].changed == tuple(done)
    assert np.isnan(revisions[-1].arrays["object"][2]).all()
    assert np.isfinite(revisions[-1].arrays["object"][done]).all()
    assert len(revisions[-1].arrays["quality/spectral_strength"]) == 2 * (N - 1)


def test_rounds_of_vacuum_alone(documents, together):
    revisions, reports, _ = run(documents, JOINT | {"vacuum_rounds": ROUNDS})
    assert reports == []
    assert revisions[-1].final
    assert not np.array_equal(revisions[-1].arrays["object"], together[0][-1].arrays["object"])


def test_the_model_in_place_of_the_object_as_in_the_paper(documents, together):
    joint = JOINT | {"apply": "replace", "spectral": {"low_rank": False}}
    revisions, reports, _ = run(documents, joint)
    assert reports == []
    assert [r.final for r in revisions] == [False] * (N + ROUNDS - 1) + [True]
    assert revisions[-1].attributes["joint_rounds"] == ROUNDS
    ours, other = revisions[-1].arrays["object"], together[0][-1].arrays["object"]
    assert np.isfinite(ours).all()
    assert not np.array_equal(ours, other)
