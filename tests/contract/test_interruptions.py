"""Pause, abort, halt and failures at awkward moments: nothing lost, nothing doubled, everything closed."""

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import Msg
from bluesky.preprocessors import plan_mutator
from bluesky.utils import FailedStatus, RunEngineInterrupted, single_gen

from ptychrome.schema import scan_metadata


def pause_after(command, occurrence, *, defer=False):
    """A preprocessor that asks for a pause after the n-th message of a kind."""
    seen = 0

    def insert(msg):
        nonlocal seen
        seen += msg.command == command
        if msg.command == command and seen == occurrence:
            return None, single_gen(Msg("pause", None, defer=defer))
        return None, None

    def mutate(plan):
        yield from plan_mutator(plan, insert)

    return mutate


def check_complete(documents, twin):
    """Under last-write-wins by seq_num every planned point is there once, with its own frame."""
    events, frames = documents.events(), documents.frames()
    assert sorted(events) == sorted(frames) == list(range(1, 13))
    assert len(set(frames.values())) == 12
    announced = [datum["indices"]["start"] for datum in documents.of("stream_datum")]
    assert announced == list(range(len(twin.exposures)))  # every frame of the file once, in order
    keys = scan_metadata(documents.start).keys
    (resource,) = documents.of("stream_resource")
    with h5py.File(resource["uri"].removeprefix("file://localhost")) as file:
        stored = file[resource["parameters"]["dataset"]][()]
    for seq_num, event in events.items():
        _, stage_m, shutter_open, exposure = twin.exposures[frames[seq_num]]
        assert shutter_open
        assert (event["data"][keys.x], event["data"][keys.y]) == stage_m
        assert event["data"][keys.i0] == exposure.i0
        np.testing.assert_array_equal(stored[frames[seq_num]], exposure.counts)
    planned = documents.start["plan_args"]
    expected = [
        (energy, x, y)
        for energy in planned["energies"]
        for x, y in zip(planned["trajectory"]["x"], planned["trajectory"]["y"], strict=True)
    ]
    measured = [events[n]["data"] for n in sorted(events)]
    assert [(data[keys.energy], data[keys.x], data[keys.y]) for data in measured] == expected


@pytest.mark.parametrize("occurrence", [1, 5])
@pytest.mark.parametrize(
    "command", ["checkpoint", "set", "wait", "trigger", "create", "read", "prepare", "save"]
)
def test_pause_and_resume_lose_and_double_nothing(RE, documents, scan, twin, beamline, command, occurrence):
    RE.preprocessors.append(pause_after(command, occurrence))
    with pytest.raises(RunEngineInterrupted):
        RE(scan())
    assert beamline.shutter.is_open.get() == 0
    for axis in (beamline.stage.x, beamline.stage.y):
        axis.set(3e-6)  # somebody looks around meanwhile
    RE.resume()
    check_complete(documents, twin)
    assert documents.stop["exit_status"] == "success"


def test_pause_in_the_middle_of_an_exposure(RE, documents, scan, twin, monkeypatch):
    expose = twin.expose

    def pause_during_the_third(exposure_s):
        if len(twin.exposures) == 2:
            RE.request_pause()
        return expose(exposure_s)

    monkeypatch.setattr(twin, "expose", pause_during_the_third)
    with pytest.raises(RunEngineInterrupted):
        RE(scan())
    monkeypatch.undo()
    RE.resume()
    check_complete(documents, twin)


def test_deferred_pause_waits_for_the_point(RE, documents, scan, twin):
    RE.preprocessors.append(pause_after("trigger", 4, defer=True))
    with pytest.raises(RunEngineInterrupted):
        RE(scan())
    RE.resume()
    check_complete(documents, twin)
    assert len(twin.exposures) == 12  # nothing had to be repeated


@pytest.mark.parametrize("end", ["abort", "stop", "halt"])
def test_ending_early_leaves_file_and_shutter_closed(RE, documents, scan, beamline, end):
    RE.preprocessors.append(pause_after("read", 9))
    with pytest.raises(RunEngineInterrupted):
        RE(scan())
    getattr(RE, end)()
    check_safe(documents, beamline)
    RE.preprocessors.clear()
    documents.all.clear()
    RE(scan())  # ready for the next one
    assert len(documents.events()) == 12


def test_failing_exposure_ends_the_scan_safely(RE, documents, scan, beamline, twin, monkeypatch):
    expose = twin.expose

    def fail_at_the_fourth(exposure_s):
        if len(twin.exposures) == 3:
            raise OSError("No space left on device")
        return expose(exposure_s)

    monkeypatch.setattr(twin, "expose", fail_at_the_fourth)
    with pytest.raises(FailedStatus) as failure:
        RE(scan())
    assert "No space left" in str(failure.value.__cause__)
    check_safe(documents, beamline)
    assert documents.stop["exit_status"] == "fail"
    assert sorted(documents.events()) == sorted(documents.frames()) == [1, 2, 3]


def check_safe(documents, beamline):
    assert beamline.shutter.is_open.get() == 0
    (resource,) = documents.of("stream_resource")
    # a file that somebody still has open for writing cannot be opened for writing again
    with h5py.File(resource["uri"].removeprefix("file://localhost"), "r+") as file:
        assert len(file[resource["parameters"]["dataset"]]) >= len(documents.frames())
    beamline.eiger.stage()
    beamline.eiger.unstage()
