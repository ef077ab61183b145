"""Fly scans through Channel Access: as those of the in-process twin, and safe when interrupted."""

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted

from ptychrome.callbacks.intake import Intake
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import fly_spectro_ptycho, rows

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


def test_a_lost_frame_ends_the_scan_with_a_clear_message(ca, engine, documents, simulate):
    ca.flyer._patience_s, patience_s = 1.0, ca.flyer._patience_s
    simulate("DropFrames", 1)
    try:
        with pytest.raises(FailedStatus) as failure:
            engine(scan(ca))
    finally:
        ca.flyer._patience_s = patience_s
    assert "5 frames planned, 5 triggered, 4 in the file" in str(failure.value.__cause__)
    assert documents.events() == {}
    assert ca.shutter.is_open.get() == 0
    assert ca.eiger.cam.acquire.get() == ca.eiger.hdf1.capture.get() == 0
