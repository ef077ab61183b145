"""Small linear algebra against NumPy's."""

import numpy as np
import pytest
from numba import njit

from ptychrome.analysis.xanes_algebra import factorise, invert, products, solve


@njit
def _solved(matrix, right, n):
    lower, x = np.zeros((n, n)), right.copy()
    least = factorise(matrix, lower, n)
    return x, solve(lower, x, n), least


@njit
def _inverse(matrix, n):
    out = np.zeros((n + 1, n + 1))
    out[:n, :n] = matrix
    invert(out, n)
    return out[:n, :n]


@njit
def _products(rows):
    out = np.zeros((rows.shape[0], rows.shape[0]))
    for i in range(rows.shape[0]):
        products(rows, i, 0, i + 1, out)
    return out


@pytest.mark.parametrize("n", [1, 4, 6, 10])
def test_solution_and_inverse(n):
    rng = np.random.default_rng(n)
    rows, right = rng.standard_normal((n, 40)), rng.standard_normal(n)
    matrix = _products(rows)
    full = rows @ rows.T
    np.testing.assert_allclose(matrix, np.tril(full), rtol=1e-12, atol=1e-12)  # rounding
    x, square, least = _solved(matrix, right, n)
    np.testing.assert_allclose(x, np.linalg.solve(full, right), rtol=1e-9)  # rounding × condition
    assert square == pytest.approx(right @ np.linalg.solve(full, right), rel=1e-9)
    assert 0.0 < least <= 1.0
    np.testing.assert_allclose(_inverse(matrix, n), np.linalg.inv(full), rtol=1e-8, atol=1e-12)


def test_least_pivot_tells_an_indefinite_matrix_and_a_singular_one_stays_finite():
    assert _solved(np.array([[1.0, 0.0], [2.0, 1.0]]), np.ones(2), 2)[2] == pytest.approx(-3.0)  # 1 − 2²
    x, _, least = _solved(np.ones((2, 2)), np.ones(2), 2)
    assert least == 0.0
    assert x.sum() == pytest.approx(1.0)
