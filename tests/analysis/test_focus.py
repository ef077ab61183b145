"""Known defocus is found again, in y and x, with noise and from any start phase."""

import numpy as np
import pytest
from scipy import fft

from ptychrome.analysis.focus import PRECISION_M, focus_of
from ptychrome.analysis.optics import kb_probe, wavelength_m
from ptychrome.analysis.scan import DataError

PIXEL_M = (29e-9, 30e-9)
ENERGY_EV = 5420.0
SHAPE = (128, 120)
FWHM_M = 300e-9


def astigmatic(defocus_m: tuple[float, float]) -> np.ndarray:
    """A KB focus whose sample stands differently far from the two waists."""
    probe = kb_probe(SHAPE, PIXEL_M, ENERGY_EV, fwhm_m=FWHM_M, fwhm_energy_eV=ENERGY_EV)
    y, x = (
        np.exp(-1j * np.pi * float(wavelength_m(ENERGY_EV)) * z * fft.fftfreq(n, pixel) ** 2)
        for z, n, pixel in zip(defocus_m, SHAPE, PIXEL_M, strict=True)
    )
    return fft.ifft2(fft.fft2(probe) * y[:, None] * x)


@pytest.mark.parametrize("defocus_m", [0.4e-3, 0.0, -0.4e-3, 17e-6])
def test_defocus_of_the_calculated_probe(defocus_m):
    probe = kb_probe(
        SHAPE, PIXEL_M, ENERGY_EV, fwhm_m=FWHM_M, fwhm_energy_eV=ENERGY_EV, defocus_m=defocus_m, photons=1e6
    )
    focus = focus_of(probe * np.exp(0.7j), PIXEL_M, ENERGY_EV)
    # a few steps of the search, which ends at its precision
    assert focus.defocus_m == pytest.approx((defocus_m, defocus_m), abs=5 * PRECISION_M)
    # the soft edge and the linear interpolation between pixels of a tenth of the width
    assert focus.fwhm_m == pytest.approx((FWHM_M, FWHM_M), rel=0.05)


def test_each_mirror_has_its_focus():
    focus = focus_of(astigmatic((0.3e-3, -0.1e-3)), PIXEL_M, ENERGY_EV)
    assert focus.defocus_m == pytest.approx((0.3e-3, -0.1e-3), abs=5 * PRECISION_M)


def test_noise_moves_it_little():
    probe = astigmatic((-0.2e-3, 0.2e-3))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, *SHAPE))
    amplitude = 0.1 * np.sqrt(np.mean(np.abs(probe) ** 2) / 2)
    focus = focus_of(probe + amplitude * (noise[0] + 1j * noise[1]), PIXEL_M, ENERGY_EV)
    # a twentieth of the depth of focus, 4 FWHM² / λ = 1.6 mm over 16: 1 % of the power is noise
    assert focus.defocus_m == pytest.approx((-0.2e-3, 0.2e-3), abs=5e-6)


def test_what_is_no_probe_is_refused():
    with pytest.raises(DataError, match=r"probe \(4,\)"):
        focus_of(np.ones(4, complex), PIXEL_M, ENERGY_EV)
    with pytest.raises(DataError, match="finite"):
        focus_of(np.full(SHAPE, np.nan, complex), PIXEL_M, ENERGY_EV)
    with pytest.raises(DataError, match=r"no focus within 0\.5 mm"):
        focus_of(astigmatic((0.8e-3, 0.8e-3)), PIXEL_M, ENERGY_EV, reach_m=0.5e-3)
