"""Components of simulated stacks: their number from the noise, non-negative, and the data back."""

import numpy as np
import pytest
from scipy.special import erf
from sklearn.decomposition import TruncatedSVD

from ptychrome.analysis.components import components, number_of_components
from ptychrome.analysis.scan import DataError
from ptychrome.plans import v_k_edge

ENERGY = np.array(v_k_edge())
SIGMA = 0.003
STATES = ((5476.0, 0.3), (5478.0, 0.1), (5480.0, 0.9), (5482.0, 0.5), (5479.0, 1.6))


def stack(k, pixels=2000, sigma=SIGMA, seed=0, separate=False):
    """(n_energy, n) of k states, and its spectra (k, n_energy)."""
    rng = np.random.default_rng(seed)
    edge, peak = (np.array(column)[:, None] for column in zip(*STATES[:k], strict=True))
    spectra = (
        0.1
        + 0.5 * (1 + erf((ENERGY - edge) / 2.5))
        + peak / (1 + ((ENERGY - edge + 9) / 1.1) ** 2)
        + 0.4 / (1 + ((ENERGY - edge - 7) / 4) ** 2)
    )
    shares = np.eye(k)[rng.integers(k, size=pixels)].T if separate else rng.dirichlet(np.ones(k), pixels).T
    amounts = 0.25 * rng.uniform(0.3, 1.0, pixels) * shares
    return spectra.T @ amounts + sigma * rng.standard_normal((ENERGY.size, pixels)), spectra


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_the_number_of_components_is_the_true_one(k):
    for seed in range(5):
        assert number_of_components(stack(k, seed=seed)[0], SIGMA)[0] == k


def test_noise_alone_makes_none():
    """Four standard deviations of the Tracy–Widom law: fewer than 1 in 1000."""
    rng = np.random.default_rng(0)
    flat = np.outer(np.ones(40), rng.uniform(0.1, 0.3, 500))
    found = [
        number_of_components(flat + SIGMA * rng.standard_normal((40, 500)), SIGMA)[0] for _ in range(100)
    ]
    assert found == [1] * 100


def test_a_component_lost_in_the_noise_is_not_counted():
    assert number_of_components(stack(5, sigma=0.2)[0], 0.2)[0] < 3


def test_noisy_energies_count_less():
    data, _ = stack(3)
    noise = np.full(40, SIGMA)
    noise[[5, 20]] = 0.05
    data += np.sqrt(noise**2 - SIGMA**2)[:, None] * np.random.default_rng(9).standard_normal(data.shape)
    assert number_of_components(data, noise)[0] == 3
    assert number_of_components(data, SIGMA)[0] == 5


@pytest.mark.parametrize("k", [2, 4])
def test_factors_are_non_negative_and_explain_the_data_to_the_noise(k):
    data, _ = stack(k)
    found = components(data, SIGMA, k)
    assert found.spectra.shape == (k, 40)
    assert (found.spectra >= 0).all()
    assert (found.amounts >= 0).all()
    assert found.spectra.max(axis=1) == pytest.approx(1.0)
    rest = data - found.spectra.T @ found.amounts
    # free parameters take up k (1/40 + 1/2000) of the noise; what NMF has not converged to adds a few percent
    assert np.sqrt(np.mean(rest**2)) == pytest.approx(SIGMA, rel=0.1)
    assert np.all(np.diff(found.variance) <= 0)
    assert found.variance.sum() == pytest.approx(1.0)


def test_principal_components_leave_what_noise_leaves():
    """scikit-learn's truncated decomposition of the same data is the independent way."""
    data, _ = stack(3)
    found = components(data, SIGMA, 3)
    assert np.abs(found.principal_spectra).max(axis=1) == pytest.approx(1.0)
    assert (found.principal_amounts.mean(axis=1) > 0).all()
    model = TruncatedSVD(3, algorithm="arpack")
    scores = model.fit_transform(data.T)
    np.testing.assert_allclose(
        found.principal_spectra.T @ found.principal_amounts, (scores @ model.components_).T, atol=1e-10
    )


def test_states_that_are_pure_somewhere_come_back():
    data, spectra = stack(3, separate=True, sigma=0.001)
    found = components(data, 0.001, 3)
    likeness = np.corrcoef(found.spectra, spectra)[:3, 3:]
    assert sorted(likeness.argmax(axis=1)) == [0, 1, 2]
    assert likeness.max(axis=1).min() > 0.98  # the factorisation is not unique: they stay slightly mixed


def test_the_same_result_twice():
    data, _ = stack(3)
    first, second = (components(data, SIGMA, 2) for _ in range(2))
    np.testing.assert_array_equal(first.spectra, second.spectra)
    assert first.spectra.shape == (2, 40)


def test_refusals():
    data, _ = stack(2)
    with pytest.raises(DataError, match="positive noise"):
        number_of_components(data, 0.0)
    with pytest.raises(DataError, match="finite absorbance"):
        number_of_components(np.where(data > 0.2, np.nan, data), SIGMA)
    with pytest.raises(DataError, match="one per energy"):
        number_of_components(data, np.ones(3))
    with pytest.raises(DataError, match="41 components"):
        components(data, SIGMA, 41)
