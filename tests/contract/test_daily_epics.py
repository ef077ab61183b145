"""Utilities of daily use through Channel Access: the plans that the twin is tested with. Takes a minute."""

import numpy as np
import pytest
from bluesky import RunEngine

from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import calibrate_energy, choose_exposure, find_particle
from ptychrome.profiles.daily import OFFSET_KEY, keep_energy_offset

FRAME_PIXELS = 48  # as the IOC's


@pytest.fixture
def engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture(autouse=True)
def safe_afterwards(ca):
    yield
    assert ca.shutter.is_open.get() == 0
    assert ca.eiger.cam.armed.get() == ca.eiger.hdf1.capture.get() == 0


def test_find_particle_moves_its_centre_into_the_beam(ca, engine):
    found = engine(find_particle([ca.eiger], ca.stage, width_m=6e-6, center_m=[1e-6, -1e-6])).plan_result
    particle = TwinBeamline("P1", frame_pixels=FRAME_PIXELS).particle
    density = particle.areal_density.sum(axis=0)
    y, x = (density.sum(axis=1 - axis) / density.sum() for axis in (0, 1))
    standing = [ca.stage.x.position, ca.stage.y.position]
    assert standing == found
    # 50 nm of the plan itself (tests/plans/test_daily.py), and a step of the drift, 20 nm rms, three times
    np.testing.assert_allclose(standing, [-(x @ particle.x_m), -(y @ particle.y_m)], atol=110e-9)


def test_choose_exposure_sets_the_exposure_for_the_photons_asked_for(ca, engine):
    ca.stage.x.set(2e-5).wait(timeout=60)  # nothing but the direct beam
    chosen = engine(choose_exposure([ca.eiger], photons=1e7)).plan_result
    # 1e8 photons per second, minus what gap and dead pixels take; 1 % of fluctuation, three times
    good = TwinBeamline("P1", frame_pixels=FRAME_PIXELS).detector.mask == 0
    assert ca.eiger.exposure_time.get() == chosen
    assert 0.1 * 0.97 < chosen < 0.1 * 1.03 / good.mean()


def test_a_foil_gives_the_offset_of_the_monochromator(ca, engine, simulate):
    simulate("Sample", "V")
    ca.stage.x.set(0.0).wait(timeout=60)
    ca.stage.y.set(0.0).wait(timeout=60)
    said = []
    keep_energy_offset(engine, ca.dcm, said.append)
    engine(calibrate_energy([ca.eiger], ca.dcm, element="V", step_eV=1.0, exposures=3))
    assert len(said) == 1
    assert said[0].startswith("energy offset ")
    # twice that of tests/plans/test_daily.py (0.2 eV), for a third of the exposures in all
    assert engine.md[OFFSET_KEY] == ca.dcm.energy_offset.get() == pytest.approx(0.0, abs=0.4)
