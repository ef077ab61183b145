"""Chemical maps: the paper's reference numbers, atoms back from simulated pixels, noise and masks."""

import numpy as np
import pytest
import xraydb

from ptychrome.analysis.chemistry import (
    EdgeConstants,
    chemical_maps,
    n_eff_ratio_reference,
    noise_level,
    noise_per_pixel,
)
from ptychrome.analysis.mask import MaskOptions, fitted_mask
from ptychrome.analysis.optics import CLASSICAL_ELECTRON_RADIUS_M, HC_EV_M
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes import XanesModel, evaluate, fit_xanes
from ptychrome.schema import MAPS

ENERGY = np.concatenate(
    [
        [5420.0, 5432.0, 5444.0, 5456.0],
        np.arange(5463.0, 5471.0, 0.75),
        np.arange(5472.0, 5484.0, 0.7),
        [5486.0, 5489.0, 5493.0, 5499.0, 5507.0, 5516.0, 5527.0, 5540.0],
    ]
)
MODEL = XanesModel.for_edge("V")
SIGMA, SIGMA_PHASE = 0.004, 0.003


@pytest.fixture(scope="module")
def pixels():
    """400 pixels of LiVO2 and 100 of vacuum: (areal density, fit, phase, absorbance)."""
    rng = np.random.default_rng(0)
    constants = EdgeConstants.chantler()
    density = np.concatenate([rng.uniform(2e22, 5e22, 400), np.zeros(100)])
    jump = density * 2 * HC_EV_M / 5478 * CLASSICAL_ELECTRON_RADIUS_M * constants.delta_f2
    shape = np.array([0.02, 1, 5478, 2.5, 0.3, 5469, 1.1, 0.4, 5485, 4.0])
    parameters = np.tile(shape, (500, 1))
    parameters[:, MODEL.linear] *= jump[:, None]
    absorbance = evaluate(MODEL, parameters, ENERGY) + SIGMA * rng.standard_normal((500, ENERGY.size))
    difference = xraydb.f1_chantler("V", ENERGY) - xraydb.f1_chantler("V", 5420.0)
    n_eff = density[:, None] * (n_eff_ratio_reference("LiVO2", constants) + difference)
    phase = -n_eff * CLASSICAL_ELECTRON_RADIUS_M * HC_EV_M / ENERGY + SIGMA_PHASE * rng.standard_normal(
        (500, ENERGY.size)
    )
    fit = fit_xanes(ENERGY, absorbance, model=MODEL, sigma=SIGMA)
    return density, fit, phase.T, absorbance.T


@pytest.mark.parametrize(
    ("constants", "expected"),
    [(EdgeConstants.paper(), (39.7, 35.0, 43.1)), (EdgeConstants.chantler(), (42.3, 37.6, 45.6))],
)
def test_reference_ratios(constants, expected):
    formulas = ({"Li": 10 / 7, "V": 6 / 7, "O": 2}, "LiVO2", "LiVO3")
    # the numbers are given to one decimal
    assert [n_eff_ratio_reference(f, constants) for f in formulas] == pytest.approx(expected, abs=0.06)
    fraction, decimal = (n_eff_ratio_reference(f, constants) for f in ("Li10/7V6/7O2", "Li1.4286V0.8571O2"))
    assert fraction == pytest.approx(decimal, abs=0.01)


def test_constants():
    assert EdgeConstants.chantler().delta_f2 == pytest.approx(3.524, abs=0.01)  # physics.md
    assert EdgeConstants.chantler().f1_of("V") == pytest.approx(-4.63, abs=0.01)
    assert EdgeConstants.paper().delta_f2 == 3.53
    assert 3.3 < EdgeConstants.chantler("Fe", "K", 7060.0).delta_f2 < 3.6
    with pytest.raises(DataError, match="no f′ of 'Fe'"):
        n_eff_ratio_reference("VFeO2", EdgeConstants.paper())
    with pytest.raises(DataError, match="no absorption edge"):
        EdgeConstants.chantler("Xx")
    with pytest.raises(DataError, match="holds no V"):
        n_eff_ratio_reference("LiO2", EdgeConstants.paper())
    with pytest.raises(DataError, match="cannot be read"):
        n_eff_ratio_reference("Li(V", EdgeConstants.paper())


def test_maps_recover_the_atoms_within_their_uncertainty(pixels):
    density, fit, phase, _ = pixels
    constants = EdgeConstants.chantler()
    maps = chemical_maps(
        fit, phase[0], ENERGY, constants, sigma=SIGMA, sigma_phase=SIGMA_PHASE, mask=MaskOptions(min_snr=5)
    )
    assert set(maps) == {"fitted", "flag", "chi2", *MAPS, *(f"{name}_sigma" for name in MAPS)}
    fitted = maps["fitted"] == 1
    assert fitted[:400].mean() > 0.95
    assert not fitted[400:].any()
    assert np.isnan(maps["n_v"][~fitted]).all()
    truth = {
        "n_v": density,
        "n_eff": density * n_eff_ratio_reference("LiVO2", constants),
        "n_eff_ratio": np.full(500, n_eff_ratio_reference("LiVO2", constants)),
        "edge_energy": np.full(500, 5478.0),
    }
    for name, expected in truth.items():
        pull = (maps[name][fitted] - expected[fitted]) / maps[f"{name}_sigma"][fitted]
        # scatter as stated within 20 %, no bias beyond a third of one standard deviation
        assert 0.8 < 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.2, name
        assert abs(np.median(pull)) < 0.33, name


def test_averaged_n_eff_is_the_same_with_less_noise(pixels):
    density, fit, phase, _ = pixels
    below = ENERGY < 5460
    constants, noise = EdgeConstants.chantler(), {"sigma": SIGMA, "sigma_phase": SIGMA_PHASE}
    one = chemical_maps(fit, phase, ENERGY, constants, **noise)
    four = chemical_maps(fit, phase, ENERGY, constants, n_eff_energies=below, **noise)
    np.testing.assert_array_equal(
        one["n_eff"], chemical_maps(fit, phase[0], ENERGY, constants, **noise)["n_eff"]
    )
    keep = one["fitted"] == 1
    truth = density[keep] * n_eff_ratio_reference("LiVO2", constants)
    scatter = [np.std(maps["n_eff"][keep] - truth) for maps in (one, four)]
    assert scatter[1] < 0.65 * scatter[0]  # 1/√4, and a little from N_V
    assert scatter[1] == pytest.approx(np.median(four["n_eff_sigma"][keep]), rel=0.15)


def test_paper_mask_is_jump_over_noise(pixels):
    _, fit, _, _ = pixels
    paper = fitted_mask(fit, SIGMA, MaskOptions.paper())
    np.testing.assert_array_equal(paper, fit.converged & (fit["b1"] >= SIGMA))
    assert fitted_mask(fit, SIGMA).sum() < paper.sum()


def test_before_the_edge_only_n_eff_is_known(pixels):
    _, _, phase, absorbance = pixels
    energy = np.where(ENERGY < 5464, ENERGY, np.nan)
    fit = fit_xanes(energy, absorbance.T, model=MODEL, sigma=SIGMA)
    maps = chemical_maps(
        fit, phase[0], ENERGY, EdgeConstants.chantler(), sigma=SIGMA, sigma_phase=SIGMA_PHASE
    )
    assert np.isnan(maps["n_v"]).all()
    assert not maps["fitted"].any()
    assert np.isfinite(maps["n_eff"]).all()


def test_noise_level_is_robust_and_pooled():
    rng = np.random.default_rng(0)
    energy = np.array([5420.0, 5432.0, 5444.0, 5456.0, 5480.0])
    values = 0.01 * rng.standard_normal((5, 3000)) + 1e-3 * (energy[:, None] - 5420)
    values[2, :100] += 1.0
    values[4] = np.nan
    below, vacuum = energy < 5460, np.arange(3000) >= 50
    # 2 × 3000 independent residuals: 1.2 %; 3 % outliers raise the MAD by about 2 %
    assert noise_level(values, energy, below, vacuum) == pytest.approx(0.01, rel=0.06)
    flat = 0.01 * rng.standard_normal((4, 3000))
    assert np.sqrt(np.mean(noise_per_pixel(flat, np.ones(4, bool)) ** 2)) == pytest.approx(0.01, rel=0.03)
    with pytest.raises(DataError, match="at least 3"):
        noise_level(values[:2], energy[:2], below[:2])
