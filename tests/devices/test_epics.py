"""EPICS classes: same attributes and data keys as the simulated ones (nothing is connected here)."""

from ophyd.sim import make_fake_device

from ptychrome.devices import epics, simulated


def test_axes_have_the_same_names():
    for real, twin in (
        (epics.EpicsDCM, simulated.SimulatedDCM),
        (epics.EpicsStage, simulated.SimulatedStage),
        (epics.EpicsKB, simulated.SimulatedKB),
    ):
        assert real.component_names == twin.component_names


def test_monitors_read_under_their_own_name():
    i0 = make_fake_device(epics.EpicsIonChamber)("IC:", name="i0")
    assert list(i0.describe()) == ["i0"]


def test_shutter_writes_one_and_zero():
    shutter = make_fake_device(epics.EpicsShutter)("FS:", name="shutter")
    shutter.set("open").wait(timeout=5)
    assert shutter.command.get() == 1
    shutter.stop()
    assert shutter.command.get() == 0
