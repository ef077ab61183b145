"""The number of states: found where there are some, one where there is one; what the criteria are."""

from dataclasses import fields

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from ptychrome.analysis.cluster_count import count_states
from ptychrome.analysis.clustering import FeatureSpace, cluster
from ptychrome.analysis.scan import DataError

# edge energy (eV), PE/Δμt (eV), Re[N_eff]/N_V of the oxides of the twin
STATES = np.array([[5476.7, 0.5, 42.3], [5478.2, 1.2, 38.6], [5478.9, 2.0, 47.9], [5480.0, 2.8, 35.1]])


def pixels(states, n=1500, seed=0, noise=(0.12, 0.12, 0.6)):
    """Pixels of equal shares of the states; their noise goes as 1/N_V."""
    rng = np.random.default_rng(seed)
    n_v = rng.uniform(0.3, 1.2, n)
    chosen = rng.integers(len(states), size=n)
    return states[chosen] + noise * rng.standard_normal((n, 3)) / n_v[:, None], n_v


@pytest.fixture(scope="module")
def four():
    features, n_v = pixels(STATES)
    return features, n_v, count_states(features, n_v**2, range(1, 8))


def test_four_states_are_proposed_and_every_criterion_turns_there(four):
    *_, count = four
    assert count.proposed == 4
    place = int(np.flatnonzero(count.ks == 4)[0])
    assert np.nanargmax(count.silhouette) == place
    assert count.stability[place] > 0.98  # states are 5 σ apart at the mean N_V: few pixels are doubtful
    drop = -np.diff(np.log(count.inertia))
    assert drop[place - 1] > 3 * drop[place]  # the elbow
    assert count.gap[place] - count.gap[place - 1] > 5 * count.gap_sigma[place]
    within = count.gap[:-1] >= count.gap[1:] - count.gap_sigma[1:]
    assert count.ks[np.flatnonzero(within)[0]] == 4  # Tibshirani's rule
    assert count.bic[place] < count.bic[place - 1] - 0.1


def test_one_state_is_one():
    features, n_v = pixels(STATES[:1])
    count = count_states(features, n_v**2, range(1, 6))
    assert count.proposed == 1
    assert count.stability[0] == 1.0
    assert np.isnan(count.silhouette[0])


def test_inertia_and_silhouette_are_those_of_the_clusters(four):
    features, n_v, count = four
    space = FeatureSpace.of(features, n_v**2)
    found = cluster(features, n_v**2, 4)
    centers = (found.centers - space.middle) / space.scale
    distance = np.sum((space.values - centers[found.labels]) ** 2, axis=1)
    # centres carry the rounding of eV around 5478
    assert count.inertia[3] == pytest.approx(np.average(distance, weights=n_v**2), rel=1e-6)
    # all 1500 pixels are drawn (2000 at most), so the sample is the whole
    assert count.silhouette[3] == pytest.approx(silhouette_score(space.values, found.labels), rel=1e-6)


def test_the_same_seed_gives_the_same(four):
    features, n_v, count = four
    again = count_states(features, n_v**2, range(1, 8))
    for field in fields(count):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(count, field.name))


def test_errors_name_what_is_wrong():
    features, n_v = pixels(STATES, n=30)
    with pytest.raises(DataError, match="ascending"):
        count_states(features, n_v, [3, 2])
    with pytest.raises(DataError, match="need 40 valid pixels, got 30"):
        count_states(features, n_v, [2, 20])
