"""One clustering for several particles: a label means the same chemical state everywhere."""

import numpy as np
import pytest

from ptychrome.analysis.clustering import ClusterOptions
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.results import Revision
from ptychrome.profiles.pooled import pool_clusters

STATES = np.array([(5477.0, 0.8, 38.0), (5479.5, 1.6, 41.0), (5478.5, 2.6, 46.0)])
NAMES = ("edge_energy", "pre_edge_ratio", "n_eff_ratio")


def particle(shares, seed):
    """A result whose pixels belong to three states in given shares; also its true states."""
    rng = np.random.default_rng(seed)
    state = rng.choice(3, (20, 25), p=shares)
    missing = rng.random(state.shape) < 0.2
    values = STATES[state] + rng.standard_normal((*state.shape, 3)) * (0.1, 0.08, 0.5)
    arrays = {
        f"maps/{name}": np.where(missing, np.nan, values[..., i]).astype(np.float32)
        for i, name in enumerate(NAMES)
    }
    arrays["maps/n_v"] = np.where(missing, np.nan, rng.uniform(1e22, 4e22, state.shape)).astype(np.float32)
    arrays["y"], arrays["x"] = (30e-9 * np.arange(size)[::-1] for size in state.shape)
    arrays["absorbance"] = np.stack([1.0 * state, 2.0 * state]).astype(np.float32)
    arrays["clusters/label"] = np.zeros(state.shape, np.int32)
    name = f"particle {seed}"
    return Revision(name, name, {"recipe": "live"}, arrays, {}, (), True), np.where(missing, -1, state)


def test_labels_are_common_to_all_particles():
    (first, true_first), (second, true_second) = particle((0.7, 0.2, 0.1), 1), particle((0.1, 0.3, 0.6), 2)
    pooled = pool_clusters({"P1": first, "D1": second}, 3)
    label = np.concatenate([pooled[name].arrays["clusters/label"].ravel() for name in ("P1", "D1")])
    true = np.concatenate([true_first.ravel(), true_second.ravel()])
    np.testing.assert_array_equal(label == -1, true == -1)
    # states are 8 σ apart or more: each true state has one label, the same in both particles
    partner = [np.unique(label[true == state]) for state in range(3)]
    assert [len(labels) for labels in partner] == [1, 1, 1]
    assert len(np.unique(np.concatenate(partner))) == 3
    centers = pooled["P1"].arrays["clusters/centers"]
    np.testing.assert_array_equal(centers, pooled["D1"].arrays["clusters/centers"])
    np.testing.assert_allclose(centers[np.concatenate(partner)], STATES, atol=0.1)


def test_fractions_and_spectra_are_each_particle_s_own():
    results = {"P1": particle((0.7, 0.2, 0.1), 1)[0], "D1": particle((0.1, 0.3, 0.6), 2)[0]}
    for result in pool_clusters(results, 3, ClusterOptions(narrowest_m=0.0)).values():
        arrays = result.arrays
        n_v, label = np.nan_to_num(arrays["maps/n_v"].astype(float)), arrays["clusters/label"]
        expected = [n_v[label == k].sum() / n_v[label >= 0].sum() for k in range(3)]
        np.testing.assert_allclose(arrays["clusters/fractions"], expected, rtol=1e-5)
        assert arrays["clusters/spectra"].shape == (3, 2)
        assert arrays["clusters/fractions_sigma"].shape == (3,)
        probability = arrays["clusters/probability"]
        np.testing.assert_array_equal(np.isfinite(probability), label >= 0)
        assert np.nanmin(probability) > 0.9  # states 8 σ apart leave no doubt
        assert result.attributes["pooled_with"] == ["D1", "P1"]
        assert result.attributes["recipe"] == "live"


def test_the_results_given_are_not_altered():
    result, _ = particle((0.4, 0.3, 0.3), 1)
    pool_clusters({"P1": result}, 3)
    assert not result.arrays["clusters/label"].any()
    assert "pooled_with" not in result.attributes


def test_results_without_maps_stay_as_they_are():
    bare = Revision("b", "b", {}, {"energy": np.array([5480.0])}, {}, (), True)
    pooled = pool_clusters({"P1": particle((0.4, 0.3, 0.3), 1)[0], "star": bare}, 3)
    assert pooled["star"] is bare
    assert list(pooled) == ["P1", "star"]
    assert pool_clusters({"star": bare}, 3) == {"star": bare}


def test_too_few_pixels_are_an_error():
    result, _ = particle((0.4, 0.3, 0.3), 1)
    nothing = {name: np.full_like(array, np.nan) for name, array in result.arrays.items() if "maps/" in name}
    empty = Revision("e", "e", {}, {**result.arrays, **nothing}, {}, (), True)
    with pytest.raises(DataError):
        pool_clusters({"P1": empty}, 3)
