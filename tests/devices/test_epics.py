"""EPICS classes against a real IOC over Channel Access on loopback."""

from contextlib import suppress

import h5py
import numpy as np
import pytest
from epics import get_pv
from epics.ca import CASeverityException
from epics.ca import get as ca_get

from ptychrome.devices import epics, simulated
from ptychrome.devices.bragg import bragg_angle_deg, fixed_exit_gap_mm
from ptychrome.devices.detector_site import DetectorError
from ptychrome.devices.motion import MotionError

DEADLINE_S = 60  # only a test that fails waits so long


def test_axes_have_the_names_of_the_simulated_ones():
    for real, twin in (
        (epics.EpicsDCM, simulated.SimulatedDCM),
        (epics.EpicsStage, simulated.SimulatedStage),
        (epics.EpicsMotorStage, simulated.SimulatedStage),
        (epics.EpicsKB, simulated.SimulatedKB),
        (epics.EpicsShutter, simulated.SimulatedShutter),
    ):
        assert set(real.component_names) == set(twin.component_names)


def test_dcm_moves_angle_and_gap_with_the_energy(ca):
    ca.dcm.pitch.set(12.5).wait(timeout=DEADLINE_S)
    ca.dcm.energy.set(5480.0).wait(timeout=DEADLINE_S)
    angle_deg = bragg_angle_deg(5480.0)
    assert ca.dcm.bragg.user_readback.get() == angle_deg
    assert ca.dcm.gap.user_readback.get() == fixed_exit_gap_mm(angle_deg, 20.0)
    assert ca.dcm.energy.position == pytest.approx(5480.0, rel=1e-12)  # via the angle
    assert ca.dcm.pitch.position == 12.5  # does not follow
    assert ca.dcm.describe()["dcm_bragg"]["units"] == "deg"


def test_energy_beyond_the_records_limits_is_refused_before_anything_moves(ca):
    with pytest.raises(ValueError, match="outside of range"):
        ca.dcm.energy.check_value(2200.0)  # 63.9°, the record ends at 60°
    with pytest.raises(ValueError, match="outside of user-specified limits"):
        ca.stage.x.check_value(60e-6)


def test_dcm_settles_before_it_is_done(connect, ca, until):
    slow = connect(dcm={"settle_s": 0.3})
    slow.dcm.energy.set(5470.0).wait(timeout=DEADLINE_S)
    assert slow.dcm.settle_time == 0.3
    status = slow.dcm.energy.set(5471.0)
    until(lambda: slow.dcm.energy.position == pytest.approx(5471.0, abs=1e-6), "an energy that is reached")
    assert not status.done
    status.wait(timeout=DEADLINE_S)


def test_motor_that_is_too_slow_is_named(connect, ca, simulate):
    hasty = connect(dcm={"timeout_s": 0.5})
    simulate("Clock", 1.0)
    with pytest.raises(MotionError, match=r"dcm_pitch did not arrive at 100000 in time \(0.5 s\)"):
        hasty.dcm.pitch.set(1e5).wait(timeout=DEADLINE_S)
    hasty.dcm.pitch.stop()


def test_stop_counts_as_done_when_it_is_a_pause_and_fails_otherwise(ca, simulate):
    simulate("Clock", 1.0)
    for success in (True, False):
        status = ca.kb.vertical_stripe.set(1e6 if success else -1e6)
        ca.kb.vertical_stripe.stop(success=success)
        if success:
            status.wait(timeout=DEADLINE_S)
        else:
            with pytest.raises(MotionError, match="kb_vertical_stripe failed on its way to -1000000"):
                status.wait(timeout=DEADLINE_S)


@pytest.mark.parametrize("kind", ["piezo", "motors"])
def test_both_kinds_of_stage_move_and_read_back(ca, connect, kind, simulate):
    prefix = "Stage" if kind == "motors" else "Piezo"
    stage = ca.stage
    if kind == "motors":
        stage = connect(stage={"kind": kind, "prefix": ca.stage.prefix.replace("Piezo", prefix)}).stage
    stage.x.set(1.5e-7).wait(timeout=DEADLINE_S)
    assert stage.read()["stage_x"]["value"] == 1.5e-7
    assert list(stage.describe()) == ["stage_x", "stage_y"]
    assert stage.describe()["stage_x"]["units"] == "m"
    simulate("Stall", "Stage:X")
    with pytest.raises(MotionError, match=r"stage_x stopped at 2.5e-07 on its way to 3.5e-07"):
        stage.x.set(3.5e-7).wait(timeout=DEADLINE_S)


@pytest.mark.parametrize(("kind", "prefix"), [("piezo", "PiezoUm"), ("motors", "StageUm")])
def test_stage_whose_records_are_in_micrometres_is_moved_in_metres(
    ca, connect, kind, prefix, simulate, until
):
    prefix = ca.stage.prefix.replace("Piezo", prefix)
    stage = connect(stage={"kind": kind, "prefix": prefix, "units": "um"}).stage
    stage.x.set(1.5e-7).wait(timeout=DEADLINE_S)
    # roundings of a factor 1e6 in the device and in the IOC, and back
    assert stage.read()["stage_x"]["value"] == stage.x.position == pytest.approx(1.5e-7, rel=1e-14, abs=0)
    assert get_pv(f"{prefix}X").get() == pytest.approx(0.15, rel=1e-14, abs=0)
    assert ca.stage.x.readback.get() == pytest.approx(1.5e-7, rel=1e-14, abs=0)  # the stage itself, in m
    described = stage.describe()["stage_x"]
    assert described["units"] == stage.x.egu == "m"
    assert described["precision"] == ca.stage.describe()["stage_x"]["precision"]
    assert stage.x.limits == pytest.approx(ca.stage.x.limits, rel=1e-14, abs=0)
    with pytest.raises(ValueError, match="outside of"):
        stage.x.check_value(60e-6)
    stage.x.check_value(50e-6)
    ca.stage.x.set(-2e-7).wait(timeout=DEADLINE_S)  # somebody else moves it
    moved = pytest.approx(-2e-7, rel=1e-14, abs=0)
    until(lambda: stage.read()["stage_x"]["value"] == moved, "a readback that follows")
    simulate("Stall", "Stage:X")
    with pytest.raises(MotionError, match=r"stage_x stopped at 1e-07 on its way to 4e-07"):
        stage.x.set(4e-7).wait(timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("kind", "prefix", "units"),
    [("piezo", "Piezo", "um"), ("motors", "StageUm", "m"), ("motors", "Stage", "mm")],
)
def test_stage_in_other_units_than_the_settings_say_does_not_move(ca, connect, kind, prefix, units):
    prefix = ca.stage.prefix.replace("Piezo", prefix)
    stage = connect(stage={"kind": kind, "prefix": prefix, "units": units}).stage
    before = ca.stage.x.readback.get()
    for move in (stage.x.check_value, stage.x.set):
        with pytest.raises(ValueError, match=rf"the settings say units = '{units}'"):
            move(1e-7)
    assert ca.stage.x.readback.get() == before


@pytest.mark.parametrize("kind", ["piezo", "motors"])
def test_stage_is_sent_where_it_stands_only_if_somebody_sent_it_elsewhere(ca, connect, kind, until):
    prefix = ca.stage.prefix.replace("Piezo", "Stage" if kind == "motors" else "Piezo")
    ours, others = (connect(stage={"kind": kind, "prefix": prefix}).stage for _ in range(2))
    setpoint = ours.x.user_setpoint if kind == "motors" else ours.x.setpoint
    ours.prepare((1e-7, 0.0))
    ours.x.set(1e-7).wait(timeout=DEADLINE_S)
    until(lambda: setpoint.get() == 1e-7, "the update of the set point")
    stamp = setpoint.timestamp
    ours.x.set(1e-7).wait(timeout=DEADLINE_S)
    assert setpoint.get(use_monitor=False) == 1e-7
    assert setpoint.timestamp == stamp  # nothing was written
    until(lambda: others.x.position == 1e-7 and not others.x.moving, "the end of the motion, by the others")
    others.x.set(2e-7).wait(timeout=DEADLINE_S)
    until(lambda: setpoint.get() == 2e-7, "the update of the set point")
    ours.x.set(1e-7).wait(timeout=DEADLINE_S)
    assert ours.x.read()["stage_x"]["value"] == 1e-7


def test_motion_that_failed_before_anybody_waited_for_it_is_heard_of(ca, simulate, until):
    ca.stage.x.set(0.0).wait(timeout=DEADLINE_S)
    simulate("Stall", "Stage:X")
    ca.stage.prepare((4e-7, 0.0))
    until(lambda: ca.stage.x.position == 2e-7, "a stage that has stalled half-way")
    with pytest.raises(MotionError, match=r"stage_x stopped at 2e-07 on its way to 4e-07"):
        ca.stage.x.set(4e-7).wait(timeout=DEADLINE_S)
    ca.stage.x.set(4e-7).wait(timeout=DEADLINE_S)  # tried again, it moves


def test_late_completion_of_a_move_given_up_is_not_that_of_the_next(ca, simulate):
    simulate("Clock", 1.0)
    first = ca.stage.y.set(20e-6)  # a second
    ca.stage.y.stop(success=True)
    first.wait(timeout=DEADLINE_S)
    second = ca.stage.y.set(-20e-6)
    second.wait(timeout=DEADLINE_S)
    assert ca.stage.y.readback.get() == -20e-6


def test_shutter_opens_and_closes(ca, until):
    ca.shutter.set("open").wait(timeout=DEADLINE_S)
    assert ca.shutter.is_open.get() == 1
    ca.shutter.stop()
    until(lambda: ca.shutter.is_open.get() == 0, "a closed shutter")


def test_monitors_read_under_their_own_name(ca):
    assert list(ca.i0.describe()) == ["i0"]
    assert ca.ring_current.describe()["ring_current"]["units"] == "mA"


def test_threshold_follows_the_monochromator_and_is_put_back(ca):
    before = ca.eiger.photon_energy.get(), ca.eiger.threshold_energy.get()
    ca.dcm.energy.set(5500.0).wait(timeout=DEADLINE_S)
    ca.eiger.stage()
    assert ca.eiger.photon_energy.get() == pytest.approx(5500.0, rel=1e-12)
    assert ca.eiger.threshold_energy.get() == pytest.approx(2750.0, rel=1e-12)
    assert ca.eiger.cam.armed.get() == 1
    ca.eiger.unstage()
    assert (ca.eiger.photon_energy.get(), ca.eiger.threshold_energy.get()) == before
    assert ca.eiger.cam.armed.get() == 0


def test_roi_is_what_the_file_holds(connect, ca):
    cropped = connect(eiger={"shape": [16, 20], "roi_origin": [16, 14]}).eiger
    ca.shutter.set("open").wait(timeout=DEADLINE_S)
    paths = []
    for eiger in (ca.eiger, cropped):
        eiger.exposure_time.set(0.1).wait(timeout=DEADLINE_S)
        eiger.stage()
        eiger.trigger().wait(timeout=DEADLINE_S)
        (_, resource), _ = eiger.collect_asset_docs()
        paths.append(resource["uri"].removeprefix("file://localhost"))
        eiger.unstage()
    ca.shutter.set("closed").wait(timeout=DEADLINE_S)
    assert cropped.describe()["eiger_image"]["shape"] == cropped.geometry["shape"] == [16, 20]
    whole, part = (h5py.File(path)["/entry/data/data"][0] for path in paths)
    assert (whole.shape, part.shape) == ((48, 48), (16, 20))
    bright = whole[16:32, 14:34]
    # the second exposure of the same spot: the same beam, another draw of photons
    np.testing.assert_allclose(part.sum(), bright.sum(), rtol=0.1)  # i0 fluctuates by 1 % rms
    assert bright.sum() > 0.5 * whole[whole < 2**32 - 1].sum()  # the beam is in there


def test_every_staging_has_a_file_that_counts_from_zero(ca):
    ca.eiger.exposure_time.set(0.1).wait(timeout=DEADLINE_S)
    uris, indices = set(), []
    for frames in (3, 2):
        ca.eiger.stage()
        for _ in range(frames):
            ca.eiger.trigger().wait(timeout=DEADLINE_S)
        (_, resource), *data = ca.eiger.collect_asset_docs()
        uris.add(resource["uri"])
        indices.append([datum["indices"]["start"] for _, datum in data])
        ca.eiger.unstage()
    assert len(uris) == 2
    assert indices == [[0, 1, 2], [0, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"write_directory": "/nowhere/at/all"}, "cannot write to /nowhere/at/all: no such directory"),
        ({"shape": [64, 64]}, r"frames of 48 × 48 pixels; the settings expect \(64, 64\)"),
        ({"shape": [40, 40], "roi_origin": [10, 0]}, r"the settings expect \(40, 40\) at \(10, 0\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused_and_leave_the_detector_as_it_was(connect, ca, changes, message):
    eiger = connect(eiger=changes).eiger
    before = eiger.hdf1.file_path.get(), eiger.hdf1.capture.get(), eiger.cam.manual_trigger.get()
    with pytest.raises(DetectorError, match=message):
        eiger.stage()
    assert (eiger.hdf1.file_path.get(), eiger.hdf1.capture.get(), eiger.cam.manual_trigger.get()) == before
    ca.eiger.stage()
    ca.eiger.unstage()


def test_devices_that_are_off_line_are_named_with_their_records(connect, ca, simulate, until):
    simulate("Offline", "KB")
    until(lambda: not ca.kb.connected, "mirrors that are off-line")
    offline = ca.wait(0.5)
    assert list(offline) == ["kb"]
    assert f"{ca.kb.prefix}V:Pitch.RBV" in offline["kb"]
    simulate("Offline", "")
    assert ca.wait(DEADLINE_S) == {}


def test_client_that_asks_while_records_go_off_line_is_still_served(ca, simulate, until):
    """Requests and answers cross the disconnection on their way."""
    records = [
        get_pv(f"{ca.kb.prefix}{mirror}:{axis}.RBV")
        for mirror in "VH"
        for axis in ("Pitch", "Bend", "Stripe")
    ]
    until(lambda: all(record.connected for record in records), "the mirrors' records")
    offline = get_pv(f"{ca.kb.prefix.removesuffix('KB:')}Sim:Offline")
    assert offline.wait_for_connection(DEADLINE_S)
    for _ in range(2):
        offline.put("KB", wait=False)

        def ask():
            for record in records:
                with suppress(CASeverityException):  # it went off-line since it was last heard of
                    if record.connected:
                        ca_get(record.chid, wait=False)
            return not any(record.connected for record in records)

        until(ask, "mirrors that are off-line")
        simulate("Offline", "")
        until(lambda: all(record.connected for record in records), "mirrors that are back")
