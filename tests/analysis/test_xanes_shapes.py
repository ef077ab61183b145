"""Compiled shapes against SciPy, their Kramers–Kronig partners against two numerical transforms."""

import numpy as np
import pytest
from numba import njit
from scipy.integrate import quad
from scipy.special import dawsn, erf

from ptychrome.analysis.kramers_kronig import kramers_kronig_matrix
from ptychrome.analysis.optics import CLASSICAL_ELECTRON_RADIUS_M, HC_EV_M
from ptychrome.analysis.xanes_shapes import (
    ARCTAN,
    ERROR_FUNCTION,
    absorbance_curvature,
    absorbance_rows,
    dawson_and_integral,
    erf_and_gauss,
    phase_curvature,
    phase_rows,
)

KINDS = pytest.mark.parametrize("kind", [ERROR_FUNCTION, ARCTAN])
THETA = np.array([5478.0, 2.5, 5469.0, 1.2, 5485.0, 4.0])
ENERGY = np.concatenate([np.linspace(5420.0, 5460.0, 9), np.linspace(5462.0, 5500.0, 77), [5520.0, 5540.0]])


def rows(theta, kind, energy=ENERGY, root_weight=None):
    """All rows at once: shapes, then derivatives; absorbance, then phase along the columns."""
    weight = np.ones(2 * energy.size) if root_weight is None else root_weight
    out = np.zeros((3 + theta.size, 2 * energy.size))
    absorbance_rows(theta, kind, energy, np.ones(energy.size), weight, out, 3)
    phase_rows(theta, kind, energy, weight, out, 3)
    return out


def test_error_function():
    u = np.linspace(-9, 9, 4001)
    values = np.array([erf_and_gauss(x) for x in u])
    np.testing.assert_allclose(values[:, 0], erf(u), atol=2e-11, rtol=0)  # as stated
    np.testing.assert_allclose(values[:, 1], np.exp(-np.minimum(u**2, 36.0)), atol=1e-13, rtol=0)


def test_dawson_function_and_its_integral():
    u = np.concatenate([np.linspace(-13, 13, 2003), [-400.0, 11.99, 12.0, 60.0]])
    values = np.array([dawson_and_integral(x) for x in u])
    np.testing.assert_allclose(values[:, 0], dawsn(u), atol=1e-8, rtol=0)  # as stated
    for x in (0.7, 5.3, 11.99, 12.01, 60.0):
        expected = quad(dawsn, 0.0, x, limit=500, epsabs=1e-12)[0]
        assert dawson_and_integral(x)[1] == pytest.approx(expected, abs=1e-7)
        assert dawson_and_integral(-x)[1] == dawson_and_integral(x)[1]


@KINDS
def test_derivatives(kind):
    exact, n_shapes = rows(THETA, kind), 3
    for k in range(THETA.size):
        step = np.where(np.arange(THETA.size) == k, 1e-4, 0.0)
        change = (rows(THETA + step, kind) - rows(THETA - step, kind))[k // 2] / 2e-4
        difference = change - exact[n_shapes + k]
        # a width of the edge moves its partner by a constant, which the phase has for itself
        phase = difference[ENERGY.size :]
        np.testing.assert_allclose(difference[: ENERGY.size], 0, atol=1e-6)
        np.testing.assert_allclose(phase - phase.mean(), 0, atol=2e-6)


@KINDS
@pytest.mark.parametrize("part", ["absorbance", "phase"])
def test_second_derivatives(kind, part):
    """Against differences of the first, summed with random numbers that do not feel a constant."""
    n, residual = ENERGY.size, np.random.default_rng(1).standard_normal(2 * ENERGY.size)
    residual[n:] -= residual[n:].mean()
    residual[n if part == "absorbance" else 0 :][:n] = 0.0
    found = np.zeros((3, 3))
    absorbance_curvature(THETA, kind, ENERGY, np.ones(n), residual, found)
    phase_curvature(THETA, kind, ENERGY, residual, found)
    for shape in range(3):
        for first, second in ((0, 0), (0, 1), (1, 1)):
            step = np.where(np.arange(THETA.size) == 2 * shape + second, 1e-3, 0.0)
            change = (rows(THETA + step, kind) - rows(THETA - step, kind)) / 2e-3
            expected = change[3 + 2 * shape + first] @ residual
            # tables within 1e-8 over a step of 1e-3, and the error of the difference: 1e-5 of values near 1
            assert found[shape, first + second] == pytest.approx(expected, abs=2e-4), (shape, first, second)


@KINDS
def test_weights_multiply_all(kind):
    weight = np.random.default_rng(0).uniform(0, 2, 2 * ENERGY.size)
    np.testing.assert_allclose(rows(THETA, kind, root_weight=weight), rows(THETA, kind) * weight, rtol=1e-12)


@KINDS
@pytest.mark.parametrize("shape", [0, 1, 2])
def test_partners_are_the_phase_that_kramers_kronig_demands(kind, shape):
    """μt = 2 r_e λ N f″ and φ = −r_e λ N f′, f′ from f″ by the matrix; N = 1, one row of μt for all of it.

    The matrix needs a grid that ends somewhere: 5478 ± 4000 eV, where a step is cut off. That, and what
    is smooth over the edge, leaves a parabola over the window of 120 eV.
    """
    reach = np.geomspace(1.0, 4000.0, 600)
    grid = np.unique(np.concatenate([5478 - reach, 5478 + reach, np.arange(5440, 5520, 0.05)]))
    at = ENERGY + 0.011  # off the nodes
    amplitude = CLASSICAL_ELECTRON_RADIUS_M * HC_EV_M
    f2 = rows(THETA, kind, grid)[shape, : grid.size] * grid / (2 * amplitude)
    phase = -amplitude / at * (kramers_kronig_matrix(grid, at) @ f2)
    partner = rows(THETA, kind, at)[shape, at.size :]
    x = (at - 5480) / 60
    difference = phase - partner
    left = difference - np.polyval(np.polyfit(x, difference, 2), x)
    assert np.ptp(partner) > 0.3
    assert np.max(np.abs(left)) < 2e-3  # linear between nodes: 1e-4 here; the cut-off step: 1e-3


@njit
def _row_at(theta, kind, x, shape):
    energy, out = np.full(1, x), np.zeros((9, 1))
    absorbance_rows(theta, kind, energy, np.ones(1), np.ones(1), out, 3)
    return out[shape, 0]


def test_lorentzian_s_partner_against_an_adaptive_integral():
    for at in (5465.3, 5469.4, 5476.0):
        integral = quad(
            lambda x: _row_at(THETA, ERROR_FUNCTION, x, 1),
            at - 3000,
            at + 3000,
            weight="cauchy",
            wvar=at,
            limit=2000,
        )[0]
        partner = rows(THETA, ERROR_FUNCTION, np.array([at]))[1, 1]
        assert partner == pytest.approx(integral / (2 * np.pi), abs=1e-4)  # tails beyond 3000 eV: 1e-7
