"""Linear combinations of standards: exactly those of SciPy's NNLS, honest errors, known mixtures back."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls
from scipy.special import erf

from ptychrome.analysis.bulk import BulkSpectrum
from ptychrome.analysis.linear_combination import best_shift, linear_combination, standards_at
from ptychrome.analysis.scan import DataError
from ptychrome.plans import v_k_edge

ENERGY = np.array(v_k_edge())
STATES = ((5476.0, 0.3), (5478.0, 0.1), (5480.0, 0.9), (5482.0, 0.5))


def shape(energy, edge_eV, pre_edge):
    """A normalised spectrum in the manner of eq. (1)."""
    peak = pre_edge / (1 + ((energy - edge_eV + 9) / 1.1) ** 2)
    return 0.5 * (1 + erf((energy - edge_eV) / 2.5)) + peak + 0.4 / (1 + ((energy - edge_eV - 7) / 4) ** 2)


STANDARDS = np.array([shape(ENERGY, *state) for state in STATES])


def mixtures(fractions, sigma, seed=0):
    """μt (n_energy, n) with a background of 0.05 and jumps of 0.1 to 0.3, and the jumps."""
    rng = np.random.default_rng(seed)
    jump = rng.uniform(0.1, 0.3, fractions.shape[1])
    clean = 0.05 + jump * (STANDARDS[: len(fractions)].T @ fractions)
    return clean + sigma * rng.standard_normal(clean.shape), jump


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_same_as_nnls_of_scipy(k):
    rng = np.random.default_rng(1)
    data, _ = mixtures(rng.dirichlet(np.full(k, 0.4), 200).T, 0.02)  # noise that makes many of them 0
    found = linear_combination(data, STANDARDS[:k], sigma=0.02)
    # a free background is two columns ±1 for NNLS
    design = np.column_stack([STANDARDS[:k].T, np.ones(ENERGY.size), -np.ones(ENERGY.size)])
    for pixel in range(200):
        solution, norm = nnls(design, data[:, pixel])
        np.testing.assert_allclose(found.fractions[:, pixel] * found.jump[pixel], solution[:k], atol=1e-9)
        assert found.residual[pixel] * found.jump[pixel] * np.sqrt(40) == pytest.approx(norm, rel=1e-9)
        assert found.chi2[pixel] == pytest.approx(norm**2 / 0.02**2 / (39 - k), rel=1e-9)


def test_a_given_jump_is_kept_and_the_solution_is_the_constrained_optimum():
    rng = np.random.default_rng(2)
    data, jump = mixtures(rng.dirichlet(np.full(3, 0.4), 50).T, 0.01)
    found = linear_combination(data, STANDARDS[:3], sigma=0.01, jump=jump)
    np.testing.assert_allclose(found.jump, jump, rtol=1e-9)
    heavy = 1e4  # a stiff extra row keeps the sum to 1e-8 of the data
    for pixel in range(50):
        design = np.column_stack([STANDARDS[:3].T, np.ones(40)])
        design = np.vstack([design, heavy * np.array([1, 1, 1, 0])])
        target = np.append(data[:, pixel], heavy * jump[pixel])
        bounds = ([0, 0, 0, -np.inf], np.full(4, np.inf))
        optimum = lsq_linear(design, target, bounds, method="bvls").x[:3]
        np.testing.assert_allclose(found.fractions[:, pixel] * jump[pixel], optimum, atol=1e-6)


@pytest.mark.parametrize("fixed", [False, True])
def test_known_mixtures_come_back_with_honest_errors(fixed):
    truth = np.tile([[0.3], [0.25], [0.45]], 4000)
    data, jump = mixtures(truth, 0.004)
    found = linear_combination(data, STANDARDS[:3], sigma=0.004, jump=jump if fixed else None)
    pull = (found.fractions - truth) / found.sigma
    # 4000 repeats: a mean is known to 0.016, a standard deviation to 1.1 %; what χ² adds to σ makes 4 % less
    assert np.abs(pull.mean(axis=1)).max() < 0.06
    assert 0.9 < pull.std(axis=1).min() < pull.std(axis=1).max() < 1.03
    assert np.mean(found.chi2) == pytest.approx(1.0, abs=0.02)  # 36 degrees of freedom: 0.4 %
    assert np.allclose(found.fractions.sum(axis=0), 1.0)


def test_absent_standards_get_little_and_no_more_than_their_error():
    truth = np.tile([[0.6], [0.0], [0.4]], 2000)
    data, _ = mixtures(truth, 0.004)
    found = linear_combination(data, STANDARDS[:3], sigma=0.004)
    assert (found.fractions >= 0).all()
    pull = found.fractions[1] / found.sigma[1]
    assert pull.mean() == pytest.approx(0.4, abs=0.05)  # mean of the positive half of a normal: 1/√(2π)
    assert np.mean(pull == 0) == pytest.approx(0.5, abs=0.05)  # √(0.25/2000) = 0.011


def test_errors_grow_with_what_the_standards_cannot_describe():
    truth = np.tile([[0.5], [0.5]], 300)
    data, jump = mixtures(truth, 0.002)
    data += 0.1 * jump / (1 + ((ENERGY[:, None] - 5500) / 6) ** 2)
    found = linear_combination(data, STANDARDS[:2], sigma=0.002)
    plain = linear_combination(mixtures(truth, 0.002)[0], STANDARDS[:2], sigma=0.002)
    assert np.median(found.chi2) > 4
    growth = np.sqrt(found.chi2 / np.maximum(plain.chi2, 1.0))
    # the sum takes up a little of the extra peak, which changes jump and fractions by as much
    np.testing.assert_allclose(np.median(found.sigma / plain.sigma), np.median(growth), rtol=0.05)
    assert np.median(found.r_factor) > 3 * np.median(plain.r_factor)


def test_missing_energies_and_pixels():
    data, _ = mixtures(np.tile([[0.5], [0.5]], 5), 0.0)
    data[3] = np.nan
    data[7, 2] = np.nan
    found = linear_combination(data, STANDARDS[:2], sigma=0.01)
    assert np.isnan(found.fractions[:, 2]).all()
    np.testing.assert_allclose(np.delete(found.fractions, 2, axis=1), 0.5, atol=1e-9)


def test_a_shift_of_the_standards_is_found():
    fine = np.arange(5380.0, 5580.0, 0.25)
    standards = [
        BulkSpectrum(str(state), fine, *(2 * [shape(fine, *state)]), 1.0).shifted(-0.7)
        for state in STATES[:2]
    ]
    data, _ = mixtures(np.tile([[0.7], [0.3]], 50), 0.002)
    # 50 spectra of 2e-3 against slopes of 0.05 per eV over 20 energies: 2e-3 eV; interpolation as much again
    assert best_shift(data, standards, ENERGY, 2.0) == pytest.approx(0.7, abs=0.02)
    shifted = standards_at(standards, ENERGY, shift_eV=0.7)
    np.testing.assert_allclose(shifted, STANDARDS[:2], atol=0.003)  # chords of 0.25 eV
    with pytest.raises(DataError, match="covers"):
        standards_at(standards, [5300.0, 5500.0])


@pytest.mark.parametrize(
    ("standards", "message"),
    [
        (STANDARDS[:, :-1], "expected shape"),
        (STANDARDS[[0, 1, 1]], "alike"),
        (np.repeat(STANDARDS, 3, axis=0), "1 to 8"),
    ],
)
def test_refusals(standards, message):
    with pytest.raises(DataError, match=message):
        linear_combination(np.zeros((40, 3)), standards, sigma=1.0)
    with pytest.raises(DataError, match="energies for 4 standards"):
        linear_combination(np.zeros((5, 3)), STANDARDS[:, :5], sigma=1.0)
