"""The state of one run: places on the energy axis, neighbours, statuses and what a revision holds."""

import copy

import numpy as np
import pytest

from ptychrome.analysis.options import StackOptions
from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.reconstruct import reconstruct
from ptychrome.callbacks.run_analysis import RunAnalysis

POSITIONS, N = 16, 48
RECIPE = Recipe.model_validate({"name": "fast", "reconstruct": [{"engine": "epie", "sweeps": 2}]})


@pytest.fixture(scope="module")
def downwards(twin_run):
    """The run as if it had been planned, and measured, from the highest energy to the lowest."""
    documents = copy.deepcopy(twin_run)
    planned = documents[0][1]["ptychrome"]["energies_eV"]
    mirror = dict(zip(planned, planned[::-1], strict=True))
    documents[0][1]["ptychrome"]["energies_eV"] = planned[::-1]
    for name, doc in documents:
        if name == "event" and "dcm_energy_setpoint" in doc["data"]:
            doc["data"]["dcm_energy_setpoint"] = mirror[doc["data"]["dcm_energy_setpoint"]]
    return documents


def begin(documents, energies=99):
    """A run with its first energies in it, and all of its jobs."""
    run = RunAnalysis.from_start(documents[0][1], RECIPE)
    jobs = [job for name, doc in documents if name != "stop" for job in run.take(name, doc)]
    for job in jobs[:energies]:
        run.outstanding -= 1
        run.add(reconstruct(job, RECIPE))
        run.shown([job])
    return run, jobs


def test_results_ascend_in_energy_whatever_the_order_of_the_scan(downwards):
    run, jobs = begin(downwards, energies=2)
    assert [job.energy_eV for job in jobs[:2]] == [5501.0, 5479.0]
    revision = run.revision((4, 5))
    np.testing.assert_array_equal(revision.arrays["energy"], sorted(job.energy_eV for job in jobs))
    measured = np.isfinite(revision.arrays["absorbance"]).all(axis=(1, 2))
    assert measured.tolist() == [False] * 4 + [True] * 2
    table = revision.tables["quality/energies"]
    assert table["energy_eV"].tolist() == [5479.0, 5501.0]
    assert table["frames"].tolist() == [POSITIONS] * 2
    assert (table["lag_s"] >= 0).all()


@pytest.mark.parametrize(
    ("of_start", "of_recipe", "expected"), [(None, None, 0.0), (-0.53, None, -0.53), (-0.53, 0.0, 0.0)]
)
def test_a_foil_corrects_the_energies_of_the_results(downwards, of_start, of_recipe, expected):
    documents = copy.deepcopy(downwards)
    if of_start is not None:
        documents[0][1]["ptychrome"]["energy_offset_eV"] = of_start
    recipe = RECIPE.model_copy(update={"stack": StackOptions(energy_offset_eV=of_recipe)})
    run = RunAnalysis.from_start(documents[0][1], recipe)
    jobs = [job for name, doc in documents if name != "stop" for job in run.take(name, doc)]
    run.add(reconstruct(jobs[1], recipe))
    assert run.places_of([jobs[1]]) == (4,)
    revision = run.revision((4,))
    planned = sorted(documents[0][1]["ptychrome"]["energies_eV"])
    np.testing.assert_allclose(revision.arrays["energy"], np.array(planned) + expected)
    assert revision.attributes["energy_offset_eV"] == expected
    assert (revision.attributes["element"], revision.attributes["edge"]) == ("V", "K")


def test_the_neighbour_is_the_nearest_finished_energy(downwards):
    run, jobs = begin(downwards, energies=0)
    assert run.neighbour(jobs[0]) is None
    for job in (jobs[0], jobs[3]):
        run.add(reconstruct(job, RECIPE))
    assert run.neighbour(jobs[1]).index == 0
    assert run.neighbour(jobs[2]).index == 3
    assert run.neighbour(jobs[5]).index == 3


def test_a_stack_is_as_long_as_planned_and_nan_where_not_measured(twin_run):
    run, _ = begin(twin_run, energies=1)
    arrays = run.revision((0,)).arrays
    assert arrays["probe"].shape == (6, 1, N, N)
    assert arrays["object"].dtype == arrays["probe"].dtype == np.complex64
    assert arrays["quality/error"].shape == (6, 2)
    for name in ("object", "probe", "absorbance", "phase", "quality/error"):
        assert np.isfinite(arrays[name][0]).all(), name
        assert np.isnan(arrays[name][1:]).all(), name
    assert arrays["object"].shape[1:] == arrays["y"].shape + arrays["x"].shape
    assert (np.diff(arrays["y"]) < 0).all()
    assert (np.diff(arrays["x"]) < 0).all()


def test_frames_are_behind_until_they_are_in_and_lost_when_they_failed(twin_run):
    run, jobs = begin(twin_run, energies=2)
    status = run.status()
    assert (status.frames_written, status.frames_reconstructed) == (6 * POSITIONS, 2 * POSITIONS)
    assert (status.frames_lost, status.frames_behind) == (0, 4 * POSITIONS)
    run.failed(jobs[2])
    run.outstanding -= 1
    assert run.status().frames_lost == POSITIONS
    assert run.status().frames_behind == 3 * POSITIONS
    assert not run.finished


def test_a_run_is_finished_after_its_stop_and_its_last_energy(twin_run):
    run, _ = begin(twin_run, energies=5)
    run.take(*twin_run[-1])
    assert not run.finished
    run.outstanding -= 1
    assert run.finished
    assert run.revision(()).final
    # whatever did not come in by then never will
    assert run.status().frames_lost == POSITIONS


def test_a_revision_says_how_it_was_made(twin_run):
    run, _ = begin(twin_run, energies=1)
    attributes = run.revision((0,)).attributes
    assert attributes["recipe"] == "fast"
    assert attributes["options"]["reconstruct"][0]["sweeps"] == 2
    assert attributes["raw_uid"] == twin_run[0][1]["uid"]
    assert (attributes["energies_done"], attributes["energies_planned"]) == (1, 6)
    assert attributes["software"].startswith("ptychrome ")
    assert (attributes["element"], attributes["edge"], attributes["preparation"]) == ("V", "K", "")


def test_the_preparation_is_what_the_start_document_says(twin_run):
    start = {**twin_run[0][1], "preparation": "delithiated"}
    assert RunAnalysis.from_start(start, RECIPE).revision(()).attributes["preparation"] == "delithiated"


def test_a_run_without_a_name_goes_by_its_uid(twin_run):
    start = {key: value for key, value in twin_run[0][1].items() if key != "sample_name"}
    assert RunAnalysis.from_start(start, RECIPE).label == start["uid"][:8]
