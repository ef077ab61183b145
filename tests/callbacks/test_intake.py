"""Documents to complete energies: pairing by identity, repeats, gaps, and references to static arrays."""

import copy
import random
from collections import defaultdict
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import numpy as np
import pytest
from event_model import pack_event_page

from ptychrome.callbacks.intake import Intake, IntakeError
from ptychrome.schema import SchemaError

POSITIONS, ENERGIES = 16, 6


def take_all(documents):
    """The intake of a run, and for every document that completed energies the jobs it gave."""
    intake = Intake.from_start(documents[0][1])
    jobs = []
    for name, doc in documents:
        jobs += intake(name, doc)
    return intake, jobs


def primary(documents):
    (uid,) = [doc["uid"] for name, doc in documents if name == "descriptor" and doc["name"] == "primary"]
    return uid


def events(documents):
    uid = primary(documents)
    return [doc for name, doc in documents if name == "event" and doc["descriptor"] == uid]


def same(job, other):
    assert job.index == other.index
    assert job.frames == other.frames
    np.testing.assert_array_equal(job.stage_yx_m, other.stage_yx_m)
    np.testing.assert_array_equal(job.i0, other.i0)


def test_a_whole_run_gives_every_energy_once_in_order(twin_run):
    intake, jobs = take_all(twin_run)
    assert [job.index for job in jobs] == list(range(ENERGIES))
    assert [job.energy_eV for job in jobs] == list(intake.metadata.energies_eV)
    assert all(job.complete for job in jobs)
    assert intake.frames_seen == ENERGIES * POSITIONS
    for job in jobs:
        data = [event["data"] for event in events(twin_run)[POSITIONS * job.index :][:POSITIONS]]
        np.testing.assert_array_equal(job.stage_yx_m, [(d["stage_y"], d["stage_x"]) for d in data])
        np.testing.assert_array_equal(job.i0, [d["i0"] for d in data])
        assert [frame for _, frame in job.frames] == [
            POSITIONS * job.index + position for position in range(POSITIONS)
        ]


def test_a_job_leads_to_the_frames_and_the_mask_of_its_energy(twin_run):
    _, jobs = take_all(twin_run)
    totals = [event["data"]["eiger_total"] for event in events(twin_run)]
    file, frame = jobs[3].frames[5]
    assert (file.dark, file.probe) == (None, None)
    assert file.mask is not None
    with h5py.File(file.path) as handle:
        good = handle[file.mask][()] == 0
        image = handle[file.dataset][frame]
    assert image[good].sum() == totals[3 * POSITIONS + 5]


def test_an_energy_is_complete_when_its_last_frame_has_its_event_whatever_comes_first(twin_run):
    expected = take_all(twin_run)[1]
    first = [(name, doc) for name, doc in twin_run if name in ("start", "descriptor", "stream_resource")]
    rest = [pair for pair in twin_run if pair[0] in ("event", "stream_datum")]
    for seed in range(3):
        shuffled = random.Random(seed).sample(rest, len(rest))
        _, jobs = take_all(first + shuffled)
        assert len(jobs) == ENERGIES
        for job in jobs:
            same(job, expected[job.index])


def test_the_last_of_repeated_positions_counts(twin_run):
    """What the RunEngine does after a pause: the same seq_num again, with another frame."""
    documents = copy.deepcopy(twin_run)
    datum = next(doc for name, doc in documents if name == "stream_datum")
    event = events(documents)[0]
    place = documents.index(("event", event)) + 1
    again = copy.deepcopy(event)
    again["data"]["stage_x"] += 5e-9
    again["data"]["i0"] *= 2
    frame = {**datum, "indices": {"start": 700, "stop": 701}}
    documents[place:place] = [("stream_datum", frame), ("event", again)]
    intake, jobs = take_all(documents)
    assert intake.frames_seen == ENERGIES * POSITIONS
    assert len(jobs) == ENERGIES
    assert jobs[0].frames[0][1] == 700
    assert jobs[0].stage_yx_m[0, 1] == again["data"]["stage_x"]
    assert jobs[0].i0[0] == again["data"]["i0"]
    assert [frame for _, frame in jobs[0].frames[1:]] == list(range(1, POSITIONS))


def test_pages_of_events_are_events(twin_run):
    uid = primary(twin_run)
    pages, pending = [], []
    for name, doc in twin_run:
        if name == "event" and doc["descriptor"] == uid:
            pending.append(doc)
            if len(pending) == 10:
                pages.append(("event_page", pack_event_page(*pending)))
                pending = []
        elif name == "stop":
            pages += [("event_page", pack_event_page(*pending)), (name, doc)]
        else:
            pages.append((name, doc))
    expected = take_all(twin_run)[1]
    jobs = take_all(pages)[1]
    assert len(jobs) == ENERGIES
    for job, other in zip(jobs, expected, strict=True):
        same(job, other)


def test_frames_announced_in_one_go_are_paired_one_by_one(twin_run):
    """A fast detector tells of many frames at once, with a frame number that does not start at 0."""
    (datum,) = [doc for name, doc in twin_run if name == "stream_datum"][:1]
    count = ENERGIES * POSITIONS
    whole = {**datum, "indices": {"start": 3, "stop": 3 + count}, "seq_nums": {"start": 1, "stop": 1 + count}}
    documents = [pair for pair in twin_run if pair[0] not in ("stream_datum", "stop")]
    intake, jobs = take_all(documents)
    assert (intake.frames_seen, jobs) == (0, [])
    jobs = intake("stream_datum", whole)
    assert [job.index for job in jobs] == list(range(ENERGIES))
    assert [frame for job in jobs for _, frame in job.frames] == list(range(3, 3 + count))


def test_a_run_that_ends_early_gives_what_there_is_of_its_last_energy(twin_run):
    last = events(twin_run)[2 * POSITIONS + 3]
    cut = twin_run[: twin_run.index(("event", last)) + 1]
    _, jobs = take_all([*cut, twin_run[-1]])
    assert [(job.index, job.complete, len(job.frames)) for job in jobs] == [
        (0, True, POSITIONS),
        (1, True, POSITIONS),
        (2, False, 4),
    ]


def test_a_position_without_its_frame_does_not_count(twin_run):
    lost = [doc for name, doc in twin_run if name == "stream_datum"][POSITIONS + 2]
    documents = [(name, doc) for name, doc in twin_run if doc is not lost]
    intake, jobs = take_all(documents)
    assert intake.frames_seen == ENERGIES * POSITIONS - 1
    late = jobs[-1]  # with the stop document
    assert (late.index, late.complete, len(late.frames)) == (1, False, POSITIONS - 1)
    assert POSITIONS + 2 not in [frame for _, frame in late.frames]


def test_an_energy_that_was_not_planned_is_refused_and_named(twin_run):
    intake = Intake.from_start(twin_run[0][1])
    first = events(twin_run)[0]
    for name, doc in twin_run[: twin_run.index(("event", first))]:
        intake(name, doc)
    wrong = {**first, "data": {**first["data"], "dcm_energy_setpoint": 5600.0}}
    with pytest.raises(IntakeError, match=r"event at 5600.0 eV is none of the planned energies .5420.00 to"):
        intake("event", wrong)


def test_a_setpoint_that_rounds_finds_its_energy(twin_run):
    documents = copy.deepcopy(twin_run)
    for number, event in enumerate(events(documents)):
        event["data"]["dcm_energy_setpoint"] += 1e-6 * (-1) ** number
    assert [len(job.frames) for job in take_all(documents)[1]] == [POSITIONS] * ENERGIES


def test_other_streams_and_other_detectors_are_left_alone(twin_run):
    documents = copy.deepcopy(twin_run)
    (resource,) = [doc for name, doc in documents if name == "stream_resource"]
    stray = {**resource, "uid": "stray", "data_key": "camera_image"}
    strays = [
        ("stream_resource", stray),
        ("stream_datum", {**documents[0][1], "uid": "stray/0", "stream_resource": "stray"}),
        ("event", {"descriptor": "nobody's", "seq_num": 1, "data": {}}),
    ]
    documents[5:5] = strays
    names = defaultdict(int)
    for name, _ in documents:
        names[name] += 1
    assert names["stream_resource"] == 2
    assert [len(job.frames) for job in take_all(documents)[1]] == [POSITIONS] * ENERGIES


@pytest.mark.parametrize("uri", ["file://localhost/data/a%20b/%C3%A4.h5", "file:///data/a%20b/%C3%A4.h5"])
def test_the_configuration_names_mask_dark_and_probe(twin_run, uri):
    documents = copy.deepcopy(twin_run)
    (descriptor,) = [d for name, d in documents if name == "descriptor" and d["name"] == "primary"]
    data = descriptor["configuration"]["eiger"]["data"]
    data |= {"eiger_image_dark_dataset": "/entry/dark", "eiger_image_probe_dataset": "/entry/probe"}
    (resource,) = [doc for name, doc in documents if name == "stream_resource"]
    resource["uri"] = uri
    file, _ = take_all(documents)[1][0].frames[0]
    assert file.path == Path("/data/a b/ä.h5")
    assert file.dataset == "/entry/data/data"
    assert file.mask == data["eiger_image_mask_dataset"]
    assert (file.dark, file.probe) == ("/entry/dark", "/entry/probe")


def test_a_start_without_the_block_is_refused(twin_run):
    start = {key: value for key, value in twin_run[0][1].items() if key != "ptychrome"}
    with pytest.raises(SchemaError, match="no 'ptychrome' block"):
        Intake.from_start(start)
