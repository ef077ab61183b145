"""Resolution against noise and signals whose answer is known beforehand."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ptychrome.analysis.resolution import (
    RingCorrelation,
    align_ambiguities,
    checkerboard_halves,
    fourier_ring_correlation,
    phase_retrieval_transfer_function,
)
from ptychrome.analysis.scan import DataError

N = 128
PIXEL = (15e-9, 15e-9)
STEP = 150e-9


def white(rng, *shape, dtype=complex):
    """White noise of variance 1."""
    if dtype is float:
        return rng.normal(size=shape)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


def particle(dy=0.0, dx=0.0):
    """A smooth ellipsoid with a spot on it, moved by pixels; vacuum around it is 1."""
    y, x = np.indices((N, N)) - N // 2
    y, x = y - dy, x - dx
    body = 1 / (1 + np.exp(10 * (np.hypot(y / 30, x / 22) - 1)))
    return np.exp((-0.9j - 0.12) * body * (1 + 0.5 * np.exp(-((y - 8) ** 2 + (x - 5) ** 2) / 30)))


def low_pass(image, pixel_m, limit):
    q = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape, pixel_m), indexing="ij"))
    return np.fft.ifft2(np.fft.fft2(image) * (q < limit))


# --- Fourier ring correlation


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("snr", [0.5, 2.0])
def test_correlation_of_white_images_is_snr_over_one_plus_snr_in_each_ring(dtype, snr):
    """Per ring the estimate scatters by (1 − c²)/√(2n); the mean of ten images by √10 less. The ratio of
    sums is biased by no more than 1/(2n), and the fitted plane and shift correlate the lowest rings."""
    rng = np.random.default_rng(1)
    expected = snr / (1 + snr)
    curves = []
    for _ in range(10):
        image = np.sqrt(snr) * white(rng, N, N, dtype=dtype)
        pair = [image + white(rng, N, N, dtype=dtype) for _ in range(2)]
        curves.append(fourier_ring_correlation(*pair, PIXEL))
    samples = curves[0].samples[2:]
    mean = np.mean([curve.correlation for curve in curves], axis=0)[2:]
    scatter = (1 - expected**2) / np.sqrt(2 * samples * 10)
    assert np.all(np.abs(mean - expected) < 4 * scatter + 0.5 / samples)


def test_identical_images_correlate_fully():
    image = white(np.random.default_rng(0), N, N)
    curve = fourier_ring_correlation(image, image, PIXEL)
    np.testing.assert_allclose(curve.correlation, 1, atol=1e-9)
    assert curve.reaches_nyquist("half_bit")
    assert curve.resolution_m("one_bit") == pytest.approx(2 * PIXEL[0])


@pytest.mark.parametrize("dtype", [float, complex])
def test_noise_stays_below_the_half_bit_curve(dtype):
    """The curve is 2 to 3 standard deviations 1/√(2n) up in the lowest rings and more above: 1 % at most."""
    rng = np.random.default_rng(2)
    curves = [
        fourier_ring_correlation(white(rng, N, N, dtype=dtype), white(rng, N, N, dtype=dtype), PIXEL)
        for _ in range(40)
    ]
    above = np.array([curve.correlation > curve.half_bit for curve in curves])
    assert above.mean() < 0.01
    assert np.isnan([curve.resolution_m() for curve in curves]).mean() > 0.8
    # n is the number of independent samples: the correlation of noise scatters by 1/√(2n), and by up to
    # 12 % less because the rings are only as wide as a sample
    scaled = np.array([curve.correlation * np.sqrt(2 * curve.samples) for curve in curves])
    assert 0.8 < scaled[:, 2:].std() < 1.03


@pytest.mark.parametrize("pixel_m", [(15e-9, 15e-9), (12e-9, 20e-9)])
def test_resolution_of_a_band_limited_image(pixel_m):
    """A step in the spectrum is found within 1.5 rings: the window smears it over one (the width of its
    transform), interpolation over half. The noise, a tenth of the signal, hides the window's side lobes."""
    rng = np.random.default_rng(3)
    limit = 1 / 90e-9
    image = low_pass(white(rng, N, N + 20), pixel_m, limit)
    first, second = (image + 0.3 * white(rng, *image.shape) for _ in range(2))
    curve = fourier_ring_correlation(first, second, pixel_m)
    ring = curve.frequency[1] - curve.frequency[0]
    for criterion in ("half_bit", "one_bit"):
        assert abs(1 / curve.resolution_m(criterion) - limit) < 1.5 * ring
        assert not curve.reaches_nyquist(criterion)


def test_thresholds_and_crossings_by_hand():
    """n = 100: half bit 0.39812 / 1.29812, one bit 0.74142 / 1.64142."""
    frequency, samples = np.array([1e6, 2e6, 3e6]), np.full(3, 100.0)
    half = 0.39812 / 1.29812
    curve = RingCorrelation(frequency, np.array([1.0, half + 0.1, half - 0.3]), samples, 4e6)
    np.testing.assert_allclose(curve.half_bit, half)
    np.testing.assert_allclose(curve.one_bit, 0.74142 / 1.64142)
    assert curve.resolution_m("half_bit") == pytest.approx(1 / 2.25e6)  # a quarter of the way
    lost = RingCorrelation(frequency, np.zeros(3), samples, 4e6)
    assert np.isnan(lost.resolution_m())
    never = RingCorrelation(frequency, np.ones(3), samples, 4e6)
    assert never.resolution_m() == pytest.approx(1 / 4e6)
    assert never.reaches_nyquist()


def test_correlation_does_not_see_the_ambiguities_of_ptychography():
    rng = np.random.default_rng(4)
    rows, columns = np.indices((N, N))
    noise = [0.02 * white(rng, N, N) for _ in range(2)]
    wave = 1.3 * np.exp(1j * (0.7 + 0.11 * rows - 0.07 * columns))
    still = fourier_ring_correlation(particle() + noise[0], particle() + noise[1], PIXEL)
    moved = fourier_ring_correlation(particle() + noise[0], wave * (particle(1.37, -2.61) + noise[1]), PIXEL)
    # the noise differs by its shift only; particle edges change the rings by less than their scatter
    strong = still.correlation > still.half_bit
    assert strong[:5].all()
    scatter = 1 / np.sqrt(2 * still.samples)
    assert np.all(np.abs(moved.correlation - still.correlation)[strong] < 3 * scatter[strong])
    assert moved.correlation[:5].min() > 0.9


def test_region_leaves_broken_pixels_out():
    image = white(np.random.default_rng(5), N, N)
    region = np.zeros((N, N), bool)
    region[20:100, 10:90] = True
    broken = np.where(region, image, np.nan)
    curve = fourier_ring_correlation(broken, broken, PIXEL, region)
    np.testing.assert_allclose(curve.correlation, 1, atol=1e-9)


# --- alignment


def test_alignment_finds_shift_factor_and_ramp():
    """The shift is found in steps of 1/100 px; the particle is smooth, so a Fourier shift is exact."""
    rows, columns = np.indices((N, N))
    wave = 1.3 * np.exp(1j * (0.7 + 0.11 * rows - 0.07 * columns))
    image, shift = align_ambiguities(wave * particle(1.37, -2.61), particle(), np.ones((N, N)))
    np.testing.assert_allclose(shift, (-1.37, 2.61), atol=0.011)
    slope = max(np.abs(each).max() for each in np.gradient(particle()))
    np.testing.assert_allclose(image, particle(), atol=0.02 * slope + 1e-3)


def test_alignment_of_real_images_takes_offset_and_plane():
    rows, columns = np.indices((N, N))
    phase = np.angle(particle(0.5, 1.25)) + 0.3 + 0.01 * rows - 0.02 * columns
    image, shift = align_ambiguities(phase, np.angle(particle()), np.ones((N, N)))
    np.testing.assert_allclose(shift, (-0.5, -1.25), atol=0.011)
    assert not np.iscomplexobj(image)
    slope = max(np.abs(each).max() for each in np.gradient(np.angle(particle())))
    np.testing.assert_allclose(image, np.angle(particle()), atol=0.02 * slope + 1e-3)


def test_shift_of_noisy_images_is_as_good_as_the_noise_allows():
    """Cramér–Rao: σ² = 2 s² / Σ|∂O|² with s the noise of a real component of either image."""
    rng = np.random.default_rng(6)
    window = np.outer(np.hanning(N), np.hanning(N)) ** 0.25
    bound = [0.05 * np.sqrt(2 / np.sum(window * np.abs(g) ** 2)) for g in np.gradient(particle())]
    noise = 0.05 * np.sqrt(2)
    shifts = [
        align_ambiguities(
            particle(0.4, -0.7) + noise * white(rng, N, N), particle() + noise * white(rng, N, N), window
        )[1]
        for _ in range(8)
    ]
    error = np.array(shifts) - (-0.4, 0.7)
    assert np.all(np.sqrt(np.mean(error**2, axis=0)) < 2 * np.array(bound))


def test_a_shift_beyond_the_limit_is_not_applied():
    _, shift = align_ambiguities(particle(12.0, 0.0), particle(), np.ones((N, N)), largest_shift_px=5.0)
    assert shift == (0.0, 0.0)


def test_unusable_images_are_refused():
    image = particle()
    with pytest.raises(DataError, match="same two axes"):
        align_ambiguities(image[1:], image, np.ones((N, N)))
    with pytest.raises(DataError, match="positive weight"):
        align_ambiguities(image, image, np.zeros((N, N)))
    with pytest.raises(DataError, match="NaN"):
        fourier_ring_correlation(np.full((N, N), np.nan), image, PIXEL)
    region = np.zeros((N, N), bool)
    region[:2, :2] = True
    with pytest.raises(DataError, match="larger area"):
        fourier_ring_correlation(image, image, PIXEL, region)


# --- phase-retrieval transfer function

WINDOW = 32


def amplitudes(rng, positions=20):
    return (5 + 2 * rng.random((positions, WINDOW, WINDOW))).astype(np.float32)


def test_consistent_waves_transfer_everything():
    """Waves that differ by the phase of a frame and by a shift of the exit wave are the same."""
    rng = np.random.default_rng(7)
    amplitude = amplitudes(rng)
    first = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    q = np.fft.fftfreq(WINDOW)
    waves = [
        first
        * np.exp(2j * np.pi * rng.random((len(first), 1, 1)))
        * np.exp(-2j * np.pi * (dy * q[:, None] + dx * q))
        for dy, dx in [(0, 0), (0.3, -0.8), (-1.7, 0.4)]
    ]
    curve = phase_retrieval_transfer_function(waves, amplitude, PIXEL)
    np.testing.assert_allclose(curve.prtf, 1, rtol=1e-5)  # single precision of the amplitudes
    assert curve.resolution_m() == pytest.approx(2 * PIXEL[0])


@pytest.mark.parametrize("count", [1, 4, 16])
def test_unrelated_phases_leave_one_over_root_k(count):
    """n samples of |⟨e^iφ⟩|², exponentially distributed: 1/√k within 1/(2√n) relative."""
    rng = np.random.default_rng(8)
    amplitude = amplitudes(rng)
    waves = amplitude * np.exp(2j * np.pi * rng.random((count, *amplitude.shape)))
    curve = phase_retrieval_transfer_function(waves, amplitude, PIXEL)
    ring = np.arange(1, len(curve.prtf) + 1)
    samples = len(amplitude) * 2 * np.pi * ring
    # aligning phases and ramp to the first wave adds a little correlation: 1/√(pixels of a frame)
    allowed = 5 / (2 * np.sqrt(samples)) + 1 / WINDOW
    assert np.all(np.abs(curve.prtf * np.sqrt(count) - 1) < allowed)
    if count == 16:
        assert np.isnan(curve.resolution_m())


def test_transfer_ends_where_the_phases_part():
    rng = np.random.default_rng(9)
    amplitude = amplitudes(rng)
    limit = 1 / 75e-9
    q = np.hypot(*np.meshgrid(*[np.fft.fftfreq(WINDOW, p) for p in PIXEL], indexing="ij"))
    common = np.exp(2j * np.pi * rng.random(amplitude.shape))
    waves = [
        amplitude * np.where(q < limit, common, np.exp(2j * np.pi * rng.random(amplitude.shape)))
        for _ in range(12)
    ]
    curve = phase_retrieval_transfer_function(waves, amplitude, PIXEL)
    ring = 1 / (WINDOW * PIXEL[0])
    assert abs(1 / curve.resolution_m() - limit) < 1.5 * ring  # ring width, and half for the interpolation


def test_pixels_not_measured_do_not_count():
    rng = np.random.default_rng(10)
    amplitude = amplitudes(rng)
    waves = np.array([amplitude, amplitude], dtype=complex)
    waves[1, :, 3:6] *= 100j
    amplitude[:, 3:6] = -1
    curve = phase_retrieval_transfer_function(waves, amplitude, PIXEL)
    np.testing.assert_allclose(curve.prtf, 1, rtol=1e-5)
    with pytest.raises(DataError, match="shape"):
        phase_retrieval_transfer_function(waves[:, 1:], amplitude, PIXEL)
    with pytest.raises(DataError, match="photons"):
        phase_retrieval_transfer_function(waves, np.zeros_like(amplitude), PIXEL)


# --- halves


def scans():
    rng = np.random.default_rng(11)
    grid = np.array([(y, x) for y in range(19) for x in range(20)]) * STEP
    snake = grid.reshape(19, 20, 2).copy()
    snake[1::2] = snake[1::2, ::-1]
    turn = np.arange(401) * np.pi * (3 - np.sqrt(5))
    radius = STEP / np.sqrt(np.pi) * np.sqrt(np.arange(401))  # one position per STEP²
    return {
        "raster": grid,
        "snake": snake.reshape(-1, 2),
        "odd raster": np.array([(y, x) for y in range(19) for x in range(19)]) * STEP,
        "jittered": grid + rng.uniform(-40e-9, 40e-9, grid.shape),
        "spiral": radius[:, None] * np.stack([np.sin(turn), np.cos(turn)], axis=1),
        "shuffled": rng.permutation(grid),
    }


@pytest.mark.parametrize("name", scans())
def test_halves_are_equal_and_evenly_spread(name):
    positions = scans()[name]
    first, second = checkerboard_halves(positions)
    assert np.all(first ^ second)
    assert abs(int(first.sum()) - int(second.sum())) <= 1
    for half in (first, second):
        # a checkerboard has a member within one step of everywhere; jitter adds 2 · 40 nm · √2 at most
        assert cKDTree(positions[half]).query(positions)[0].max() < STEP + 115e-9
        # within two steps (12 neighbours and itself) a fair share; random halves go down to 2 of 13
        near = cKDTree(positions).query(positions, k=13)[1]
        assert half[near].mean(axis=1).min() > 0.2
    nearest = cKDTree(positions).query(positions, k=2)[1][:, 1]
    assert np.mean(first[nearest] == first) < 0.06  # few nearest neighbours stay together; at random half


def test_raster_gives_the_checkerboard():
    first, _ = checkerboard_halves(scans()["raster"])
    board = np.add.outer(np.arange(19), np.arange(20)).ravel() % 2 == 0
    assert np.array_equal(first, board) or np.array_equal(first, ~board)


def test_odd_sets_of_positions():
    line = np.stack([np.zeros(5), np.arange(5) * STEP], axis=1)
    assert checkerboard_halves(line)[0].tolist() in ([1, 0, 1, 0, 1], [0, 1, 0, 1, 0])
    first, second = checkerboard_halves(np.zeros((6, 2)))
    assert first.sum() == second.sum() == 3
    for wrong in (np.zeros((1, 2)), np.zeros((4, 3)), np.full((4, 2), np.nan)):
        with pytest.raises(DataError, match="positions"):
            checkerboard_halves(wrong)
