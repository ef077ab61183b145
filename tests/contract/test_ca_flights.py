"""Fly scans through Channel Access: as those of the in-process twin, and safe when interrupted."""

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.preprocessors import plan_mutator
from bluesky.utils import FailedStatus, RunEngineInterrupted

from ptychrome.callbacks.intake import Intake
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import fly_spectro_ptycho, positions, rows

ENERGIES = [5420.0, 5465.5]
TRAJECTORY = rows(4e-7, 1e-7, 2e-7)  # 3 lines of 5 frames
MASK = "/entry/instrument/detector/detectorSpecific/pixel_mask"
FRAMES = 30


def scan(beamline, **options):
    options = {
        "energies": ENERGIES,
        "trajectory": TRAJECTORY,
        "exposure_s": 0.01,
        "sample_name": "P1",
    } | options
    return fly_spectro_ptycho(beamline.flyer, beamline.dcm, **options)


def stored(documents):
    (resource,) = documents.of("stream_resource")
    # a file that somebody still has open for writing cannot be opened for writing again
    with h5py.File(resource["uri"].removeprefix("file://localhost"), "r+") as file:
        return file[resource["parameters"]["dataset"]][()], file[MASK][()] == 0


def check_complete(documents):
    """Every position once, each with the frame whose sum its event carries."""
    events, frames = documents.events(), documents.frames()
    assert sorted(events) == sorted(frames) == list(range(1, FRAMES + 1))
    announced = [
        index
        for datum in documents.of("stream_datum")
        for index in range(datum["indices"]["start"], datum["indices"]["stop"])
    ]
    images, good = stored(documents)
    assert announced == list(range(len(images)))
    sums = images.sum(axis=(1, 2), where=good & (images < 2**32 - 1), dtype=np.uint64)
    assert [events[n]["data"]["eiger_total"] for n in events] == [sums[frames[n]] for n in events]
    intake = Intake.from_start(documents.start)
    jobs = [job for name, doc in documents.all for job in intake(name, doc)]
    assert [(job.complete, len(job.frames)) for job in jobs] == [(True, 15), (True, 15)]


@pytest.fixture
def engine(documents):
    RE = RunEngine({})
    RE.subscribe(documents)
    return RE


def test_documents_and_frames_are_those_of_the_twin(ca, engine, documents, collect, tmp_path):
    twin = collect()
    RunEngine({})(scan(simulated_beamline(TwinBeamline("P1", frame_pixels=48), tmp_path)), twin)
    engine(scan(ca))
    check_complete(documents)
    assert [name for name, _ in documents.all] == [name for name, _ in twin.all]
    assert documents.frames() == twin.frames()
    for number, event in twin.events().items():
        ours = documents.events()[number]["data"]
        assert {**ours, "eiger_total": 0} == {**event["data"], "eiger_total": 0}  # to the bit
    (ours, mask), (theirs, other_mask) = stored(documents), stored(twin)
    np.testing.assert_array_equal(mask, other_mask)
    # the last bit of a float32 sum may differ between processes, and with it a photon: 1 of 3e7 was seen
    assert np.abs(ours.astype(np.int64) - theirs).sum() <= 3
    assert ca.eiger.cam.trigger_mode.get() == 0  # as found
    assert ca.shutter.is_open.get() == 0


def test_a_pause_in_a_line_flies_it_again(ca, engine, documents, simulate):
    """0.5 s exposures in real time, paused in the second frame of the first line."""
    simulate("Clock", 1.0)
    images = []

    def pause(value, **_):
        images.append(value)
        if value == 2 and len(images) < 10:
            engine.request_pause()

    ca.eiger.hdf1.num_captured.subscribe(pause, run=False)
    try:
        with pytest.raises(RunEngineInterrupted):
            engine(scan(ca, exposure_s=0.5))
    finally:
        ca.eiger.hdf1.num_captured.clear_sub(pause)
    assert ca.shutter.is_open.get() == 0
    simulate("Clock", 0.0)
    engine.resume()
    check_complete(documents)
    assert FRAMES < len(stored(documents)[0]) < FRAMES + 5


def at_kickoff(occurrence, act):
    """A preprocessor that does something before the n-th line is flown."""
    seen = 0

    def insert(msg):
        nonlocal seen
        seen += msg.command == "kickoff"
        if msg.command == "kickoff" and seen == occurrence:
            act()
        return None, None

    return lambda plan: plan_mutator(plan, insert)


@pytest.mark.parametrize(("line", "lost"), [(1, 1), (5, 3), (6, 5)])
def test_a_line_that_lost_frames_is_flown_again(ca, connect, engine, documents, simulate, caplog, line, lost):
    """No position is lost or doubled; the frames of the first flight are announced and do not count."""
    impatient = connect(flyer={"patience_s": 1.0}, eiger={"retries": 1})
    engine.preprocessors.append(at_kickoff(line, lambda: simulate("DropFrames", lost)))
    engine(scan(impatient))
    assert documents.stop["exit_status"] == "success"
    check_complete(documents)
    assert len(stored(documents)[0]) == FRAMES + 5 - lost
    (told,) = [record.getMessage() for record in caplog.records if "is flown again" in record.getMessage()]
    assert told.startswith(f"flyer: 5 frames planned, 5 triggered, {5 - lost} in the file")
    x, y = (
        [event["data"][f"stage_{axis}"] for _, event in sorted(documents.events().items())] for axis in "xy"
    )
    # the way along a line is a sum of floats: some units in the last place of a micron
    np.testing.assert_allclose(np.c_[x, y], np.tile(positions(TRAJECTORY), (2, 1)), rtol=0, atol=1e-20)


def test_frames_lost_again_and_again_end_the_scan(ca, connect, engine, documents, simulate):
    impatient = connect(flyer={"patience_s": 1.0}, eiger={"retries": 1})
    engine.preprocessors.append(at_kickoff(2, lambda: simulate("DropFrames", 6)))
    with pytest.raises(FailedStatus) as failure:
        engine(scan(impatient))
    cause = str(failure.value.__cause__)
    assert "5 frames planned, 5 triggered, 4 in the file" in cause
    assert "1 retries" in cause
    assert documents.stop["exit_status"] == "fail"
    assert len(documents.events()) == 5  # the line before
    assert ca.shutter.is_open.get() == 0
    assert ca.eiger.cam.acquire.get() == ca.eiger.hdf1.capture.get() == 0
