"""The twin's forward model against brute force, against the analysis' own, and against physics."""

import numpy as np
import pytest
from scipy import fft

from ptychrome.analysis.optics import kb_probe
from ptychrome.devices.twin import Nuisances, TwinBeamline
from ptychrome.devices.twin.beamline import ForwardModel
from ptychrome.devices.twin.detector import Eiger
from ptychrome.devices.twin.optics import KBProbe
from ptychrome.devices.twin.particle import Particle, make_particle, particle_shape
from ptychrome.devices.twin.states import LIVO2, scattering_factors, transmission, wavelength_m

ENERGY = 5480.0
TRUE_PROBE = KBProbe()
DISTANCE = 1.273
POSITION = (0.21e-6, -0.33e-6)  # (y, x) of the probe on the sample


def forward(particle, *, points, probe=TRUE_PROBE, pixels=128, pixel_m=75e-6):
    shape = (pixels, pixels)
    detector = Eiger(shape, (pixel_m, pixel_m), DISTANCE, np.zeros(shape, np.uint32), np.inf, 32)
    return ForwardModel(particle, probe, detector, ENERGY, points)


def window_m(pixel_m=75e-6):
    return wavelength_m(ENERGY) * DISTANCE / pixel_m


def on_grid(particle, pixels):
    """Transmission on a square grid of the particle's own pixel around the origin, vacuum = 1."""
    field = np.ones((pixels, pixels), dtype=complex)
    row = pixels // 2 - round(particle.y_m[0] / particle.pixel_m)
    column = pixels // 2 - round(particle.x_m[0] / particle.pixel_m)
    inside = transmission(particle.areal_density, particle.states, ENERGY)
    field[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return field


def centred_fft(wave):
    return fft.fftshift(fft.fft2(fft.ifftshift(wave)))


@pytest.fixture(scope="module")
def padded():
    """Brute force: three points per detector pixel and axis from a window three times wider."""
    pixels = 128
    particle = make_particle("P1", window_m() / pixels / 2)
    wide = 3 * 2 * pixels
    axis = -particle.pixel_m * (np.arange(wide) - wide // 2)
    probe = KBProbe()
    y, x = (probe.factors(axis, ENERGY).at(centre) for centre in POSITION)
    wave = np.outer(y, x) * on_grid(particle, wide)
    missing = 1 - np.sum(np.abs(np.outer(y, x)) ** 2) * particle.pixel_m**2
    power = np.abs(centred_fft(wave)) ** 2 * particle.pixel_m**4 / window_m() ** 2
    first = wide // 2 - 3 * pixels // 2
    return particle, power[first : first + 3 * pixels, first : first + 3 * pixels], missing


def test_points_agree_with_a_padded_fft(padded):
    """Amplitudes differ by no more than the probe that the padded window cuts off, √(its share)."""
    particle, power, missing = padded
    model = forward(particle, points=1)
    ours, brute = np.sqrt(model.expected(*POSITION)), np.sqrt(power[::3, ::3])
    assert 0 < missing < 1e-4
    assert np.linalg.norm(ours - brute) < np.sqrt(missing) + 1e-6
    assert np.linalg.norm(ours - brute[::-1, ::-1]) > 0.1


def test_pixels_integrate_what_the_padded_fft_sees(padded):
    """Three Gauss–Legendre points give a pixel's integral: nine points agree to 1e-4 of the total."""
    particle, power, _ = padded
    three, nine = (forward(particle, points=points).expected(*POSITION) for points in (3, 9))
    assert np.abs(three - nine).sum() < 2e-4 * nine.sum()
    # Three midpoints leave a ninth of a single point's error, plus what the padded window cuts off.
    midpoint = (power + np.roll(power, 1, 0) + np.roll(power, -1, 0)) / 9
    midpoint = (midpoint + np.roll(midpoint, 1, 1) + np.roll(midpoint, -1, 1))[::3, ::3]
    point = power[::3, ::3]
    assert np.abs(nine - midpoint).sum() < 0.25 * np.abs(nine - point).sum()


def test_pixel_integration_lowers_the_visibility():
    """Integration multiplies the coherence over a distance Δr by sinc(Δr/window) (physics.md).

    Seen in the Fourier transform of a frame summed over rows, at lags of 0.1 to 0.35 windows; 3 %: the
    part of the exit wave that reaches beyond the window folds back.
    """
    particle = make_particle("P1", window_m() / 256)
    frames = [forward(particle, points=points).expected(*POSITION) for points in (1, 3)]
    point, integrated = (np.abs(np.fft.fft(frame.sum(axis=0).astype(float))) for frame in frames)
    lags = np.arange(13, 45)
    assert np.median(integrated[lags] / point[lags] / np.sinc(lags / 128)) == pytest.approx(1.0, abs=0.03)
    assert np.all(integrated[lags] < point[lags])


@pytest.mark.parametrize(("oversampling", "tolerance"), [(1, 1e-6), (2, 3e-3)])
def test_agrees_with_the_analysis_in_the_ideal_limit(oversampling, tolerance):
    """Point pixels and a window so wide (11.6 µm) that the probe's tails do not matter.

    With the object on the same grid only complex64 is left; with one twice as fine, what the particle
    scatters beyond the band of the coarser grid: 0.15 % of the amplitude.
    """
    pixels, pitch = 384, 25e-6
    pixel = window_m(pitch) / pixels
    model = forward(make_particle("P1", pixel / oversampling), points=1, pixels=pixels, pixel_m=pitch)
    probe = kb_probe(
        (pixels, pixels), (pixel, pixel), ENERGY, fwhm_m=300e-9, fwhm_energy_eV=5420.0, defocus_m=0.4e-3
    )
    rows, columns = 7, -12  # rows and columns run against y and x: the probe at +y meets what rolls down
    moved = np.roll(on_grid(make_particle("P1", pixel), pixels), (rows, columns), axis=(0, 1))
    analysis = np.abs(centred_fft(probe * moved)) / pixels
    twin = np.sqrt(model.expected(rows * pixel, columns * pixel))
    assert np.linalg.norm(analysis - twin) < tolerance * np.linalg.norm(twin)


def test_vacuum_frame_is_that_of_the_analysis_probe():
    """Far from the particle both see the aperture: equal to the precision of complex64.

    (With 128 pixels of 75 µm they differ by 0.16 % of the amplitude, for the analysis normalises what it
    samples at one point per pixel.)
    """
    pixels, pitch = 384, 25e-6
    pixel = window_m(pitch) / pixels
    probe = kb_probe((pixels, pixels), (pixel, pixel), ENERGY, fwhm_m=300e-9, fwhm_energy_eV=5420.0)
    focused = KBProbe(defocus_m=0.0)
    model = forward(make_particle("P1", 15e-9), points=1, probe=focused, pixels=pixels, pixel_m=pitch)
    frame = model.expected(50e-6, 50e-6)
    assert np.linalg.norm(np.abs(centred_fft(probe)) / pixels - np.sqrt(frame)) < 1e-5


def flat_particle(thickness, half_m=3e-6, pixel_m=15e-9):
    """LiVO2 of a given areal density, thickness(y, x) in m⁻²."""
    axis = np.arange(half_m, -half_m, -pixel_m)
    density = thickness(*np.meshgrid(axis, axis, indexing="ij"))[None]
    return Particle("prism", particle_shape("LiVO2"), (LIVO2,), pixel_m, axis, axis, density)


@pytest.mark.parametrize(("towards_y", "towards_x"), [(0, 1), (0, -1), (1, 0), (-1, 0)])
def test_a_prism_deflects_away_from_its_thick_side(towards_y, towards_x):
    """Matter has n < 1: a wedge, thicker towards +x, bends X-rays to −x by the angle |dφ/dx| λ/2π.

    Columns run along −x and rows along −y: towards larger indices. 5 %: the wedge ends 3 µm off axis.
    """
    slope = 4e22 / 1e-6
    wedge = flat_particle(lambda y, x: slope * (3e-6 + towards_y * y + towards_x * x))
    frame = forward(wedge, points=3, probe=KBProbe(defocus_m=0.0)).expected(0.0, 0.0).astype(float)
    index = np.arange(128) - 64
    shift = np.array([frame.sum(axis=1) @ index, frame.sum(axis=0) @ index]) / frame.sum()
    factor = scattering_factors((LIVO2,), ENERGY)[0, 0].real
    gradient = -2.8179403e-15 * wavelength_m(ENERGY) * factor * slope  # dφ/dr, rad/m
    pixels = -gradient / (2 * np.pi) * wavelength_m(ENERGY) * DISTANCE / 75e-6
    assert pixels > 0.5
    assert shift == pytest.approx(np.array([towards_y, towards_x]) * pixels, abs=0.05 * pixels)


@pytest.mark.parametrize(("axis", "stage"), [(1, (-0.4e-6, 0.0)), (0, (0.0, -0.4e-6))])
def test_moving_the_stage_moves_the_beam_the_other_way(axis, stage):
    """A blob at x = +0.4 µm (or y) is hit when the sample is moved by −0.4 µm."""
    centre = [0.0, 0.0]
    centre[axis] = 0.4e-6
    blob = flat_particle(
        lambda y, x: 6e23 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 100e-9**2), half_m=1e-6
    )
    twin = TwinBeamline("LiVO2", nuisances=Nuisances.none())
    twin.particle = blob
    twin.stage_m = stage
    hit = twin.expose(1.0).counts.sum()
    twin.stage_m = (-stage[0], -stage[1])
    missed = twin.expose(1.0).counts.sum()
    assert hit < 0.9 * missed


def test_pure_absorption_is_centrosymmetric():
    """Friedel: a focused probe and a real object give |Ψ(q)| = |Ψ(−q)| to the precision of complex64."""
    particle = make_particle("P1", 15e-9)
    model = forward(particle, points=1, probe=KBProbe(defocus_m=0.0))
    phase_object = model.expected(*POSITION)
    model._change = (np.abs(1 + model._change) - 1).astype(np.complex64)
    real_object = model.expected(*POSITION)
    asymmetries = [np.abs(f[1:, 1:] - f[:0:-1, :0:-1]).max() / f.max() for f in (real_object, phase_object)]
    assert asymmetries[0] < 1e-5
    assert asymmetries[1] > 1e-2
