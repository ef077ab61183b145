"""The twin's probe."""

import numpy as np
import pytest

from ptychrome.devices.twin.optics import KBProbe
from ptychrome.devices.twin.states import wavelength_m


def full_width(coordinates, intensity):
    above = coordinates[intensity > intensity.max() / 2]
    return above.max() - above.min()


def line(probe, energy=5420.0, half_m=6e-6, step=2e-9):
    x = np.arange(-half_m, half_m, step)
    return x, probe.factors(x, energy).at(0.0)


@pytest.mark.parametrize("energy", [5420.0, 5540.0])
def test_focus_has_the_stated_width_and_scales_with_the_wavelength(energy):
    """FWHM of an almost sharp slit: 300 nm at 5420 eV, ∝ λ; ± two samples of 1 nm."""
    x, wave = line(KBProbe(defocus_m=0.0, softness=0.005), energy, half_m=1e-6, step=1e-9)
    assert full_width(x, np.abs(wave) ** 2) == pytest.approx(300e-9 * 5420.0 / energy, abs=2e-9)


def test_soft_edges_change_the_width_little_and_the_tails_much():
    """10 % soft edges: within 5 % of 300 nm; intensity beyond 2 µm far below that of a sharp slit."""
    (x, soft), (_, sharp) = line(KBProbe(defocus_m=0.0)), line(KBProbe(defocus_m=0.0, softness=0.005))
    assert full_width(x, np.abs(soft) ** 2) == pytest.approx(300e-9, rel=0.05)
    far = np.abs(x) > 2e-6
    assert np.sum(np.abs(soft[far]) ** 2) < 0.2 * np.sum(np.abs(sharp[far]) ** 2)


def test_power_is_one_in_both_spaces():
    """Parseval; 1e-3 for the tails beyond ±12 µm."""
    probe = KBProbe()
    _, wave = line(probe, half_m=12e-6, step=10e-9)
    q = np.linspace(-4e6, 4e6, 4001)
    assert np.sum(np.abs(probe.aperture(q, 5420.0)) ** 2) * (q[1] - q[0]) == pytest.approx(1.0, rel=1e-9)
    assert np.sum(np.abs(wave) ** 2) * 10e-9 == pytest.approx(1.0, rel=1e-3)


def test_sub_pixel_positions_are_exact():
    """A probe centred at c is the probe on coordinates shifted by −c."""
    probe, x = KBProbe(), np.linspace(-1e-6, 1e-6, 101)
    moved = probe.factors(x, 5470.0).at(3.7e-9)
    expected = probe.factors(x - 3.7e-9, 5470.0).at(0.0)
    assert np.allclose(moved, expected, rtol=0, atol=1e-10 * np.abs(moved).max())


def test_defocus_is_propagation_by_that_distance():
    """The focus propagated downstream by Fresnel's integral in real space is the defocused probe.

    0.5 % of the peak: the integral is cut off at ±6 µm.
    """
    defocus, energy = 0.4e-3, 5420.0
    x, focus = line(KBProbe(defocus_m=0.0), energy, half_m=6e-6, step=2e-9)
    wavelength = wavelength_m(energy)
    where = np.linspace(-0.5e-6, 0.5e-6, 21)
    # exp(iπx²/λz)/√(iλz) is the transform of exp(−iπλzq²): forward in the convention exp(+ikz).
    area = wavelength * defocus
    kernel = np.exp(1j * np.pi * (where[:, None] - x) ** 2 / area) / np.sqrt(1j * area)
    expected = kernel @ focus * 2e-9
    ours = KBProbe(defocus_m=defocus).factors(where, energy).at(0.0)
    assert np.abs(ours - expected).max() < 5e-3 * np.abs(expected).max()
    in_focus = KBProbe(defocus_m=0.0).factors(where, energy).at(0.0)
    assert np.abs(ours - in_focus).max() > 0.05 * np.abs(expected).max()
