"""Fits of eq. (1): against SciPy, their uncertainties, and behaviour while energies are missing."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit

from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes import XanesModel, XanesOptions, evaluate, fit_xanes

DATA = next(
    (p / "shared/data" for p in Path(__file__).parents if (p / "shared/data").is_dir()), Path("absent")
)
V_GRID = np.concatenate(
    [
        [5420.0, 5432.0, 5444.0, 5456.0],
        np.arange(5463.0, 5471.0, 0.75),
        np.arange(5472.0, 5484.0, 0.7),
        [5486.0, 5489.0, 5493.0, 5499.0, 5507.0, 5516.0, 5527.0, 5540.0],
    ]
)
MODEL = XanesModel.for_edge("V")


def random_parameters(n: int, rng: np.random.Generator) -> np.ndarray:
    u = rng.random((8, n))
    b2 = 5476 + 5 * u[0]
    columns = [
        np.full(n, 0.02), np.full(n, 0.2), b2, 2 + 2 * u[1],
        0.02 + 0.1 * u[2], 5468.5 + u[3], 0.9 + 0.7 * u[4],
        0.04 + 0.1 * u[5], b2 + 5 + 3 * u[6], 3 + 3 * u[7],
    ]  # fmt: skip
    return np.stack(columns, axis=1)


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True parameters, spectra and noise at Δμt/σ of 10 to 40."""
    rng = np.random.default_rng(3)
    truth = random_parameters(1500, rng)
    sigma = 0.2 / (10 * 4 ** rng.random(1500))
    noise = sigma[:, None] * rng.standard_normal((1500, V_GRID.size))
    return truth, evaluate(MODEL, truth, V_GRID) + noise, sigma


def test_evaluate_is_equation_1():
    value = evaluate(MODEL, [0.1, 0.3, 5478, 3, 0.05, 5469, 1.2, 0.1, 5484, 4], [5469.0, 5484.0])
    below = 0.1 + 0.15 * 2.09e-5 + 0.05 + 0.1 / (1 + (15 / 4) ** 2)  # erfc(3) = 2.09e-5
    above = 0.1 + 0.15 * (2 - 4.68e-3) + 0.05 / (1 + (15 / 1.2) ** 2) + 0.1  # erfc(2) = 4.68e-3
    np.testing.assert_allclose(value, [below, above], rtol=1e-5)


def test_recovers_noise_free_spectra():
    truth = random_parameters(200, np.random.default_rng(0))
    fit = fit_xanes(V_GRID, evaluate(MODEL, truth, V_GRID), model=MODEL, sigma=0.005)
    # a noise-free minimum is zero; what stays off sits in a neighbouring local minimum
    assert np.mean(np.abs(fit["b2"] - truth[:, 2]) < 1e-3) > 0.97


def test_agrees_with_scipy(noisy):
    _, spectra, sigma = noisy
    fit = fit_xanes(V_GRID, spectra, model=MODEL, sigma=sigma)
    _, low, high = MODEL.intervals()
    lower, upper = np.full(10, -np.inf), np.full(10, np.inf)
    lower[MODEL.shape], upper[MODEL.shape] = low, high
    close = []
    for i in range(150):
        begin = np.clip(fit.mean_parameters, lower + 1e-6, upper - 1e-6)
        result, _ = curve_fit(
            lambda e, *p: evaluate(MODEL, np.array(p), e), V_GRID, spectra[i], begin,
            bounds=(lower, upper), max_nfev=3000, ftol=1e-9, xtol=1e-9,
        )  # fmt: skip
        cost = np.sum((spectra[i] - evaluate(MODEL, result, V_GRID)) ** 2)
        ours = np.sum((spectra[i] - evaluate(MODEL, fit.parameters[i], V_GRID)) ** 2)
        # SciPy has one start: where it ends in a worse minimum it is no reference
        close.append(abs(result[2] - fit["b2"][i]) < 0.02 or ours < cost * (1 - 1e-6))
    assert np.mean(close) >= 0.98


def test_uncertainties_describe_the_scatter(noisy):
    truth, spectra, sigma = noisy
    fit = fit_xanes(V_GRID, spectra, model=MODEL, sigma=sigma)
    area, ratio = np.pi * truth[:, 4] * truth[:, 6], np.pi * truth[:, 4] * truth[:, 6] / truth[:, 1]
    pulls = {
        "b2": (fit["b2"] - truth[:, 2]) / fit.sigma("b2"),
        "b1": (fit["b1"] - truth[:, 1]) / fit.sigma("b1"),
        "area": (fit.pre_edge_area()[0] - area) / fit.pre_edge_area()[1],
        "ratio": (fit.pre_edge_ratio()[0] - ratio) / fit.pre_edge_ratio()[1],
    }
    for name, pull in pulls.items():
        # linear propagation at Δμt/σ = 10 leaves about 10 %
        assert 0.85 < 1.4826 * np.median(np.abs(pull)) < 1.2, name
    assert np.median(fit.chi2) == pytest.approx(1.0, abs=0.05)
    assert fit.converged.mean() > 0.99


def test_without_sigma_the_residuals_set_the_scale(noisy):
    _, spectra, sigma = noisy
    given = fit_xanes(V_GRID, spectra, model=MODEL, sigma=sigma)
    free = fit_xanes(V_GRID, spectra, model=MODEL)
    assert np.median(free.sigma("b2") / given.sigma("b2")) == pytest.approx(1.0, abs=0.05)


def test_prior_lowers_the_error_of_noisy_pixels():
    rng = np.random.default_rng(5)
    truth = np.tile(random_parameters(1, rng), (1000, 1))
    truth[:, 2] += 0.5 * rng.standard_normal(1000)
    spectra = evaluate(MODEL, truth, V_GRID) + 0.02 * rng.standard_normal((1000, V_GRID.size))
    error = {}
    for prior in ("none", "mean"):
        fit = fit_xanes(V_GRID, spectra, model=MODEL, sigma=0.02, options=XanesOptions(prior=prior))
        error[prior] = 1.4826 * np.median(np.abs(fit["b2"] - truth[:, 2]))
    assert error["mean"] < 0.9 * error["none"]


@pytest.mark.parametrize(("n", "known"), [(4, ()), (10, ()), (24, ("c11",)), (37, ("b1", "b2", "c11"))])
def test_only_what_the_energies_so_far_determine(noisy, n, known):
    truth, spectra, sigma = noisy
    energy = np.where(np.arange(V_GRID.size) < n, V_GRID, np.nan)
    partial = np.where(np.arange(V_GRID.size) < n, spectra, np.nan)
    fit = fit_xanes(energy, partial, model=MODEL, sigma=sigma)
    for name in ("b1", "b2", "c11"):
        assert np.isfinite(fit[name]).all() == (name in known), name
        assert np.isfinite(fit.sigma(name)).all() == (name in known), name
    if "b2" in known:
        pull = (fit["b2"] - truth[:, 2]) / fit.sigma("b2")
        assert 1.4826 * np.median(np.abs(pull)) < 1.3


def test_missing_values_carry_no_weight(noisy):
    _, spectra, sigma = noisy
    holed = spectra[:40].copy()
    holed[0, 7] = np.nan
    holed[1] = np.nan
    fit = fit_xanes(V_GRID, holed, model=MODEL, sigma=sigma[:40])
    expected = fit_xanes(
        np.delete(V_GRID, 7), np.delete(spectra[:40], 7, axis=1), model=MODEL, sigma=sigma[:40]
    )
    assert fit["b2"][0] == pytest.approx(expected["b2"][0], abs=0.02)
    assert np.isnan(fit.parameters[1]).all()
    assert not fit.converged[1]
    assert np.isfinite(fit.parameters[2:]).all()


def test_order_of_energies_and_warm_start_do_not_matter(noisy):
    _, spectra, sigma = noisy
    fit = fit_xanes(V_GRID, spectra[:100], model=MODEL, sigma=sigma[:100])
    shuffled = np.random.default_rng(1).permutation(V_GRID.size)
    again = fit_xanes(
        V_GRID[shuffled], spectra[:100][:, shuffled], model=MODEL, sigma=sigma[:100], start=fit.parameters
    )
    assert np.mean(np.abs(again["b2"] - fit["b2"]) < 0.02) > 0.97


def test_another_edge():
    model = XanesModel.for_edge("Fe", options=XanesOptions(falloff=1.8))
    shift = model.edge_energy_eV - MODEL.edge_energy_eV
    truth = random_parameters(50, np.random.default_rng(2)) + shift * np.isin(np.arange(10), [2, 5, 8])
    fit = fit_xanes(V_GRID + shift, evaluate(model, truth, V_GRID + shift), model=model, sigma=0.005)
    assert np.mean(np.abs(fit["b2"] - truth[:, 2]) < 1e-2) > 0.95
    last = evaluate(model, truth, [7600.0]) / evaluate(XanesModel.for_edge("Fe"), truth, [7600.0])
    assert np.all(last < 0.95)


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not beside the repository")
@pytest.mark.parametrize(("name", "edge_eV", "pre_edge_eV"), [("V2O3", 5478.7, 0.5), ("V2O5", 5481.9, 2.6)])
def test_measured_oxides(name, edge_eV, pre_edge_eV):
    table = np.loadtxt(DATA / f"{name}.xdi")
    mu = np.interp(V_GRID, table[:, 0], -np.log(table[:, 3] / table[:, 2]))
    mu -= np.polyval(np.polyfit(V_GRID[:4], mu[:4], 1), V_GRID)
    mu /= mu[-3:].mean()
    fit = fit_xanes(V_GRID, mu[None], model=MODEL)
    residual = mu - evaluate(MODEL, fit.parameters[0], V_GRID)
    assert np.std(residual) < 0.03  # physics.md: eq. (1) leaves 1.4–3 % of the jump
    assert fit["b2"][0] == pytest.approx(edge_eV, abs=0.3)
    assert fit.pre_edge_ratio()[0][0] == pytest.approx(pre_edge_eV, abs=0.2)


def test_errors_name_what_is_wrong():
    with pytest.raises(DataError, match="no absorption edge 'Xx'"):
        XanesModel.for_edge("Xx")
    with pytest.raises(DataError, match="absorbance"):
        fit_xanes(V_GRID, np.zeros((3, 5)), model=MODEL)
    with pytest.raises(DataError, match="sigma"):
        fit_xanes(V_GRID, np.zeros((3, V_GRID.size)), model=MODEL, sigma=0.0)
    with pytest.raises(DataError, match="none"):
        fit_xanes(V_GRID, np.full((3, V_GRID.size), np.nan), model=MODEL, sigma=1.0)
