"""Motion during an exposure in the forward model: means of intensities, adjoints, and what it saves."""

from dataclasses import replace

import numpy as np
import pytest

from ptychrome.analysis.engines import Reconstruction, run
from ptychrome.analysis.engines.backend import backend_of
from ptychrome.analysis.engines.forward import ForwardModel
from ptychrome.analysis.engines.motion import Motion
from ptychrome.analysis.options import MlOptions
from ptychrome.analysis.scan import DiffractionData, ScanGeometry

WINDOW, SIDE, STEP_PX = 48, 5, 5
OBJECT = (WINDOW + SIDE * STEP_PX,) * 2
PHOTONS = 1e6


def probe_of():
    """A soft square aperture of 9 of 48 frequencies: the focus is 5 pixels wide."""
    q = np.fft.fftfreq(WINDOW, 1 / WINDOW)
    aperture = 1 / (1 + np.exp(np.abs(q) * 2 - 9))
    wave = np.fft.fftshift(np.fft.ifft2(np.outer(aperture, aperture)))
    return (wave * np.sqrt(PHOTONS / np.sum(np.abs(wave) ** 2)))[None].astype(np.complex64)


def object_of(seed=0):
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=(2, *OBJECT)))
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in OBJECT), indexing="ij"))
    smooth = np.fft.ifft2(spectrum * np.exp(-((q / 0.15) ** 2))).real
    thickness, phase = smooth / smooth.std(axis=(1, 2), keepdims=True)
    return np.exp(-0.05 * (2 + thickness) + 0.3j * phase).astype(np.complex64)


def data_of(travel_px=(0.0, 0.0), fraction=(0.0, 0.0)):
    corner = np.array([(STEP_PX * i, STEP_PX * j) for i in range(SIDE) for j in range(SIDE)], np.int64)
    return DiffractionData(
        amplitude=np.zeros((len(corner), WINDOW, WINDOW), np.float32),
        corner=corner,
        fraction=np.tile(np.float32(fraction), (len(corner), 1)),
        object_shape=OBJECT,
        photons=PHOTONS,
        scale=np.ones(len(corner), np.float32),
        pixel_m=(30e-9, 30e-9),
        travel_px=travel_px,
    )


def predicted(data, options=None):
    options = options or MlOptions()
    model = ForwardModel(data, options, options.pixel_points, options.motion_points)
    truth = Reconstruction(object_of(), probe_of(), np.zeros(OBJECT, np.float32))
    return model.amplitudes(model.begin(truth)).astype(np.float64)


def moving(travel_px, moments=40):
    """Intensities, as the mean over many places along the way."""
    places = ((np.arange(moments) + 0.5) / moments - 0.5)[:, None] * np.array(travel_px)
    return np.mean([predicted(data_of(fraction=place)) ** 2 for place in places], axis=0)


@pytest.mark.parametrize("travel_px", [(0.0, 2.5), (1.5, -2.0)])
def test_two_points_make_the_mean_over_the_way(travel_px):
    """2.5 pixels are half the focus. Two Gauss–Legendre points leave x⁴/270 of a frequency q, x = π q T.

    That is 2 % of the highest (9/48 per pixel), which few photons are in: 3e-4 was measured, 1e-2 for a probe
    at rest.
    """
    exact = moving(travel_px)
    blurred, resting = predicted(data_of(travel_px)) ** 2, predicted(data_of()) ** 2
    assert np.abs(blurred - exact).sum() < 1e-3 * exact.sum()
    assert np.abs(resting - exact).sum() > 10 * np.abs(blurred - exact).sum()


def test_there_and_back_are_the_same():
    """float32 sums in another order: 1e-5 of the brightest pixel."""
    there, back = predicted(data_of((0.5, 2.0))), predicted(data_of((-0.5, -2.0)))
    np.testing.assert_allclose(there, back, atol=1e-5 * there.max())


def test_without_motion_nothing_changes():
    np.testing.assert_array_equal(
        predicted(data_of()), predicted(data_of((0.0, 2.0)), MlOptions(motion_points=1))
    )


def test_gathering_is_the_adjoint_of_spreading():
    """⟨S p, g⟩ = ⟨p, S† g⟩ to the rounding of float32 sums over 2e4 terms."""
    motion = Motion((1.0, -2.0), 3, backend_of("numpy"))
    rng = np.random.default_rng(1)
    probe, gradient = (
        (rng.normal(size=(n, 64, 64, 2)) @ [1, 1j]).astype(np.complex64) for n in (2, 2 * motion.count)
    )
    spread, gathered = motion.spread(probe + 0), motion.gathered(gradient + 0)
    assert spread.shape == gradient.shape
    assert gathered.shape == probe.shape
    assert np.vdot(spread, gradient) == pytest.approx(np.vdot(probe, gathered), rel=1e-4)
    assert np.sum(np.abs(spread) ** 2) == pytest.approx(np.sum(np.abs(probe) ** 2), rel=1e-5)


def test_a_reconstruction_that_knows_of_the_motion_fits():
    """From the truth, exact data: what two points leave of the integral, against what a probe at rest cannot.

    Measured: 4e-4 against 6e-3.
    """
    travel = (0.0, 2.5)
    data = replace(data_of(travel), amplitude=np.sqrt(moving(travel)).astype(np.float32))
    truth = Reconstruction(object_of(), probe_of(), np.zeros(OBJECT, np.float32))

    def misfit(points):
        *_, last = run(data, truth, (MlOptions(sweeps=10, motion_points=points),))
        return last.error[-1]

    assert misfit(2) < misfit(1) / 3


def test_geometry_turns_the_way_of_the_sample_into_that_of_the_probe():
    geometry = ScanGeometry(5540.0, (64, 128), (75e-6, 75e-6), 1.273, center_m=(1e-6, 2e-6))
    rows, columns = geometry.travel_px((30e-9, -60e-9))
    pixel_y, pixel_x = geometry.pixel_m
    assert (rows, columns) == pytest.approx((30e-9 / pixel_y, -60e-9 / pixel_x))
