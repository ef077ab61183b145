"""Fly scans: what they say, and that interruptions lose and double no frame and leave everything closed."""

import importlib
import threading
import time

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import Msg
from bluesky.preprocessors import plan_mutator
from bluesky.utils import (
    FailedStatus,
    NoReplayAllowed,
    RunEngineInterrupted,
    TerminalProgressBar,
    single_gen,
)
from bluesky_tiled_plugins.writing.consolidators import consolidator_factory

from ptychrome.callbacks.intake import Intake
from ptychrome.plans.trajectories import positions
from ptychrome.schema import scan_metadata

FRAMES = 30  # 2 energies of 3 lines of 5
READOUT_S = 20e-6


def stored_frames(documents):
    (resource,) = documents.of("stream_resource")
    with h5py.File(resource["uri"].removeprefix("file://localhost")) as file:
        return file[resource["parameters"]["dataset"]][()]


def check_events(documents, twin):
    """Each event has a frame of its own, taken where and when the event says; returns seq_nums."""
    events, frames = documents.events(), documents.frames()
    assert sorted(events) == sorted(frames)
    assert len(set(frames.values())) == len(frames)
    keys = scan_metadata(documents.start).keys
    stored = stored_frames(documents)
    for seq_num, event in events.items():
        energy_eV, stage_m, shutter_open, exposure = twin.exposures[frames[seq_num]]
        data = event["data"]
        assert shutter_open
        assert (data[keys.x], data[keys.y]) == stage_m
        assert (data[keys.i0], data[keys.ring_current]) == (exposure.i0, exposure.ring_current_mA)
        assert data["dcm_energy"] == energy_eV == pytest.approx(data[keys.energy], rel=1e-12)  # via the angle
        np.testing.assert_array_equal(stored[frames[seq_num]], exposure.counts)
    return sorted(events)


def check_complete(documents, twin):
    """Under last-write-wins by seq_num every position is there once; every frame is announced once."""
    assert check_events(documents, twin) == list(range(1, FRAMES + 1))
    announced = [
        index
        for datum in documents.of("stream_datum")
        for index in range(datum["indices"]["start"], datum["indices"]["stop"])
    ]
    assert announced == list(range(len(twin.exposures)))
    events, planned = documents.events(), positions(documents.start["plan_args"]["trajectory"])
    keys = scan_metadata(documents.start).keys
    measured = [[events[n]["data"][key] for key in (keys.x, keys.y)] for n in sorted(events)]
    # the way along a line is a sum of floats: some units in the last place of a micron
    np.testing.assert_allclose(measured, np.tile(planned, (2, 1)), rtol=0, atol=1e-20)
    energies = [events[n]["data"][keys.energy] for n in sorted(events)]
    assert energies == np.repeat(documents.start["plan_args"]["energies"], FRAMES // 2).tolist()
    assert documents.stop["exit_status"] == "success"


def jobs_of(documents):
    intake = Intake.from_start(documents.start)
    return [job for name, doc in documents.all for job in intake(name, doc)]


def check_safe(documents, beamline):
    assert beamline.shutter.is_open.get() == 0
    (resource,) = documents.of("stream_resource")
    # a file that somebody still has open for writing cannot be opened for writing again
    with h5py.File(resource["uri"].removeprefix("file://localhost"), "r+") as file:
        assert len(file[resource["parameters"]["dataset"]]) >= len(documents.frames())
    assert beamline.stage.x.speed == beamline.stage.y.speed == 0.0
    beamline.flyer.stage()
    beamline.flyer.unstage()


def test_a_fly_scan_says_what_a_step_scan_says(RE, documents, fly, twin, beamline):
    RE(fly())
    check_complete(documents, twin)
    assert len(twin.exposures) == FRAMES
    assert documents.stop["num_events"] == {"primary": FRAMES}
    start = documents.start
    assert (start["plan_name"], start["num_points"], start["shape"]) == ("fly_spectro_ptycho", 30, [2, 15])
    (descriptor,) = documents.of("descriptor")
    keys = scan_metadata(start).keys
    assert set(keys.model_dump().values()) <= set(descriptor["data_keys"])
    assert descriptor["data_keys"][keys.image]["external"] == "STREAM:"
    assert descriptor["configuration"]["flyer"]["data"]["eiger_exposure_time"] == 0.01
    assert {"eiger_total", "i0", "stage_x", "dcm_energy"} <= set(descriptor["hints"]["flyer"]["fields"])
    check_safe(documents, beamline)


def test_the_stage_moves_at_the_speed_that_the_start_document_says(RE, documents, fly, twin):
    """100 nm in a period, along x there and back."""
    RE(fly(exposure_s=0.02))
    speed = 100e-9 / (0.02 + READOUT_S)
    velocities = np.array(twin.velocities).reshape(2, 3, 5, 2)
    assert velocities[..., 0] == pytest.approx(speed * np.array([1, -1, 1])[:, None] + np.zeros((2, 3, 5)))
    assert not velocities[..., 1].any()
    assert scan_metadata(documents.start).travel_m == pytest.approx((0.0, 0.02 * speed))


def test_the_intake_makes_energies_of_flights(RE, documents, fly):
    RE(fly())
    jobs = jobs_of(documents)
    assert [(job.index, job.complete, len(job.frames)) for job in jobs] == [(0, True, 15), (1, True, 15)]
    assert jobs[0].frames[0][0].mask is not None
    assert [frame for job in jobs for _, frame in job.frames] == list(range(FRAMES))


def test_tiled_reads_the_frames_of_an_interrupted_scan(RE, documents, fly, twin):
    """The consolidator is what TiledWriter builds its nodes from."""
    RE.preprocessors.append(pause_after("kickoff", 2))
    with pytest.raises(RunEngineInterrupted):
        RE(fly())
    RE.resume()
    (resource,), (descriptor,) = documents.of("stream_resource"), documents.of("descriptor")
    consolidator = consolidator_factory(resource, descriptor)
    for datum in documents.of("stream_datum"):
        consolidator.consume_stream_datum(datum)
    frames = np.asarray(consolidator.init_adapter().read())
    np.testing.assert_array_equal(frames, [exposure.counts for *_, exposure in twin.exposures])


def pause_after(command, occurrence, *, defer=False):
    """A preprocessor that asks for a pause after the n-th message of a kind."""
    seen = 0

    def insert(msg):
        nonlocal seen
        seen += msg.command == command
        if msg.command == command and seen == occurrence:
            return None, single_gen(Msg("pause", None, defer=defer))
        return None, None

    return lambda plan: plan_mutator(plan, insert)


@pytest.fixture
def during(twin, monkeypatch):
    """``during(n, act)``: call something while the n-th frame is exposed."""
    expose = twin.expose

    def arrange(number, act):
        def watched(exposure_s):
            if len(twin.exposures) == number - 1:
                act()
            return expose(exposure_s)

        monkeypatch.setattr(twin, "expose", watched)

    return arrange


@pytest.mark.parametrize(
    ("command", "occurrence"),
    [
        *(("checkpoint", number) for number in range(1, 7)),  # 3 at each of 2 energies
        *((command, number) for command in ("prepare", "kickoff", "complete") for number in (1, 2)),
        *(("wait", number) for number in range(1, 9)),
        *(("collect", number) for number in range(1, 5)),
    ],
)
def test_pause_and_resume_lose_and_double_nothing(RE, documents, fly, twin, beamline, command, occurrence):
    RE.preprocessors.append(pause_after(command, occurrence))
    with pytest.raises(RunEngineInterrupted):
        RE(fly())
    assert beamline.shutter.is_open.get() == 0
    RE.resume()
    check_complete(documents, twin)
    assert [(job.complete, len(job.frames)) for job in jobs_of(documents)] == [(True, 15), (True, 15)]
    check_safe(documents, beamline)


@pytest.fixture
def pause(RE, beamline):
    """To be called in the flyer's thread: returns when the flyer has been told of the pause."""
    paused = threading.Event()
    told = beamline.flyer.pause

    def listen():
        paused.set()
        told()

    beamline.flyer.pause = listen

    def request():
        paused.clear()
        RE.request_pause()
        assert paused.wait(10)

    return request


@pytest.mark.parametrize("number", [1, 3, 5, 8, 18])
def test_pause_in_the_middle_of_a_line(RE, documents, fly, twin, during, beamline, pause, number):
    """The flight ends with the frame under way, long before its line; the line is flown again."""
    during(number, pause)
    with pytest.raises(RunEngineInterrupted):
        RE(fly())
    assert len(twin.exposures) <= number
    during(0, None)
    RE.resume()
    check_complete(documents, twin)
    assert len(twin.exposures) == FRAMES + (number - 1) % 5 + 1
    check_safe(documents, beamline)


def test_a_line_interrupted_twice(RE, documents, fly, twin, during, pause):
    during(8, pause)
    with pytest.raises(RunEngineInterrupted):
        RE(fly())
    during(10, pause)  # the second frame of the repetition
    with pytest.raises(RunEngineInterrupted):
        RE.resume()
    during(0, None)
    RE.resume()
    check_complete(documents, twin)
    assert len(twin.exposures) == FRAMES + 3 + 2


def test_a_pause_after_events_of_the_flight_repeats_none_of_them(
    RE, documents, fly, twin, during, pause, quick_events
):
    """The RunEngine would count seq_nums from the last checkpoint anew."""
    during(12, lambda: (wait_for_events(documents, 10), pause()))
    with pytest.raises(RunEngineInterrupted):
        RE(fly())
    during(0, None)
    RE.resume()
    check_complete(documents, twin)
    assert len(twin.exposures) == FRAMES + 2


@pytest.fixture
def quick_events(monkeypatch):
    """Events come soon after each line."""
    # the package has the plan under its module's name
    plan = importlib.import_module("ptychrome.plans.fly_spectro_ptycho")
    monkeypatch.setattr(plan, "COLLECT_S", 0.01)


def wait_for_events(documents, number):
    for _ in range(1000):
        if len(documents.events()) >= number:
            return
        time.sleep(0.01)
    raise AssertionError(f"{len(documents.events())} events while a flight is under way")


@pytest.mark.parametrize("end", ["abort", "stop", "halt"])
def test_ending_early_keeps_what_was_flown_and_leaves_everything_closed(
    RE, documents, fly, twin, beamline, during, pause, end
):
    during(13, pause)  # the third line
    with pytest.raises(RunEngineInterrupted):
        RE(fly())
    during(0, None)
    getattr(RE, end)()
    seq_nums = check_events(documents, twin)
    # two lines, and a frame before those about which nobody can be sure; halted, the RunEngine collects once
    assert len(seq_nums) in ((5, 10) if end == "halt" else (11,))
    assert seq_nums == list(range(1, len(seq_nums) + 1))
    check_safe(documents, beamline)
    (job,) = jobs_of(documents)
    assert len(job.frames) == len(seq_nums)
    documents.all.clear()
    twin.exposures.clear()
    RE(fly())  # ready for the next one
    check_complete(documents, twin)


def test_what_a_failing_flight_has_brought_home_is_kept(RE, documents, fly, twin, beamline, during):
    """Frames 6 to 8 of the second line were good when the disk was full."""

    def fail():
        raise OSError("No space left on device")

    during(9, fail)
    with pytest.raises(FailedStatus) as failure:
        RE(fly())
    assert "No space left" in str(failure.value.__cause__)
    assert check_events(documents, twin) == list(range(1, 9))
    assert documents.stop["exit_status"] == "fail"
    check_safe(documents, beamline)


def test_documents_are_made_while_the_next_lines_are_flown(RE, documents, fly, twin, during, quick_events):
    during(12, lambda: wait_for_events(documents, 10))
    RE(fly())
    check_complete(documents, twin)


def test_progress_bars_are_told_of_lines(RE, fly, beamline, during, capsys):
    told = []

    def watch():
        flight = beamline.flyer.complete()
        flight.watch(lambda **about: told.append((about["name"], about.get("current"))))
        TerminalProgressBar([flight], delay_draw=0)

    during(1, watch)
    RE(fly())
    assert [lines for _, lines in told if lines] == [1, 2, 3]
    assert "2.0/3.0" in capsys.readouterr().out


def test_lines_are_flown_from_the_beginning_of_the_run_up_wherever_the_stage_was_left(beamline, twin):
    line = {"first_m": (0.0, 0.0), "last_m": (4e-7, 0.0), "frames": 5, "exposure_s": 0.01}
    flyer = beamline.flyer
    flyer.stage()
    flyer.prepare([line]).wait(10)
    flyer.pause()  # nothing was flown: it may be repeated
    beamline.stage.x.set(1e-6).wait(10)
    flyer.kickoff()
    flyer.complete().wait(10)
    flown = np.array([stage_m for _, stage_m, *_ in twin.exposures])
    np.testing.assert_allclose(flown, [(n * 1e-7, 0) for n in range(5)], rtol=0, atol=1e-20)
    with pytest.raises(NoReplayAllowed):
        flyer.pause()
    flyer.unstage()


def test_a_plan_after_a_failed_one_ends_without_a_run_engine_too(RE, fly, during):
    """Such as that of a queue server or of summarize_plan, which look at the flyer and execute nothing."""

    def fail():
        raise TimeoutError("the shutter did not answer")

    during(9, fail)
    with pytest.raises(FailedStatus) as failure:
        RE(fly())
    assert "flyer: the shutter did not answer" in str(failure.value.__cause__)
    assert len([msg for msg, _ in zip(fly(), range(1000), strict=False) if msg.command == "kickoff"]) == 2


def test_a_flyer_must_be_staged_and_prepared(beamline):
    with pytest.raises(RuntimeError, match="stage it"):
        beamline.flyer.prepare([{"first_m": (0, 0), "last_m": (1e-6, 0), "frames": 9, "exposure_s": 0.01}])
    with pytest.raises(RuntimeError, match="no line to fly"):
        beamline.flyer.kickoff()
    with pytest.raises(RuntimeError, match="not been kicked off"):
        beamline.flyer.complete()
