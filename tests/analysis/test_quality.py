"""Dose, residuals and noise against what is known beforehand."""

import numpy as np
import pytest

from ptychrome.analysis.quality import (
    dose_Gy,
    fluence_per_m2,
    noise_vs_shot_limit,
    residual_map,
)
from ptychrome.analysis.scan import DataError

N = 128
PIXEL = (15e-9, 15e-9)


# --- dose


def test_dose_by_hand():
    """1e8 photons/µm² on V2O5 at 5.5 keV: 1e20 m⁻² · 5500 eV · 1.602e-19 J/eV · 33.84 m²/kg = 2.98 MGy, with
    μ/ρ = (101.88 · 576.3 + 79.995 · 35.34) / 181.88 cm²/g from the elements' photoelectric parts."""
    per_kg = 0.1 * (101.883 * 576.316 + 79.995 * 35.340) / 181.878
    assert dose_Gy(1e20, 5500.0, "V2O5") == pytest.approx(1e20 * 5500 * 1.602177e-19 * per_kg, rel=1e-4)
    assert dose_Gy(1e20, 5500.0, "V2O5") == pytest.approx(2.98e6, rel=2e-3)


def test_dose_map_follows_the_illumination():
    fluence = fluence_per_m2(np.full((3, 4), 225.0, np.float32), (15e-9, 30e-9))
    np.testing.assert_allclose(fluence, 225 / 450e-18)
    dose = dose_Gy(fluence, 5440.0, "Li1.43V0.86O2")
    assert dose.shape == (3, 4)
    above = dose_Gy(fluence, 5500.0, "Li1.43V0.86O2")
    assert np.all(above > 4 * dose)  # the V K edge multiplies μ/ρ of V by 8


@pytest.mark.parametrize("formula", ["Xx2", "Li10/7V6/7O2", "", "V2O5(", "Og"])
def test_formulas_nobody_knows_are_refused(formula):
    with pytest.raises(DataError, match="formula"):
        dose_Gy(1e20, 5500.0, formula)


@pytest.mark.parametrize("energy_eV", [5.5, -1.0, np.nan])
def test_energies_outside_the_tables_are_refused(energy_eV):
    with pytest.raises(DataError, match="eV"):
        dose_Gy(1e20, energy_eV, "V2O5")


# --- residuals


@pytest.mark.parametrize(("counts", "expected"), [(0.1, 0.55), (1.0, 1.81), (10.0, 1.05), (200.0, 1.0)])
def test_residual_of_poisson_counts(counts, expected):
    """4 (√I − √λ)² of bright pixels is χ² with one degree of freedom: a mean of m values scatters by √(2/m);
    dim ones scatter up to 1.6 times as much. Expected values are sums over Poisson's distribution."""
    rng = np.random.default_rng(12)
    measured = np.sqrt(rng.poisson(counts, (200, 16, 16))).astype(np.float32)
    model = np.full(measured.shape, np.sqrt(counts), np.float32)
    of_pixels, of_positions = residual_map(measured, model)
    assert of_pixels.shape == (16, 16)
    assert of_positions.shape == (200,)
    assert of_pixels.mean() == pytest.approx(expected, abs=0.01 + 5 * 1.6 * np.sqrt(2 / measured.size))
    assert of_positions.mean() == pytest.approx(of_pixels.mean(), rel=1e-6)
    if counts > 100:
        assert np.abs(of_pixels - 1).max() < 6 * np.sqrt(2 / 200)
        assert of_pixels.std() == pytest.approx(np.sqrt(2 / 200), rel=0.2)  # 256 values: ± 4 %, skewed


def test_residual_of_what_was_not_measured():
    measured = np.full((4, 3, 3), 2.0, np.float32)
    measured[:, 1, 1] = -1
    measured[2] = -1
    of_pixels, of_positions = residual_map(measured, np.full(measured.shape, 1.5, np.float32))
    assert np.isnan(of_pixels[1, 1])
    assert np.isnan(of_positions[2])
    np.testing.assert_allclose(of_pixels[0], 1)
    np.testing.assert_allclose(of_positions[[0, 1, 3]], 1)
    with pytest.raises(DataError, match="expected"):
        residual_map(measured, measured[1:])


# --- noise against the shot limit

PERIOD = 600e-9


def field():
    """An ellipse with a hole, and photons that vary threefold over it."""
    y, x = np.indices((N, N))
    region = ((y - 64) / 60) ** 2 + ((x - 60) / 52) ** 2 < 1
    region[50:70, 40:60] = False
    return region, 2000.0 * (1 + 0.5 * np.sin(x / 15) * np.cos(y / 19))


def background():
    """Periods of 2.2 and 1.4 µm and a slope."""
    y, x = np.indices((N, N))
    return 0.05 * np.sin(2 * np.pi * x / 146) + 0.03 * np.cos(2 * np.pi * y / 93) + 1e-3 * y


def test_white_noise_on_a_smooth_background_is_at_the_shot_limit():
    """The median absolute deviation of m values scatters by 1.17/√m: 1.3 % with 8000 pixels."""
    rng = np.random.default_rng(13)
    region, photons = field()
    sigma = 0.5 / np.sqrt(photons)
    noise = sigma * rng.normal(size=region.shape)
    measured = noise_vs_shot_limit(background() + noise, region, PIXEL, photons, longest_period_m=PERIOD)
    scatter = 1.17 / np.sqrt(region.sum())
    assert measured.ratio == pytest.approx(1, abs=4 * scatter)
    doubled = noise_vs_shot_limit(background() + 2 * noise, region, PIXEL, photons, longest_period_m=PERIOD)
    assert doubled.ratio == pytest.approx(2 * measured.ratio, rel=0.02)
    # the low part is the background, up to the noise that fits it
    error = (measured.low - background())[region] / sigma[region]
    assert np.sqrt(np.mean(error**2)) < 1.5 * measured.white_low_ratio
    np.testing.assert_allclose((measured.low + measured.high)[region], (background() + noise)[region])
    assert np.isnan(measured.high[~region]).all()


def test_low_frequency_noise_is_told_apart():
    """White noise alone: the long periods take their share of it; a background alone leaves nothing else."""
    rng = np.random.default_rng(14)
    region, photons = field()
    noise = rng.normal(size=region.shape) * 0.5 / np.sqrt(photons)
    only_noise = noise_vs_shot_limit(noise, region, PIXEL, photons, longest_period_m=PERIOD)
    # the long periods hold about share · pixels ≈ 60 independent values: 1.17/√60 = 15 %
    assert only_noise.low_ratio == pytest.approx(only_noise.white_low_ratio, rel=0.5)
    only_background = noise_vs_shot_limit(background(), region, PIXEL, photons, longest_period_m=PERIOD)
    assert only_background.ratio < 0.1
    assert only_background.low_ratio > 3


def test_maps_that_cannot_be_judged_are_refused():
    region, photons = field()
    flat = np.zeros((N, N))
    with pytest.raises(DataError, match="too small"):
        noise_vs_shot_limit(flat, region, PIXEL, photons, longest_period_m=25e-9)
    with pytest.raises(DataError, match="no photons"):
        noise_vs_shot_limit(flat, region, PIXEL, 0.0, longest_period_m=PERIOD)
    with pytest.raises(DataError, match="differ"):
        noise_vs_shot_limit(flat[1:], region, PIXEL, photons, longest_period_m=PERIOD)
    with pytest.raises(DataError, match="no region"):
        noise_vs_shot_limit(flat, np.zeros((N, N), bool), PIXEL, photons, longest_period_m=PERIOD)
