"""Amplitude, offset and ramp are taken out by the vacuum, and only they."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychrome.analysis.normalise import absorbance_of, normalise, phase_of

SHAPE = (90, 100)
ROWS, COLUMNS = np.indices(SHAPE, dtype=float)
FIELD = np.ones(SHAPE, bool)
NOISE = 2e-3


def particle(radius=24.0, depth=1.2):
    """Noise-free transmission of an off-centre lens with thin edges."""
    inside = np.clip(1 - ((ROWS - 38) ** 2 + ((COLUMNS - 58) / 1.2) ** 2) / radius**2, 0, None) ** 0.8
    return np.exp((-1j - 0.12) * depth * inside)


def disturbed(obj, amplitude=37.0, offset=2.2, ramp=(0.011, -0.02), seed=0):
    rng = np.random.default_rng(seed)
    noise = NOISE * (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE))
    return amplitude * (obj + noise) * np.exp(1j * (offset + ramp[0] * ROWS + ramp[1] * COLUMNS))


@pytest.mark.parametrize("offset", [0.0, 2.2, -3.1])
@pytest.mark.parametrize("ramp", [(0.0, 0.0), (0.011, -0.02), (-0.03, 0.05)])
def test_known_disturbances_are_removed(ramp, offset):
    """Thousands of vacuum pixels of noise 2e-3 fix the plane to 1e-4; the margin keeps thin edges out."""
    obj = particle()
    result = normalise(disturbed(obj, offset=offset, ramp=ramp), FIELD)
    assert result.found_vacuum
    difference = result.object / obj
    assert np.abs(np.median(np.abs(difference)) - 1) < 3e-4
    plane = np.polynomial.polynomial.polyfit(COLUMNS.ravel(), np.angle(difference).ravel(), 1)
    assert np.abs(plane[1]) * SHAPE[1] < 1e-3
    assert np.abs(np.angle(difference)).max() < 1e-3 + 6 * NOISE * np.exp(0.15)


def test_vacuum_is_found_where_it_is():
    obj = particle()
    result = normalise(disturbed(obj), FIELD)
    truly = np.abs(obj - 1) < 1e-6
    # the thinnest edge cannot be told from noise: it may hold 1 % of the pixels, which a median does not feel
    assert (np.abs(obj - 1) > 0.03)[result.vacuum].mean() < 0.01
    assert (result.vacuum & truly).sum() > 0.9 * truly.sum()


def test_known_vacuum_is_used_as_it_is():
    obj = particle()
    corner = np.zeros(SHAPE, bool)
    corner[:15, :20] = True
    result = normalise(disturbed(obj), FIELD, corner)
    np.testing.assert_array_equal(result.vacuum, corner)
    # 300 pixels at one corner determine a slope of 2e-3·√12/(15·√300) per row: 2e-3 at the far end
    assert np.abs(np.angle(result.object / obj)).max() < 5e-3 + 6 * NOISE * np.exp(0.15)


def test_only_well_lit_pixels_count():
    obj = disturbed(particle())
    dark = COLUMNS > 85
    obj[dark] = np.random.default_rng(1).standard_normal(dark.sum()) * 100
    result = normalise(obj, FIELD & ~dark)
    assert not result.vacuum[dark].any()
    assert np.abs(np.angle(result.object / particle())[~dark]).max() < 1e-3 + 6 * NOISE * np.exp(0.15)


@pytest.mark.parametrize("depth", [0.05, 0.1, 0.3, 3.0])
def test_thin_and_thick_particles_are_told_from_vacuum(depth):
    """From 25 times the noise to a phase that wraps nearly once."""
    obj = particle(depth=depth)
    result = normalise(disturbed(obj), FIELD)
    assert result.found_vacuum
    assert np.abs(np.median(np.angle(result.object / obj))) < 1e-3


def fluctuations(size):
    rows = np.random.default_rng(7).standard_normal(SHAPE)
    smooth = gaussian_filter(rows, size)
    return smooth / smooth.std()


FULL = {
    "waves": 1 + 0.2 * np.sin(ROWS / 5) * np.sin(COLUMNS / 7) + 0.1 * np.sin(COLUMNS / 3),
    "grains": 1 + 0.2 * fluctuations(5),
    "dome": 1 - 0.4 * (((ROWS - 45) / 45) ** 2 + ((COLUMNS - 50) / 50) ** 2),
    "nothing": np.zeros(SHAPE),
}


@pytest.mark.parametrize("thickness", FULL)
@pytest.mark.parametrize("depth", [1.2, 0.4])
def test_an_object_that_fills_the_field_is_flagged(depth, thickness):
    """No vacuum, or nothing but vacuum (a slab looks the same): nothing crashes, the middle becomes one."""
    result = normalise(disturbed(np.exp((-1j - 0.12) * depth * FULL[thickness])), FIELD)
    assert np.isfinite(result.object).all()
    assert not result.found_vacuum
    assert not result.vacuum.any()
    assert np.median(np.abs(result.object)) == pytest.approx(1.0, abs=1e-3)
    assert np.abs(np.angle(result.object.sum())) < 1e-3


def test_phase_of_thick_matter_does_not_wrap():
    phase = np.linspace(-4.6, 1.5, 50)
    np.testing.assert_allclose(phase_of(np.exp(1j * phase)), phase, atol=1e-6)


def test_absorbance():
    transmission = np.array([1.0, np.exp(-0.15), 1j * np.exp(-0.5), 0.0])
    absorbance = absorbance_of(transmission)
    np.testing.assert_allclose(absorbance[:3], [0.0, 0.3, 1.0], atol=1e-6)
    assert np.isfinite(absorbance[3])
