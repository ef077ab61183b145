"""Scans over Channel Access whose frames come through the detector's stream: those that HDF1 writes."""

import operator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
import zmq
from bluesky import Msg, RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted

from ptychrome.callbacks.intake import Intake
from ptychrome.callbacks.reconstruct import geometry_at, load
from ptychrome.devices.detector_site import DetectorError
from ptychrome.plans import choose_exposure, spectro_ptycho
from ptychrome.profiles.errors import UserError

ENERGIES = [5420.0, 5465.5, 5480.25]
TRAJECTORY = {"kind": "points", "x": [-1e-7, 0.0, 1e-7, 2e-7], "y": [0.0, 3e-7, 0.0, -3e-7]}
MASK = "/entry/instrument/detector/detectorSpecific/pixel_mask"
SETTINGS = "acquire trigger_mode manual_trigger num_triggers num_images data_source stream_enable"


@pytest.fixture
def streaming(ioc, connect, received):
    """``streaming(patience_s=2.0)``: the devices, with some settings of the detector changed."""
    receiver, *_ = received

    def make(**eiger):
        return connect(receiver.arrivals, eiger={"writer": "stream", "stream": ioc.options.stream, **eiger})

    return make


def found(beamline):
    settings = {name: operator.attrgetter(f"cam.{name}")(beamline.eiger).get() for name in SETTINGS.split()}
    return {**settings, "header_detail": beamline.eiger.header_detail.get()}


def scan(beamline):
    return spectro_ptycho(
        [beamline.eiger],
        beamline.dcm,
        beamline.stage,
        energies=ENERGIES,
        trajectory=TRAJECTORY,
        exposure_s=0.1,
        sample_name="P1",
    )


def record(beamline, consumer, *preprocessors):
    engine = RunEngine({})
    engine.subscribe(consumer)
    engine.preprocessors.extend(preprocessors)
    try:
        engine(scan(beamline))
    except RunEngineInterrupted:
        engine.resume()


def check_sums(documents):
    """Every position once, each with the frame whose sum its event carries."""
    assert documents.stop["exit_status"] == "success"
    resources = {resource["uid"]: resource for resource in documents.of("stream_resource")}
    frames = {
        datum["seq_nums"]["start"]: (resources[datum["stream_resource"]], datum["indices"]["start"])
        for datum in documents.of("stream_datum")
    }
    events = documents.events()
    assert sorted(frames) == sorted(events) == list(range(1, 13))
    for number, (resource, index) in frames.items():
        with h5py.File(Path(resource["uri"].removeprefix("file://localhost")), swmr=True) as file:
            frame, good = file[resource["parameters"]["dataset"]][index], file[MASK][()] == 0
        total = frame.sum(where=good & (frame < 2**32 - 1), dtype=np.uint64)
        assert events[number]["data"]["eiger_total"] == total > 0


def jobs_of(documents):
    intake = Intake.from_start(documents.start)
    return [job for name, doc in documents.all for job in intake(name, doc)]


@pytest.mark.parametrize("roi", [{}, {"shape": [24, 20], "roi_origin": [12, 14]}])
def test_frames_are_those_that_hdf1_writes(ca, connect, collect, simulate, streaming, received, roi):
    """Nuisances on: they depend on the order of exposures only. The analysis reads the same data."""
    receiver, ours, reports = received
    theirs = collect()
    record(connect(eiger=roi), theirs)
    simulate("Sample", "P1")
    beamline = streaming(**roi)
    at_first = found(beamline)
    captured = ca.eiger.hdf1.num_captured.get(), ca.eiger.cam.num_images_counter.get()
    record(beamline, receiver)
    assert receiver.close(60)
    assert found(beamline) == at_first
    assert (ca.eiger.hdf1.num_captured.get(), ca.eiger.cam.num_images_counter.get()) == (captured[0], 0)
    if not roi:
        check_sums(ours)
    for number, event in theirs.events().items():
        assert ours.events()[number]["data"] == event["data"]
    for mine, other in zip(jobs_of(ours), jobs_of(theirs), strict=True):
        assert mine.frames[0][0].path.name.startswith("series_")
        geometry = geometry_at(mine.metadata, mine.energy_eV)
        (data, _), (expected, _) = load(mine, geometry), load(other, geometry)
        np.testing.assert_array_equal(data.amplitude, expected.amplitude)  # negative where masked
    assert reports == []


def test_pause_loses_and_doubles_nothing(ca, streaming, received, before):
    receiver, documents, reports = received
    record(streaming(), receiver, before("trigger", 13, lambda: Msg("pause", None, defer=False)))
    assert receiver.close(60)
    check_sums(documents)
    assert reports == []


@pytest.mark.parametrize(("fault", "value", "series"), [("DropFrames", 1, 2), ("DelayFrame", 8.0, 2)])
def test_frame_that_did_not_come_is_taken_again(
    ca, streaming, received, before, simulate, caplog, fault, value, series
):
    """The one that is only late comes while its series is ended, and is not taken again."""
    receiver, documents, _ = received
    beamline = streaming(patience_s=6.0, retries=1)
    record(beamline, receiver, before("trigger", 13, lambda: simulate(fault, value)))
    assert receiver.close(60)
    check_sums(documents)
    assert len(documents.of("stream_resource")) == series
    told = [record.getMessage() for record in caplog.records if "is taken again" in record.getMessage()]
    assert told == (["eiger: frame 4 did not come; it is taken again"] if fault == "DropFrames" else [])


def test_missing_frame_stops_the_scan(ca, streaming, received, before, simulate):
    receiver, documents, _ = received
    beamline = streaming(patience_s=2.0, retries=1)
    at_first = found(beamline)
    with pytest.raises(FailedStatus) as failure:
        record(beamline, receiver, before("trigger", 13, lambda: simulate("DropFrames", 2)))
    assert "a frame did not come through the stream (2 s after" in str(failure.value.__cause__)
    assert receiver.close(60)
    assert documents.stop["exit_status"] == "fail"
    assert len(documents.events()) == 4
    assert found(beamline) == at_first
    assert beamline.shutter.is_open.get() == 0


def test_a_detector_that_counts_its_series_anew_gives_other_frames(
    ca, streaming, received, simulate, collect
):
    """Two scans whose only series has the same number."""
    receiver, documents, reports = received
    beamline = streaming()
    uris = []
    for _ in range(2):
        simulate("Restart", 1)
        record(beamline, receiver)
        assert beamline.eiger.cam.sequence_id.get() == 1
    assert receiver.close(60)
    runs = [name for name, _ in documents.all].index("stop") + 1
    for scan_of in (documents.all[:runs], documents.all[runs:]):
        one = collect(scan_of)
        check_sums(one)
        uris += [resource["uri"] for resource in one.of("stream_resource")]
    assert len(set(uris)) == 2
    assert reports == []


def test_a_stream_that_somebody_else_receives_is_noticed_at_once(ca, ioc, streaming, received):
    receiver, *_ = received
    beamline = streaming(patience_s=2.0)
    at_first = found(beamline)
    receiver.close(60)
    with zmq.Context() as context, context.socket(zmq.PULL) as other:
        other.connect(ioc.options.stream)
        with pytest.raises(DetectorError, match=r"began no series that is received within 2 s .* of none"):
            beamline.eiger.stage()
    assert found(beamline) == at_first


def test_exposures_are_chosen_by_frames_of_the_stream(ca, streaming):
    beamline = streaming()
    beamline.stage.x.set(2e-5).wait(timeout=60)  # nothing but the direct beam
    engine = RunEngine({}, call_returns_result=True)
    chosen = engine(choose_exposure([beamline.eiger], photons=1e7)).plan_result
    # 1e8 photons per second, less 0.3 % that is masked; 1 % of fluctuation, three times
    assert chosen == pytest.approx(0.1, rel=0.033)


def test_a_stream_that_nobody_receives_is_refused(connect):
    with pytest.raises(UserError, match="nobody receives tcp://x:9999"):
        connect(eiger={"writer": "stream", "stream": "tcp://x:9999"})
    with pytest.raises(ValueError, match="expected its address"):
        connect(eiger={"writer": "stream"})
