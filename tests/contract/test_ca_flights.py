"""Fly scans through Channel Access: as those of the twin whoever writes, and safe when interrupted."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted

from ptychrome.callbacks.intake import Intake
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import fly_spectro_ptycho, positions, rows

ENERGIES = [5420.0, 5465.5]
TRAJECTORY = rows(4e-7, 1e-7, 2e-7)  # 3 lines of 5 frames
MASK = "/entry/instrument/detector/detectorSpecific/pixel_mask"
FRAMES = 30
PER_FILE = 7  # of the FileWriter: some files have two lines, some lines have two files


def scan(beamline, **options):
    options = {
        "energies": ENERGIES,
        "trajectory": TRAJECTORY,
        "exposure_s": 0.01,
        "sample_name": "P1",
    } | options
    return fly_spectro_ptycho(beamline.flyer, beamline.dcm, **options)


@dataclass
class Flights:
    """Beamline and RunEngine, and the documents as the analysis gets them: `complete` waits for the last."""

    writer: str
    engine: RunEngine
    connect: Callable[..., Any]
    complete: Callable[[], Any]


@pytest.fixture(params=["hdf1", "filewriter", "stream"])
def flights(request, ca, connect, ioc, documents):
    engine, more, arrivals = RunEngine({}), {"writer": request.param}, None
    if request.param == "stream":
        receiver, documents, reports = request.getfixturevalue("received")
        more["stream"], arrivals = ioc.options.stream, receiver.arrivals
        engine.subscribe(receiver)
    else:
        engine.subscribe(documents)
    if request.param == "filewriter":
        more["images_per_file"] = PER_FILE

    def make(**changes):
        return connect(arrivals, **changes | {"eiger": more | changes.get("eiger", {})})

    def complete():
        if request.param == "stream":
            assert receiver.close(60)
            assert not [report for report in reports if "announced" in report]
        return documents

    return Flights(request.param, engine, make, complete)


def path_of(uri):
    return Path(uri.removeprefix("file://localhost"))


def stored(documents):
    """All frames by uid of their stream_resource, and the good pixels."""
    resources = documents.of("stream_resource")
    frames = {}
    for resource in resources:
        # a file that somebody still has open for writing cannot be opened for writing again
        with h5py.File(path_of(resource["uri"]), "r+") as file:
            frames[resource["uid"]] = file[resource["parameters"]["dataset"]][()]
    with h5py.File(path_of(resources[0]["parameters"].get("master", resources[0]["uri"]))) as file:
        return frames, file[MASK][()] == 0


def frames_of(documents):
    """The frame of each seq_num, the last one of each, in their order."""
    images, _ = stored(documents)
    found = {}
    for datum in documents.of("stream_datum"):
        numbers, indices = (range(datum[key]["start"], datum[key]["stop"]) for key in ("seq_nums", "indices"))
        for number, index in zip(numbers, indices, strict=True):
            found[number] = images[datum["stream_resource"]][index]
    assert sorted(found) == list(range(1, FRAMES + 1))
    return np.stack([found[number] for number in sorted(found)])


def check_complete(documents):
    """Every position once, each with the frame whose sum its event carries; returns the number of frames."""
    assert documents.stop["exit_status"] == "success"
    frames, events = frames_of(documents), documents.events()
    assert sorted(events) == list(range(1, FRAMES + 1))
    images, good = stored(documents)
    sums = frames.sum(axis=(1, 2), where=good & (frames < 2**32 - 1), dtype=np.uint64)
    assert [events[n]["data"]["eiger_total"] for n in sorted(events)] == sums.tolist()
    assert np.all(sums > 0)
    announced = defaultdict(list)
    for datum in documents.of("stream_datum"):
        announced[datum["stream_resource"]] += range(datum["indices"]["start"], datum["indices"]["stop"])
    # what joins files (Tiled's reader) counts their frames
    assert announced == {uid: list(range(len(frames))) for uid, frames in images.items()}
    x, y = ([events[n]["data"][f"stage_{axis}"] for n in sorted(events)] for axis in "xy")
    # the way along a line is a sum of floats: some units in the last place of a micron
    np.testing.assert_allclose(np.c_[x, y], np.tile(positions(TRAJECTORY), (2, 1)), rtol=0, atol=1e-20)
    intake = Intake.from_start(documents.start)
    jobs = [job for name, doc in documents.all for job in intake(name, doc)]
    assert [(job.complete, len(job.frames)) for job in jobs] == [(True, 15), (True, 15)]
    return sum(map(len, images.values()))


def test_documents_and_frames_are_those_of_the_twin(flights, collect, tmp_path):
    twin, beamline = collect(), flights.connect()
    frames = tmp_path / "twin"
    frames.mkdir()
    RunEngine({})(scan(simulated_beamline(TwinBeamline("P1", frame_pixels=48), frames)), twin)
    flights.engine(scan(beamline))
    documents = flights.complete()
    assert check_complete(documents) == FRAMES
    if flights.writer == "hdf1":
        assert [name for name, _ in documents.all] == [name for name, _ in twin.all]
    for number, event in twin.events().items():
        ours = documents.events()[number]["data"]
        assert {**ours, "eiger_total": 0} == {**event["data"], "eiger_total": 0}  # to the bit
    np.testing.assert_array_equal(stored(documents)[1], stored(twin)[1])
    # the last bit of a float32 sum may differ between processes, and with it a photon: 1 of 3e7 was seen
    assert np.abs(frames_of(documents).astype(np.int64) - frames_of(twin)).sum() <= 3
    assert beamline.eiger.cam.trigger_mode.get() == 0  # as found
    assert beamline.shutter.is_open.get() == 0


def test_a_pause_in_a_line_flies_it_again(flights, simulate):
    """0.5 s exposures in real time, paused in the second frame of the first line."""
    simulate("Clock", 1.0)
    images, beamline = [], flights.connect()
    counter = beamline.eiger.cam.array_counter

    def pause(value, **_):
        images.append(value)
        if value == 2 and len(images) < 10:
            flights.engine.request_pause()

    counter.subscribe(pause, run=False)
    try:
        with pytest.raises(RunEngineInterrupted):
            flights.engine(scan(beamline, exposure_s=0.5))
    finally:
        counter.clear_sub(pause)
    assert beamline.shutter.is_open.get() == 0
    simulate("Clock", 0.0)
    flights.engine.resume()
    assert FRAMES < check_complete(flights.complete()) < FRAMES + 5


def test_what_an_aborted_flight_has_brought_home_is_kept(flights, simulate):
    """0.3 s exposures in real time, aborted without a pause in the fourth frame of the first line."""
    simulate("Clock", 1.0)
    beamline = flights.connect()
    counter = beamline.eiger.cam.array_counter
    engine = flights.engine

    def abort(value, **_):
        if value == 3:
            threading.Thread(target=engine.abort).start()

    counter.subscribe(abort, run=False)
    try:
        with pytest.raises(RunEngineInterrupted):
            engine(scan(beamline, exposure_s=0.3))
    finally:
        counter.clear_sub(abort)
    simulate("Clock", 0.0)
    documents = flights.complete()
    assert documents.stop["exit_status"] == "abort"
    assert sorted(documents.events()) in (
        [1],
        [1, 2],
        [1, 2, 3],
    )  # all but two about which nobody can be sure
    assert beamline.shutter.is_open.get() == beamline.eiger.cam.acquire.get() == 0


def before_line(flyer, number, act):
    """Have the flyer's thread do something before the n-th approach to a line."""
    approach, approaches = flyer._approach, itertools.count(1)

    def approach_after(line):
        if next(approaches) == number:
            act()
        return approach(line)

    flyer._approach = approach_after


@pytest.mark.parametrize(("line", "lost"), [(1, 1), (5, 3), (6, 5)])
def test_a_line_that_lost_frames_is_flown_again(flights, simulate, caplog, line, lost):
    """No position is lost or doubled; the frames of the first flight are announced and do not count."""
    impatient = flights.connect(flyer={"patience_s": 1.0}, eiger={"retries": 1})
    before_line(impatient.flyer, line, lambda: simulate("DropFrames", lost))
    flights.engine(scan(impatient))
    came = {
        "hdf1": 5 - lost,
        "filewriter": 5,  # they were lost behind the detector
        "stream": 5 if lost < 5 else 0,  # the first ones of the line leave empty rows
    }
    assert check_complete(flights.complete()) == FRAMES + came[flights.writer]
    (told,) = [record.getMessage() for record in caplog.records if "is flown again" in record.getMessage()]
    assert told.startswith(f"flyer: 5 frames planned, 5 triggered, {5 - lost} in the file")


def test_frames_lost_again_and_again_end_the_scan(flights, simulate):
    impatient = flights.connect(flyer={"patience_s": 1.0}, eiger={"retries": 1})
    before_line(impatient.flyer, 2, lambda: simulate("DropFrames", 6))
    with pytest.raises(FailedStatus) as failure:
        flights.engine(scan(impatient))
    documents = flights.complete()
    cause = str(failure.value.__cause__)
    assert "5 frames planned, 5 triggered, 4 in the file" in cause
    assert "1 retries" in cause
    assert documents.stop["exit_status"] == "fail"
    assert len(documents.events()) == 5  # the line before
    assert impatient.shutter.is_open.get() == impatient.eiger.cam.acquire.get() == 0


def test_a_step_to_the_next_line_that_fails_ends_the_scan(flights, simulate):
    """The controller has flown beside the line by then; none of those frames counts."""
    beamline = flights.connect()
    before_line(beamline.flyer, 1, lambda: simulate("Stall", "Stage:Y"))
    with pytest.raises(FailedStatus) as failure:
        flights.engine(scan(beamline))
    documents = flights.complete()
    assert "stage_y stopped at" in str(failure.value.__cause__)
    assert len(documents.events()) == 5  # the line before
    assert beamline.shutter.is_open.get() == beamline.eiger.cam.acquire.get() == 0
