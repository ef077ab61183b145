"""Bragg angle and energy."""

import math

import pytest

from ptychrome.devices.bragg import bragg_angle_deg, bragg_energy_eV, fixed_exit_gap_mm
from ptychrome.devices.simulated import SimulatedDCM


@pytest.mark.parametrize(
    ("energy_eV", "angle_deg"),
    [
        (8047.8, 14.22),  # Cu Kα1 off Si(111), any textbook
        (12398.42 / 3.1356, 30.0),  # hc / d: sin θ = 1/2
    ],
)
def test_known_angles(energy_eV, angle_deg):
    assert bragg_angle_deg(energy_eV) == pytest.approx(angle_deg, abs=0.005)  # given to 0.01°


def test_energy_and_angle_invert_each_other():
    for energy_eV in (2100.0, 5465.0, 30000.0):
        assert bragg_energy_eV(bragg_angle_deg(energy_eV)) == pytest.approx(energy_eV, rel=1e-12)


def test_gap_keeps_the_exit_height():
    """Downstream of the second reflection the beam is 2 g cos θ higher."""
    for angle_deg in (5.0, 21.39, 45.0):
        gap_mm = fixed_exit_gap_mm(angle_deg, 20.0)
        assert 2 * gap_mm * math.cos(math.radians(angle_deg)) == pytest.approx(20.0, rel=1e-12)


def test_energy_below_backscattering_is_refused():
    with pytest.raises(ValueError, match="out of reach"):
        bragg_angle_deg(1976.0)  # hc / 2d = 1977.04 eV
    with pytest.raises(ValueError, match="out of reach"):
        bragg_angle_deg(float("nan"))


def test_energy_at_the_home_position_is_infinite():
    assert bragg_energy_eV(0.0) == math.inf


def test_moving_the_energy_moves_the_bragg_axis():
    dcm = SimulatedDCM(name="dcm")
    dcm.energy.set(5480.0).wait(timeout=5)
    assert dcm.bragg.position == pytest.approx(bragg_angle_deg(5480.0), abs=1e-12)
    reading = dcm.read()
    assert reading["dcm_energy"]["value"] == pytest.approx(5480.0, rel=1e-12)
    assert reading["dcm_energy_setpoint"]["value"] == 5480.0
    assert dcm.gap.position == pytest.approx(fixed_exit_gap_mm(bragg_angle_deg(5480.0), 20.0), rel=1e-12)
    assert dcm.pitch.position == 0.0  # of the second crystal: does not follow
    dcm.bragg.set(30.0).wait(timeout=5)
    assert dcm.energy.position == pytest.approx(12398.42 / 3.1356, rel=1e-12)


def test_energy_beyond_the_limits_is_refused_before_it_moves():
    dcm = SimulatedDCM(name="dcm")
    with pytest.raises(ValueError, match="limits"):
        dcm.energy.set(500.0)
    assert dcm.energy.position == pytest.approx(5420.0)
