"""Far-field geometry, the calculated probe and the pixel modes against closed formulas."""

import numpy as np
import pytest
from scipy import fft

from ptychrome.analysis.optics import kb_probe, pixel_size_m, wavelength_m

EV = 5480.0
SHAPE = (128, 128)
PIXEL = pixel_size_m(EV, 1.273, (75e-6, 75e-6), SHAPE)


def test_pixel_size_of_the_paper_s_geometry():
    """λ z / (n p): 30 nm for 128 pixels of 75 µm at 1.273 m (physics.md)."""
    assert wavelength_m(EV) == pytest.approx(12398.42e-10 / 5480)
    assert pytest.approx((30e-9, 30e-9), rel=2e-3) == PIXEL


def test_pixel_size_changes_by_two_percent_over_the_scan():
    low, high = (pixel_size_m(e, 1.273, (75e-6, 75e-6), SHAPE)[0] for e in (5420.0, 5540.0))
    assert low / high == pytest.approx(5540 / 5420)


def _fwhm(probe, pixel_m):
    """FWHM of a central cut, resolved by Fourier up-sampling."""
    n = len(probe)
    cut = np.zeros(32 * n, complex)
    cut[:n] = fft.fftshift(fft.fft(fft.ifftshift(probe[:, n // 2])))
    intensity = np.abs(fft.ifft(np.roll(cut, -n // 2))) ** 2
    return np.count_nonzero(intensity > intensity.max() / 2) * pixel_m / 32


def test_focus_has_the_width_asked_for_and_scales_with_the_wavelength():
    probe = kb_probe(SHAPE, PIXEL, EV, fwhm_m=300e-9, fwhm_energy_eV=EV)
    # 0.886 / width is the FWHM of a sharp aperture; edges 10 % soft change it by under 2 %
    assert _fwhm(probe, PIXEL[0]) == pytest.approx(300e-9, rel=0.02)
    shorter = kb_probe(SHAPE, PIXEL, 2 * EV, fwhm_m=300e-9, fwhm_energy_eV=EV)
    assert _fwhm(shorter, PIXEL[0]) == pytest.approx(150e-9, rel=0.02)


def test_photons_are_the_power_of_the_probe():
    probe = kb_probe(SHAPE, PIXEL, EV, fwhm_m=300e-9, fwhm_energy_eV=EV, defocus_m=4e-4, photons=1e8)
    assert np.sum(np.abs(probe) ** 2, dtype=float) == pytest.approx(1e8, rel=1e-5)


def test_defocus_leaves_the_aperture_and_is_undone_by_its_opposite():
    sharp = kb_probe(SHAPE, PIXEL, EV, fwhm_m=300e-9, fwhm_energy_eV=EV)
    blurred = kb_probe(SHAPE, PIXEL, EV, fwhm_m=300e-9, fwhm_energy_eV=EV, defocus_m=1e-3)
    spectra = [np.abs(fft.fft2(p)) for p in (sharp, blurred)]
    np.testing.assert_allclose(spectra[0], spectra[1], atol=1e-5 * spectra[0].max())
    assert np.abs(blurred).max() < np.abs(sharp).max()
