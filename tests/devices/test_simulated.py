"""Axes that take time, the shutter's safety, the clock."""

import threading
import time

import pytest

from ptychrome.devices.clock import Clock
from ptychrome.devices.simulated import SimulatedAxis, SimulatedShutter, SimulatedStage


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_clock_refuses(factor):
    with pytest.raises(ValueError, match="clock is"):
        Clock(factor)


def test_axis_without_clock_is_there_at_once():
    axis = SimulatedAxis(name="axis", velocity=1.0, settle_s=100.0)
    status = axis.set(5.0)
    status.wait(timeout=5)
    assert axis.position == 5.0
    assert not axis.moving


def test_axis_takes_its_time_by_the_clock():
    axis = SimulatedAxis(name="axis", velocity=10.0)
    axis.clock = Clock(0.1)
    arrived = threading.Event()
    axis.subscribe(lambda **_: arrived.set(), event_type=axis.SUB_DONE, run=False)
    status = axis.set(10.0)  # one second of motion, a tenth of it to wait
    assert axis.moving
    assert axis.position == 0.0
    assert arrived.wait(timeout=5)
    status.wait(timeout=5)
    assert axis.position == 10.0


def test_stopped_axis_stays_on_its_way():
    axis = SimulatedAxis(name="axis", velocity=1.0)
    axis.clock = Clock(1.0)
    status = axis.set(1000.0)
    axis.stop()
    with pytest.raises(Exception, match="failed"):
        status.wait(timeout=5)
    assert not axis.moving
    assert 0.0 <= axis.position < 500.0  # far from the target a quarter of an hour away


def test_axis_that_is_on_its_way_goes_on_when_it_is_sent_there_again():
    axis = SimulatedAxis(name="axis", velocity=10.0)
    axis.clock = Clock(0.1)
    axis.depart(1.0)
    status = axis.set(1.0)
    assert axis.set(1.0) is status
    status.wait(timeout=5)
    assert axis.set(1.0).done  # there is nothing to do
    axis.pass_by(0.5, 0.0)  # somebody took it away
    again = axis.set(1.0)
    assert not again.done
    again.wait(timeout=5)
    assert axis.position == 1.0


def test_axis_that_was_stopped_on_its_way_sets_out_again():
    axis = SimulatedAxis(name="axis", velocity=10.0)
    axis.clock = Clock(0.1)
    axis.depart(1.0)
    axis.stop(success=True)
    assert axis.position < 1.0
    axis.set(1.0).wait(timeout=5)
    assert axis.position == 1.0


def test_stage_sets_out_for_what_it_is_prepared_for_and_leaves_complaints_to_set():
    stage = SimulatedStage(name="stage")
    assert stage.prepare((1e-6, 1.0)).success  # y is out of reach
    assert stage.x.position == 1e-6
    with pytest.raises(ValueError, match="limits"):
        stage.y.set(1.0)


def test_stage_reads_metres_under_the_agreed_keys():
    stage = SimulatedStage(name="stage")
    assert {key: description["units"] for key, description in stage.describe().items()} == {
        "stage_x": "m",
        "stage_y": "m",
    }
    with pytest.raises(ValueError, match="limits"):
        stage.x.set(1.0)


def test_shutter_closes_when_stopped_and_reopens_on_resume():
    shutter = SimulatedShutter(name="shutter")
    shutter.set("open").wait(timeout=5)
    assert shutter.is_open.get() == 1
    shutter.stop()
    assert shutter.is_open.get() == 0
    shutter.resume()
    assert shutter.is_open.get() == 1
    shutter.set("closed").wait(timeout=5)
    shutter.resume()
    assert shutter.is_open.get() == 0
    with pytest.raises(ValueError, match="'open' or 'closed'"):
        shutter.set("ajar")


def test_a_motion_that_begins_while_the_one_before_ends_is_told_of():
    """ophyd forgets who waits after it has told them; on a busy machine that may be a while after."""

    class Slow(SimulatedAxis):
        def _reset_sub(self, event_type):
            if threading.current_thread().name == "ptychrome-alarms":
                time.sleep(0.3)
            super()._reset_sub(event_type)

    axis = Slow(name="axis", velocity=10.0)
    axis.clock = Clock(1.0)
    axis.set(1.0).wait(timeout=10)
    axis.set(2.0).wait(timeout=10)
    assert axis.position == 2.0
