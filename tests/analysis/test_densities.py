"""Densities against SciPy's kernel estimate, and what integrates to one."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from ptychrome.analysis.densities import density
from ptychrome.analysis.scan import DataError


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return rng.standard_normal((4000, 2)) * (0.5, 2.0) + (5478.0, 40.0), rng.uniform(0.1, 1.0, 4000)


def test_one_dimension_is_scipy_s(pixels):
    values, weights = pixels
    (axis,), found = density(values[:, :1], weights, [(5476.0, 5480.0)], bins=400)
    oracle = gaussian_kde(values[:, 0], weights=weights)(axis)
    # bins of 0.01 against a kernel of 0.1 widen it by 1 %; n − 1 in SciPy's deviation
    np.testing.assert_allclose(found, oracle, atol=0.01 * oracle.max())
    assert found.sum() * (axis[1] - axis[0]) == pytest.approx(1.0, abs=1e-3)  # 4 σ of 4000 pixels


def test_two_dimensions_are_scipy_s_where_features_are_independent(pixels):
    values, weights = pixels
    (x, y), found = density(values, weights, [(5476.0, 5480.0), (32.0, 48.0)], bins=160)
    grid = np.stack(np.meshgrid(x, y, indexing="ij")).reshape(2, -1)
    oracle = gaussian_kde(values.T, weights=weights)(grid).reshape(found.shape)
    np.testing.assert_allclose(found, oracle, atol=0.03 * oracle.max())  # SciPy's kernel leans with the data
    assert found.sum() * (x[1] - x[0]) * (y[1] - y[0]) == pytest.approx(1.0, abs=2e-3)


def test_a_part_of_the_range_holds_its_share(pixels):
    values, weights = pixels
    (axis,), found = density(values[:, :1], weights, [(5478.0, 5480.0)], bandwidth=[1e-3])
    expected = weights[values[:, 0] > 5478.0].sum() / weights.sum()
    assert found.sum() * (axis[1] - axis[0]) == pytest.approx(expected, abs=5e-3)  # a bin of 0.01 at the peak


def test_missing_pixels_do_not_count(pixels):
    values, weights = (array[:50].copy() for array in pixels)
    without = density(values[2:], weights[2:], [(5476.0, 5480.0), (32.0, 48.0)], bins=20)[1]
    values[0, 1], weights[1] = np.nan, 0.0
    np.testing.assert_array_equal(
        density(values, weights, [(5476.0, 5480.0), (32.0, 48.0)], bins=20)[1], without
    )
    with pytest.raises(DataError, match="none"):
        density(values[:2], weights[:2], [(5476.0, 5480.0), (32.0, 48.0)])
    with pytest.raises(DataError, match="1 limits"):
        density(values, weights, [(0.0, 1.0)])
