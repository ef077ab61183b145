# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Compiled inner loop of the XANES fits: variable projection, pixel by pixel.

The amplitudes follow from the non-linear parameters θ by linear least squares. θ is found by steps of
Levenberg–Marquardt (Kaufman's variant of Golub and Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)), which find
their way from afar, and near the minimum by Newton's: with the exact Hessian they end in two or three steps
where the first creep along valleys that noise has bent.

Rows of the work array `rows` are functions of energy (and, in a joint fit, once more for the phase): first
the linear shapes (step, Lorentzians, then rows that do not change, such as the constant), then derivatives of
the shapes by θ (edge centre and width, then centre and width of each Lorentzian), last the data. Their scalar
products are all that is needed: amplitudes, cost, gradient, step (Schur complement over the linear part) and
covariance. The number of columns is padded to whole SIMD registers by columns of no weight; factors hold the
inverse of their diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ptychrome.analysis.xanes_algebra import INLINED, factorise, invert, products, solve
from ptychrome.analysis.xanes_shapes import (
    COMPILED,
    absorbance_curvature,
    absorbance_rows,
    phase_curvature,
    phase_rows,
)

LONGEST_STEP = 0.12  # of the width between bounds: longer leaps land in minima with a negative white line
NEAR = 0.03  # relative decrease of the cost in one step below which Newton's steps are tried
FIRST_DAMPING, LITTLE_DAMPING = 0.03, 0.01
DEFINITE = 1e-6  # least pivot over its diagonal element of a Hessian that Newton's step trusts


class Shared(NamedTuple):
    """What all pixels have in common.

    Attributes
    ----------
    energy, falloff : (m,) float64
        eV, and the factor of the step there.
    kinds : tuple of int
        Of the shapes: that of the edge, then `LORENTZIAN`s. Tuples, since LLVM shall know their lengths.
    fixed : tuple of (width,) float64
        Linear shapes that do not change; width is m, or 2 m with a phase.
    place : (n,) int
        Which parameter of the output an unknown is (amplitudes, then θ); negative: none.
    lower_bound, upper_bound : (n_shape,) float64
    prior, prior_strength : (n_shape,) float64
        Means and inverse variances of Gaussian priors.
    max_iterations : int
    tolerance : float
    """

    energy: NDArray[np.float64]
    falloff: NDArray[np.float64]
    kinds: tuple[int, ...]
    fixed: tuple[NDArray[np.float64], ...]
    place: NDArray[np.intp]
    lower_bound: NDArray[np.float64]
    upper_bound: NDArray[np.float64]
    prior: NDArray[np.float64]
    prior_strength: NDArray[np.float64]
    max_iterations: int
    tolerance: float


class Point(NamedTuple):
    """Where a fit stands: θ, all rows there, their products, a Cholesky factor, and the amplitudes."""

    theta: NDArray[np.float64]
    rows: NDArray[np.float64]
    matrix: NDArray[np.float64]
    lower: NDArray[np.float64]
    linear: NDArray[np.float64]


@njit(**INLINED)
def point(n_linear, n_shape, width):
    """Memory for one."""
    n = n_linear + n_shape
    return Point(
        np.empty(n_shape), np.empty((n + 1, width)), np.empty((n + 1, n + 1)), np.zeros((n, n)),
        np.empty(n_linear),
    )  # fmt: skip


@njit(**INLINED)
def project(shared, weight, strength, square, here):
    """Best amplitudes for given θ; returns the cost Σ w r² + priors.

    `square` is the squared norm of the data; what the amplitudes explain of it is taken off. Also leaves the
    rows of the derivatives, without their amplitudes.
    """
    theta, rows, matrix, lower, linear = here
    n_linear, data = linear.size, rows.shape[0] - 1
    absorbance_rows(theta, shared.kinds[0], shared.energy, shared.falloff, weight, rows, n_linear)
    if rows.shape[1] > shared.energy.size:
        phase_rows(theta, shared.kinds[0], shared.energy, weight, rows, n_linear)
    for i in range(n_linear):
        products(rows, i, 0, i + 1, matrix)
    products(rows, data, 0, n_linear, matrix)
    for i in range(n_linear):
        linear[i] = matrix[data, i]
    factorise(matrix, lower, n_linear)
    cost = square - solve(lower, linear, n_linear)
    for k in range(theta.size):
        cost += strength[k] * (theta[k] - shared.prior[k]) ** 2
    return cost


@njit(**INLINED)
def normal_equations(shared, strength, here, slope, gradient):
    """Rest of the products at `here` (derivatives times their amplitude) and the downhill gradient.

    `slope` takes the products of residual and derivatives, without amplitudes and priors.
    """
    theta, rows, matrix, _, linear = here
    n_linear, n_shape, data = linear.size, theta.size, rows.shape[0] - 1
    for k in range(n_shape):
        products(rows, n_linear + k, 0, n_linear + k + 1, matrix)
    products(rows, data, n_linear, data, matrix)
    for k in range(n_shape):
        row, amplitude = n_linear + k, linear[k // 2]
        total = matrix[data, row]
        for i in range(n_linear):
            total -= linear[i] * matrix[row, i]
            matrix[row, i] *= amplitude
        for m in range(k + 1):
            matrix[row, n_linear + m] *= amplitude * linear[m // 2]
        slope[k] = total
        gradient[k] = amplitude * total - strength[k] * (theta[k] - shared.prior[k])


@njit(**INLINED)
def second_order(shared, weight, here, residual, curvature):
    """curvature[i] = residual · second derivatives of shape i by centre twice, by both, by width twice."""
    theta, rows, _, _, linear = here
    data = rows.shape[0] - 1
    for j in range(rows.shape[1]):
        residual[j] = rows[data, j]
    for i in range(linear.size):
        for j in range(rows.shape[1]):
            residual[j] -= linear[i] * rows[i, j]
    for j in range(rows.shape[1]):
        residual[j] *= weight[j]
    absorbance_curvature(theta, shared.kinds[0], shared.energy, shared.falloff, residual, curvature)
    if rows.shape[1] > shared.energy.size:
        phase_curvature(theta, shared.kinds[0], shared.energy, residual, curvature)


@njit(**INLINED)
def reduce_to_shape(here, strength, exact, slope, curvature, mixed, reduced):
    """Schur complement: what the data know of θ once the amplitudes follow.

    By Gauss and Newton, or of the exact Hessian: shape i's second derivatives by θ are curvature[i] times
    its amplitude, those by amplitude and θ are `slope`. `mixed` is work space, (n_shape, n_linear).
    """
    matrix, lower, linear = here.matrix, here.lower, here.linear
    n_linear = linear.size
    for k in range(reduced.shape[0]):
        row, own = n_linear + k, k // 2
        for i in range(n_linear):
            mixed[k, i] = matrix[row, i]
        if exact:
            mixed[k, own] -= slope[k]
        for i in range(n_linear):
            total = mixed[k, i]
            for m in range(i):
                total -= lower[i, m] * mixed[k, m] * lower[m, m]
            mixed[k, i] = total
        for m in range(k + 1):
            total = matrix[row, n_linear + m]
            if exact and m // 2 == own:
                total -= linear[own] * curvature[own, k % 2 + m % 2]
            for i in range(n_linear):
                total -= mixed[k, i] * mixed[m, i] * lower[i, i]
            reduced[k, m] = total
        reduced[k, k] += strength[k]


@njit(**INLINED)
def damped_step(shared, theta, reduced, gradient, floor, damping, damped, factor, step):
    """Step within a box and the bounds; returns the decrease it promises and the least relative pivot.

    Parameters that stand at a bound and are pushed outwards take no part.
    """
    n = theta.size
    for k in range(n):
        stuck = (theta[k] <= shared.lower_bound[k] and gradient[k] < 0) or (
            theta[k] >= shared.upper_bound[k] and gradient[k] > 0
        )
        for m in range(k):
            damped[k, m] = reduced[k, m]
        damped[k, k] = reduced[k, k] + damping * (reduced[k, k] + floor[k])
        step[k] = gradient[k]
        if stuck:
            step[k] = 0.0
            damped[k, k] = 1e30 * (abs(reduced[k, k]) + floor[k])
    least = factorise(damped, factor, n)
    solve(factor, step, n)
    promised = 0.0
    for k in range(n):
        box = LONGEST_STEP * (shared.upper_bound[k] - shared.lower_bound[k])
        step[k] = min(max(step[k], -box), box)
        step[k] = min(max(theta[k] + step[k], shared.lower_bound[k]), shared.upper_bound[k]) - theta[k]
        promised += step[k] * gradient[k]
    return promised, least


@njit(**INLINED)
def load(shared, weight, spectrum, here):
    """Rows that do not depend on θ; returns the squared norm of the data."""
    rows, n_moving, square = here.rows, len(shared.kinds), 0.0
    data = rows.shape[0] - 1
    for j in range(spectrum.size):
        rows[data, j] = spectrum[j]
        square += spectrum[j] ** 2
    for i in range(len(shared.fixed)):
        shape = shared.fixed[i]
        for j in range(spectrum.size):
            rows[n_moving + i, j] = weight[j] * shape[j]
    return square


@njit(**INLINED)
def collect(place, here, parameters):
    """Unknowns to where they belong among the `parameters`."""
    n_linear = here.linear.size
    for i in range(n_linear):
        if place[i] >= 0:
            parameters[place[i]] = here.linear[i]
    for k in range(here.theta.size):
        parameters[place[n_linear + k]] = here.theta[k]


@njit(**COMPILED)
def best_amplitudes(shared, root_weight, spectra, theta, out_parameters, out_model):
    """Parameters with given θ that fit rows of `spectra` best, and their model (times root weight)."""
    n_moving, width = len(shared.kinds), spectra.shape[1]
    n_linear = n_moving + len(shared.fixed)
    here, strength = point(n_linear, 2 * n_moving, width), np.zeros(2 * n_moving)
    for pixel in range(spectra.shape[0]):
        here.theta[:] = theta[pixel]
        square = load(shared, root_weight[pixel], spectra[pixel], here)
        project(shared, root_weight[pixel], strength, square, here)
        collect(shared.place, here, out_parameters[pixel])
        out_model[pixel] = 0.0
        for i in range(n_linear):
            for j in range(width):
                out_model[pixel, j] += here.linear[i] * here.rows[i, j]


@njit(**COMPILED)
def fit_pixels(
    shared, root_weight, spectra, variance, start, out_parameters, out_covariance, out_cost, out_converged
):
    """Fit every row of `spectra` (already times `root_weight`, zero where missing).

    `variance` (noise²) weighs the data against priors and bounds; a bound counts as a flat prior of the same
    variance in the covariance.
    """
    low, high, place, tolerance = shared.lower_bound, shared.upper_bound, shared.place, shared.tolerance
    n_moving, width = len(shared.kinds), spectra.shape[1]
    n_shape, n_linear = 2 * n_moving, n_moving + len(shared.fixed)
    n = n_linear + n_shape
    here, trial = point(n_linear, n_shape, width), point(n_linear, n_shape, width)
    reduced, damped, factor = (
        np.empty((n_shape, n_shape)),
        np.empty((n_shape, n_shape)),
        np.zeros((n_shape, n_shape)),
    )
    slope, gradient, step = np.empty(n_shape), np.empty(n_shape), np.empty(n_shape)
    strength, floor = np.empty(n_shape), np.empty(n_shape)
    curvature, mixed, residual = np.empty((n_moving, 3)), np.empty((n_shape, n_linear)), np.empty(width)
    for pixel in range(spectra.shape[0]):
        weight = root_weight[pixel]
        square = load(shared, weight, spectra[pixel], here)
        load(shared, weight, spectra[pixel], trial)
        for k in range(n_shape):
            strength[k] = variance[pixel] * shared.prior_strength[k]
            floor[k] = variance[pixel] * 12.0 / (high[k] - low[k]) ** 2
            here.theta[k] = min(max(start[pixel, k], low[k]), high[k])
        tiny = 1e-12 * square
        cost = project(shared, weight, strength, square, here)
        normal_equations(shared, strength, here, slope, gradient)
        reduce_to_shape(here, strength, False, slope, curvature, mixed, reduced)
        damping, near, converged = FIRST_DAMPING, False, False
        for _ in range(shared.max_iterations):
            promised, least = damped_step(
                shared, here.theta, reduced, gradient, floor, damping, damped, factor, step
            )
            if near and least < DEFINITE:
                near = False
                reduce_to_shape(here, strength, False, slope, curvature, mixed, reduced)
                promised, least = damped_step(
                    shared, here.theta, reduced, gradient, floor, damping, damped, factor, step
                )
            small = tolerance * (cost + tiny)
            if near and damping <= LITTLE_DAMPING and promised <= 0.3 * small:
                converged = True
                break
            for k in range(n_shape):
                trial.theta[k] = here.theta[k] + step[k]
            trial_cost = project(shared, weight, strength, square, trial)
            if trial_cost <= cost:
                decrease = cost - trial_cost
                converged = damping <= 1.0 and decrease <= small and promised <= small
                near = decrease <= NEAR * (trial_cost + tiny)
                cost = trial_cost
                here, trial = trial, here
                damping = max(0.2 * damping, 1e-9)
                normal_equations(shared, strength, here, slope, gradient)
                if near and not converged:
                    second_order(shared, weight, here, residual, curvature)
                reduce_to_shape(here, strength, near, slope, curvature, mixed, reduced)
            else:
                converged = damping <= 1.0 and promised <= 1e-3 * small
                damping *= 8.0
            if converged or damping > 1e12:
                break
        for k in range(n_shape):
            here.matrix[n_linear + k, n_linear + k] += strength[k] + floor[k]
        collect(place, here, out_parameters[pixel])
        invert(here.matrix, n)
        for i in range(n):
            for k in range(n):
                if place[i] >= 0 and place[k] >= 0:
                    out_covariance[pixel, place[i], place[k]] = variance[pixel] * here.matrix[i, k]
        out_cost[pixel], out_converged[pixel] = cost, converged
