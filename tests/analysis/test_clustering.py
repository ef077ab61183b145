"""Clusters of chemical states on a four-state simulation whose noise goes as 1/N_V."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ptychrome.analysis.clustering import ClusterOptions, cluster, cluster_fractions, cluster_spectra
from ptychrome.analysis.scan import DataError

# edge energy (eV), PE/Δμt (eV), Re[N_eff]/N_V
STATES = np.array([[5477.0, 0.8, 38.0], [5478.0, 1.5, 42.0], [5479.0, 2.2, 38.0], [5480.0, 1.5, 46.0]])
LOW_NOISE, HIGH_NOISE = np.array([0.10, 0.10, 0.5]), np.array([0.17, 0.13, 2.0])


def particle(noise, seed: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, N_V (a quarter of the pixels is thin edge) and true states."""
    rng = np.random.default_rng(seed)
    state = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    n_v = np.where(rng.random(n) < 0.25, rng.uniform(0.12, 0.6, n), rng.uniform(0.7, 1.3, n))
    return STATES[state] + noise * rng.standard_normal((n, 3)) / n_v[:, None], n_v, state


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("noise", "floor"), [(LOW_NOISE, 0.93), (HIGH_NOISE, 0.78)])
def test_finds_the_states_where_raw_kmeans_fails(noise, floor, seed):
    features, n_v, state = particle(noise, seed)
    score = adjusted_rand_score(state, cluster(features, n_v**2, 4).labels)
    assert score > floor  # 0.96 and 0.82 measured; the thin edge is what is lost
    thick = n_v > 0.7
    assert adjusted_rand_score(state[thick], cluster(features, n_v**2, 4).labels[thick]) > 0.93
    if noise is HIGH_NOISE:
        raw = KMeans(4, n_init=4, random_state=0).fit(features).labels_
        assert score > adjusted_rand_score(state, raw) + 0.3


def test_centres_are_physical_and_ordered():
    features, n_v, _ = particle(LOW_NOISE, 0)
    found = cluster(features, n_v**2, 4)
    # thin pixels assigned to the neighbour pull the centres a little
    assert np.all(np.abs(found.centers - STATES) < [0.05, 0.05, 0.3])


def test_labels_stay_while_data_stream_in():
    rng = np.random.default_rng(0)
    features, n_v, _ = particle(HIGH_NOISE, 0)
    found = cluster(features, n_v**2, 4)
    for _ in range(5):
        features = features + 0.05 * HIGH_NOISE * rng.standard_normal(features.shape)
        # a cold start labels by edge energy: a permuted previous shows that matching does the work
        again = cluster(features, n_v**2, 4, previous=found.centers, seed=int(rng.integers(100)))
        assert np.mean(again.labels != found.labels) < 0.02
        found = again
    permuted = cluster(features, n_v**2, 4, previous=found.centers[[2, 0, 3, 1]])
    assert np.mean(np.array([2, 0, 3, 1])[permuted.labels] == found.labels) > 0.98


def test_recovers_from_poor_early_centres():
    features, n_v, state = particle(LOW_NOISE, 1)
    poor = np.repeat(STATES[:1], 4, axis=0) + np.linspace(0, 0.01, 4)[:, None]
    assert adjusted_rand_score(state, cluster(features, n_v**2, 4, previous=poor).labels) > 0.9


def test_labels_stay_when_another_particle_is_added():
    """The default and the paper's way; as prepared first, then one whose main states have changed places."""
    features, n_v, _ = particle(LOW_NOISE, 3)
    rng = np.random.default_rng(4)
    state = rng.choice(4, 4000, p=[0.2, 0.4, 0.3, 0.1])
    added = STATES[state] + LOW_NOISE * rng.standard_normal((4000, 3))
    for options in (ClusterOptions(), ClusterOptions(scaling="none", weights="none")):
        before = cluster(features, options.pixel_weights(n_v), 4, scaling=options.scaling)
        after = cluster(
            np.concatenate([features, added]),
            options.pixel_weights(np.append(n_v, np.ones(4000))),
            4,
            previous=before.centers,
            scaling=options.scaling,
        )
        assert np.mean(after.labels[:4000] != before.labels) < 0.02  # what is asked for; 0.4 % measured


def test_the_paper_s_way_is_plain_kmeans():
    features, n_v, _ = particle(HIGH_NOISE, 0)
    options = ClusterOptions(scaling="none", weights="none")
    found = cluster(features, options.pixel_weights(n_v), 6, scaling=options.scaling)
    plain = KMeans(6, n_init=10, random_state=0).fit(features)
    assert adjusted_rand_score(plain.labels_, found.labels) > 0.98  # both stop at a change of 1e-4
    order = np.argsort(plain.cluster_centers_[:, 0])
    np.testing.assert_allclose(found.centers, plain.cluster_centers_[order], rtol=2e-3)


def test_weights_are_missing_where_there_is_no_edge():
    n_v = [2.0, -1.0, 0.0, np.nan]
    for weights, heavy in (("n_v2", 4.0), ("none", 1.0)):
        found = ClusterOptions(weights=weights).pixel_weights(n_v)
        np.testing.assert_array_equal(found > 0, [True, False, False, False])
        assert found[0] == heavy


def test_missing_features_are_labelled_minus_one():
    features, n_v, _ = particle(LOW_NOISE, 2, n=200)
    features[3, 1] = np.nan
    n_v[5] = 0.0
    labels = cluster(features, n_v**2, 4).labels
    assert labels[3] == labels[5] == -1
    assert np.all(np.delete(labels, [3, 5]) >= 0)
    assert labels.dtype == np.int32


def test_fractions_and_spectra_are_weighted_by_atoms():
    labels, n_v = np.array([0, 0, 1, -1, 2]), np.array([1.0, 3.0, 4.0, 9.0, np.nan])
    np.testing.assert_allclose(cluster_fractions(labels, n_v, 3), [0.5, 0.5, 0.0])
    absorbance = np.array([[1.0, 2.0, 3.0, 7.0, 1.0], [np.nan] * 5])
    spectra = cluster_spectra(labels, absorbance, n_v, 3)
    np.testing.assert_allclose(spectra, [[1.75, np.nan], [3.0, np.nan], [np.nan, np.nan]])


def test_errors_name_what_is_wrong():
    with pytest.raises(DataError, match="k = 5"):
        cluster(np.ones((3, 3)), np.ones(3), 5)
    with pytest.raises(DataError, match="weights"):
        cluster(np.ones((3, 3)), np.ones(4), 2)
    with pytest.raises(DataError, match="previous"):
        cluster(np.random.default_rng(0).random((9, 3)), np.ones(9), 2, previous=np.ones((3, 3)))
