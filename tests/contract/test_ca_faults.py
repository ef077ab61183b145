"""Faults on purpose, through Channel Access: nothing lost or doubled, or a clear message; always safe."""

import operator
import re
import threading

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import Msg
from bluesky.preprocessors import plan_mutator
from bluesky.utils import FailedStatus, RunEngineInterrupted

from ptychrome.plans.spectro_ptycho import spectro_ptycho
from ptychrome.profiles.beamline_settings import SuspenderSettings
from ptychrome.profiles.suspenders import install_suspenders

DEADLINE_S = 60.0  # for what must happen; only a test that fails waits so long
ENERGIES = [5420.0, 5465.5, 5480.25]
TRAJECTORY = {"kind": "points", "x": [-1e-7, 0.0, 1e-7, 2e-7], "y": [0.0, 3e-7, 0.0, -3e-7]}
MASK = "/entry/instrument/detector/detectorSpecific/pixel_mask"
CAMERA = "acquire trigger_mode manual_trigger num_triggers num_images acquire_period photon_energy"
WRITER = "capture file_path file_name file_template file_write_mode num_capture lazy_open swmr_mode enable"
SETTINGS = [f"cam.{name}" for name in CAMERA.split()] + [f"hdf1.{name}" for name in WRITER.split()]
SETTINGS += ["cam.threshold_energy", "hdf1.nd_array_port", "stats1.nd_array_port", "stats1.enable"]


def scan(ca, **options):
    options = {
        "energies": ENERGIES,
        "trajectory": TRAJECTORY,
        "exposure_s": 0.1,
        "sample_name": "P1",
    } | options
    return spectro_ptycho([ca.eiger], ca.dcm, ca.stage, **options)


def pause():
    return Msg("pause", None, defer=False)


def found(ca):
    return {name: operator.attrgetter(name)(ca.eiger).get() for name in SETTINGS}


@pytest.fixture
def as_found(ca, until):
    """Whatever a test does, the detector is left as it was found, and shutter and file are closed."""
    at_first = found(ca)
    yield
    until(lambda: ca.shutter.is_open.get() == 0, "a closed shutter")
    assert found(ca) == at_first
    assert at_first["cam.acquire"] == at_first["hdf1.capture"] == 0


def check_frames(documents):
    """Every event has a frame of its own, the very one whose sum it carries; returns their number."""
    events, frames = documents.events(), documents.frames()
    assert sorted(events) == sorted(frames) == list(range(1, len(events) + 1))
    assert len(set(frames.values())) == len(frames)
    (resource,) = documents.of("stream_resource")
    # a file that somebody still has open for writing cannot be opened for writing again
    with h5py.File(resource["uri"].removeprefix("file://localhost"), "r+") as file:
        stored, good = file[resource["parameters"]["dataset"]][()], file[MASK][()] == 0
    valid = good & (stored < 2**32 - 1)
    sums = stored.sum(axis=(1, 2), where=valid, dtype=np.uint64)
    for number, event in events.items():
        assert event["data"]["eiger_total"] == sums[frames[number]] > 0
    return len(events)


def check_complete(documents):
    """Every planned point is there once."""
    assert documents.stop["exit_status"] == "success"
    assert check_frames(documents) == 12
    expected = [
        (energy, x, y) for energy in ENERGIES for x, y in zip(TRAJECTORY["x"], TRAJECTORY["y"], strict=True)
    ]
    data = [event["data"] for _, event in sorted(documents.events().items())]
    assert [(d["dcm_energy_setpoint"], d["stage_x"], d["stage_y"]) for d in data] == expected


@pytest.mark.parametrize(
    ("command", "occurrence"), [("set", 5), ("trigger", 4), ("wait", 8), ("prepare", 3), ("save", 5)]
)
def test_pause_and_resume_lose_and_double_nothing(
    RE, documents, before, ca, as_found, until, command, occurrence
):
    RE.preprocessors.append(before(command, occurrence, pause))
    with pytest.raises(RunEngineInterrupted):
        RE(scan(ca))
    until(lambda: ca.shutter.is_open.get() == 0, "a closed shutter")
    for axis in (ca.stage.x, ca.stage.y):
        axis.set(3e-6).wait(timeout=DEADLINE_S)  # somebody looks around meanwhile
    RE.resume()
    check_complete(documents)


@pytest.mark.parametrize("end", ["abort", "stop", "halt"])
def test_ending_early_is_safe(RE, documents, before, ca, as_found, end):
    RE.preprocessors.append(before("trigger", 13, pause))
    with pytest.raises(RunEngineInterrupted):
        RE(scan(ca))
    getattr(RE, end)()
    assert check_frames(documents) == 4  # three devices are triggered at each point
    RE.preprocessors.clear()
    documents.all.clear()
    RE(scan(ca))  # ready for the next one
    check_complete(documents)


def test_interrupt_in_a_long_exposure_is_safe(RE, documents, ca, as_found, simulate, until):
    """What Ctrl-C does (the RunEngine's handler requests the pause), in mid-exposure."""
    simulate("Clock", 1.0)
    armed = ca.eiger.cam.armed
    interrupter = threading.Thread(
        target=lambda: (until(lambda: armed.get() == 1, "an armed detector"), RE.request_pause())
    )
    interrupter.start()
    with pytest.raises(RunEngineInterrupted):
        RE(scan(ca, exposure_s=3600.0))
    interrupter.join()
    RE.abort()
    assert documents.stop["exit_status"] == "abort"
    assert documents.events() == {}


@pytest.mark.parametrize("fault", ["Dump", "CloseFrontEnd"])
def test_without_beam_the_scan_waits_and_goes_on_by_itself(
    RE, documents, before, ca, as_found, simulate, until, fault
):
    """The beam is back once the shutter has closed, as it does in every pause."""
    (*suspenders,) = install_suspenders(RE, ca, SuspenderSettings(ring_current_mA=50.0, resume_mA=90.0))

    def lose_the_beam():
        simulate(fault, 1)

        def bring_it_back():
            until(lambda: ca.shutter.is_open.get() == 0, "a closed shutter")
            simulate(fault, 0)

        threading.Thread(target=bring_it_back).start()

    RE.preprocessors.append(before("trigger", 13, lose_the_beam))
    try:
        RE(scan(ca))
    finally:
        for suspender in suspenders:
            RE.remove_suspender(suspender)
    check_complete(documents)
    assert all(event["data"]["i0"] > 0 for event in documents.events().values())


def test_disconnected_stage_suspends_and_the_scan_goes_on_by_itself(
    RE, documents, before, ca, as_found, simulate, until
):
    suspenders = install_suspenders(RE, ca, SuspenderSettings())

    def disconnect():
        simulate("Offline", "Piezo")
        until(lambda: not ca.stage.x.readback.connected, "a disconnected stage")

        def reconnect():
            until(lambda: ca.shutter.is_open.get() == 0, "a closed shutter")
            simulate("Offline", "")

        threading.Thread(target=reconnect).start()

    RE.preprocessors.append(before("trigger", 13, disconnect))
    try:
        RE(scan(ca))
    finally:
        for suspender in suspenders:
            RE.remove_suspender(suspender)
    check_complete(documents)


@pytest.mark.parametrize(
    ("fault", "axis", "message"),
    [
        ("Stall", "Stage:X", r"stage_x stopped at .* on its way to 1e-07"),
        ("Stall", "DCM:Gap", r"dcm_energy did not reach 5465.500 eV: dcm_gap stopped at"),
        ("Limit", "DCM:Bragg", r"dcm_energy did not reach 5465.500 eV: dcm_bragg ran into its low limit"),
    ],
)
def test_motor_that_does_not_arrive_stops_the_scan(
    RE, documents, ca, as_found, simulate, fault, axis, message
):
    stage = axis == "Stage:X"
    # the stage sets out for the third position at its second preparation; the second energy is simply set
    command, target = ("prepare", ca.stage) if stage else ("set", ca.dcm.energy)
    begun = 0

    def prepare(msg):
        nonlocal begun
        if msg.command == command and msg.obj is target:
            begun += 1
            if begun == 2:
                simulate(fault, axis)
        return None, None

    RE.preprocessors.append(lambda plan: plan_mutator(plan, prepare))
    with pytest.raises(FailedStatus) as failure:
        RE(scan(ca))
    assert re.search(message, str(failure.value.__cause__))
    assert documents.stop["exit_status"] == "fail"
    assert check_frames(documents) == (2 if stage else 4)


@pytest.mark.parametrize(("retries", "lost"), [(1, 1), (3, 3)])
def test_missing_frame_is_taken_again(
    RE, documents, before, connect, ca, as_found, simulate, caplog, retries, lost
):
    """At the same position; the events refer to the frames that are in the file."""
    impatient = connect(eiger={"patience_s": 2.0, "retries": retries})
    RE.preprocessors.append(before("trigger", 13, lambda: simulate("DropFrames", lost)))
    RE(scan(impatient))
    check_complete(documents)
    told = [record.getMessage() for record in caplog.records if "is taken again" in record.getMessage()]
    assert len(told) == lost
    assert "eiger: frame 4 did not come" in told[0]


def test_frame_that_is_only_late_is_neither_lost_nor_doubled(
    RE, documents, before, connect, ca, as_found, simulate
):
    """It comes while the series is ended for another try, which is not needed then."""
    impatient = connect(eiger={"patience_s": 2.0})
    late_s = 3.0  # after patience and exposure (0.1 s), before the detector would be late with stopping
    RE.preprocessors.append(before("trigger", 13, lambda: simulate("DelayFrame", late_s)))
    RE(scan(impatient))
    check_complete(documents)
    assert sorted(documents.frames().values()) == list(range(12))
    (resource,) = documents.of("stream_resource")
    with h5py.File(resource["uri"].removeprefix("file://localhost")) as file:
        assert len(file[resource["parameters"]["dataset"]]) == 12


@pytest.mark.parametrize(("fault", "value"), [("DropFrames", 2), ("Hang", 1)])
def test_missing_frame_stops_the_scan(RE, documents, before, connect, ca, as_found, simulate, fault, value):
    """A detector that gives no frame: after as many retries the scan ends, the frames so far good."""
    impatient = connect(eiger={"patience_s": 2.0})

    RE.preprocessors.append(before("trigger", 13, lambda: simulate(fault, value)))
    with pytest.raises(FailedStatus) as failure:
        RE(scan(impatient))
    cause = str(failure.value.__cause__)
    assert "eiger: 4 frames in the file, expected 5" in cause
    assert "look at the detector" in cause
    assert documents.stop["exit_status"] == "fail"
    assert check_frames(documents) == 4
