# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Compiled inner loop of the XANES fits: variable projection with Levenberg–Marquardt, pixel by pixel.

Rows of the work array `rows` are functions of energy: first the linear shapes (1, step, Lorentzians), then
the derivatives of the shapes by the non-linear parameters (edge centre and width, then centre and width of
each Lorentzian). One Gram matrix of these rows gives the step (Schur complement over the linear part,
Kaufman's variant of Golub and Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)) and the covariance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_OPTIONS: Any = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},  # not "nnan": a diverging trial must compare as such
}
LONGEST_STEP = 0.12  # of the width between bounds: longer leaps land in minima with a negative white line


@njit(**_OPTIONS)
def shapes(theta, energy, falloff, root_weight, rows, derivatives):
    """Fill the linear shapes, or their derivatives, all multiplied by the root of the weights."""
    n_linear = 1 + theta.size // 2
    for j in range(energy.size):
        w = root_weight[j]
        step = w * falloff[j]
        u = (energy[j] - theta[0]) / theta[1]
        if derivatives:
            slope = -step * math.exp(-u * u) / (math.sqrt(math.pi) * theta[1])
            rows[n_linear, j] = slope
            rows[n_linear + 1, j] = u * slope
        else:
            rows[0, j] = w
            rows[1, j] = 0.5 * step * (1.0 + math.erf(u))
    for i in range(1, theta.size // 2):
        centre, width = theta[2 * i], theta[2 * i + 1]
        for j in range(energy.size):
            v = (energy[j] - centre) / width
            shape = 1.0 / (1.0 + v * v)
            if derivatives:
                slope = 2.0 * root_weight[j] * v * shape * shape / width
                rows[n_linear + 2 * i, j] = slope
                rows[n_linear + 2 * i + 1, j] = v * slope
            else:
                rows[i + 1, j] = root_weight[j] * shape


@njit(**_OPTIONS)
def gram(rows, first, last, out):
    """out[i, k] = rows[i] · rows[k] for first ≤ i < last and k ≤ i, mirrored."""
    for i in range(first, last):
        for k in range(i + 1):
            total = 0.0
            for j in range(rows.shape[1]):
                total += rows[i, j] * rows[k, j]
            out[i, k] = total
            out[k, i] = total


@njit(**_OPTIONS)
def factorise(matrix, lower, n):
    """Cholesky factor of matrix[:n, :n]; pivots lost to rounding are floored: their unknowns freeze."""
    for i in range(n):
        for k in range(i + 1):
            total = matrix[i, k]
            for m in range(k):
                total -= lower[i, m] * lower[k, m]
            if i == k:
                lower[i, i] = math.sqrt(max(total, 1e-13 * matrix[i, i] + 1e-300))
            else:
                lower[i, k] = total / lower[k, k]


@njit(**_OPTIONS)
def substitute(lower, x, n):
    """Solve (lower lowerᵀ) x = x in place."""
    for i in range(n):
        for m in range(i):
            x[i] -= lower[i, m] * x[m]
        x[i] /= lower[i, i]
    for i in range(n - 1, -1, -1):
        for m in range(i + 1, n):
            x[i] -= lower[m, i] * x[m]
        x[i] /= lower[i, i]


@njit(**_OPTIONS)
def project(
    theta, energy, falloff, root_weight, data, prior, prior_weight, rows, matrix, lower, linear, residual
):
    """Best linear parameters for given non-linear ones; returns the cost Σ w r² + priors."""
    n_linear = linear.size
    shapes(theta, energy, falloff, root_weight, rows, False)
    gram(rows, 0, n_linear, matrix)
    for i in range(n_linear):
        total = 0.0
        for j in range(energy.size):
            total += rows[i, j] * data[j]
        linear[i] = total
    factorise(matrix, lower, n_linear)
    substitute(lower, linear, n_linear)
    cost = 0.0
    for j in range(energy.size):
        model = 0.0
        for i in range(n_linear):
            model += linear[i] * rows[i, j]
        residual[j] = data[j] - model
        cost += residual[j] * residual[j]
    for k in range(theta.size):
        cost += prior_weight[k] * (theta[k] - prior[k]) ** 2
    return cost


@njit(**_OPTIONS)
def normal_equations(
    theta, energy, falloff, root_weight, prior, prior_weight, rows, matrix, linear, residual, gradient
):
    """Full Gram matrix at `theta` (derivative rows times their amplitude) and the downhill gradient."""
    n_linear, n_shape = linear.size, theta.size
    shapes(theta, energy, falloff, root_weight, rows, True)
    for k in range(n_shape):
        amplitude = linear[1 + k // 2]
        total = 0.0
        for j in range(energy.size):
            rows[n_linear + k, j] *= amplitude
            total += rows[n_linear + k, j] * residual[j]
        gradient[k] = total - prior_weight[k] * (theta[k] - prior[k])
    gram(rows, n_linear, n_linear + n_shape, matrix)


@njit(**_OPTIONS)
def reduce_to_shape(matrix, lower, n_linear, prior_weight, reduced, column):
    """Schur complement: what the data know of the non-linear parameters once the linear ones follow."""
    n_shape = reduced.shape[0]
    for k in range(n_shape):
        for i in range(n_linear):
            column[i] = matrix[i, n_linear + k]
        substitute(lower, column, n_linear)
        for m in range(k + 1):
            total = matrix[n_linear + k, n_linear + m]
            for i in range(n_linear):
                total -= column[i] * matrix[i, n_linear + m]
            reduced[k, m] = total
            reduced[m, k] = total
        reduced[k, k] += prior_weight[k]


@njit(**_OPTIONS)
def damped_step(theta, lower_bound, upper_bound, reduced, gradient, floor, damping, damped, factor, step):
    """Levenberg–Marquardt step within a box and the bounds; returns the decrease it promises.

    Parameters that stand at a bound and are pushed outwards take no part.
    """
    n = theta.size
    for k in range(n):
        stuck = (theta[k] <= lower_bound[k] and gradient[k] < 0) or (
            theta[k] >= upper_bound[k] and gradient[k] > 0
        )
        for m in range(n):
            damped[k, m] = reduced[k, m]
        damped[k, k] += damping * (reduced[k, k] + floor[k])
        step[k] = gradient[k]
        if stuck:
            step[k] = 0.0
            damped[k, k] = 1e30 * (reduced[k, k] + floor[k])
    factorise(damped, factor, n)
    substitute(factor, step, n)
    promised = 0.0
    for k in range(n):
        box = LONGEST_STEP * (upper_bound[k] - lower_bound[k])
        step[k] = min(max(step[k], -box), box)
        step[k] = min(max(theta[k] + step[k], lower_bound[k]), upper_bound[k]) - theta[k]
        promised += step[k] * gradient[k]
    return promised


@njit(**_OPTIONS)
def invert(matrix, extra, lower, out):
    """Inverse of matrix + diag(extra), by columns."""
    n = matrix.shape[0]
    for i in range(n):
        matrix[i, i] += extra[i]
    factorise(matrix, lower, n)
    column = np.empty(n)
    for i in range(n):
        for k in range(n):
            column[k] = 1.0 if k == i else 0.0
        substitute(lower, column, n)
        for k in range(n):
            out[i, k] = column[k]


@njit(**_OPTIONS)
def fit_pixels(
    energy, falloff, root_weight, spectra, variance, start, lower_bound, upper_bound, prior, prior_strength,
    max_iterations, tolerance, out_linear, out_shape, out_inverse, out_cost, out_converged,
):  # fmt: skip
    """Fit every row of `spectra` (already times `root_weight`, zero where missing).

    `variance` (noise²) weighs the data against priors and bounds; `out_inverse` is the inverse of the Gram
    matrix with priors and bounds (a bound counts as a flat prior of the same variance), linear part first.
    """
    n_shape = start.shape[1]
    n_linear = 1 + n_shape // 2
    n = n_linear + n_shape
    rows = np.empty((n, energy.size))
    matrix, lower = np.empty((n, n)), np.zeros((n, n))
    trial_matrix, trial_lower = np.empty((n, n)), np.zeros((n, n))
    reduced, damped, factor = (
        np.empty((n_shape, n_shape)),
        np.empty((n_shape, n_shape)),
        np.zeros((n_shape, n_shape)),
    )
    linear, trial_linear, column = np.empty(n_linear), np.empty(n_linear), np.empty(n_linear)
    residual, trial_residual = np.empty(energy.size), np.empty(energy.size)
    gradient, step, extra = np.empty(n_shape), np.empty(n_shape), np.zeros(n)
    theta, trial = np.empty(n_shape), np.empty(n_shape)
    for pixel in range(spectra.shape[0]):
        data, weight = spectra[pixel], root_weight[pixel]
        strength = variance[pixel] * prior_strength
        floor = variance[pixel] * 12.0 / (upper_bound - lower_bound) ** 2
        theta[:] = np.minimum(np.maximum(start[pixel], lower_bound), upper_bound)
        tiny = 1e-12 * np.sum(data * data)
        cost = project(
            theta, energy, falloff, weight, data, prior, strength, rows, matrix, lower, linear, residual
        )
        normal_equations(
            theta, energy, falloff, weight, prior, strength, rows, matrix, linear, residual, gradient
        )
        reduce_to_shape(matrix, lower, n_linear, strength, reduced, column)
        damping, converged = 1e-2, False
        for _ in range(max_iterations):
            promised = damped_step(
                theta, lower_bound, upper_bound, reduced, gradient, floor, damping, damped, factor, step
            )
            trial[:] = theta + step
            trial_cost = project(
                trial, energy, falloff, weight, data, prior, strength, rows, trial_matrix, trial_lower,
                trial_linear, trial_residual,
            )  # fmt: skip
            small = tolerance * (cost + tiny)
            if trial_cost <= cost:
                converged = damping <= 1.0 and cost - trial_cost <= small and promised <= small
                cost = trial_cost
                theta, trial = trial, theta
                matrix, trial_matrix = trial_matrix, matrix
                lower, trial_lower = trial_lower, lower
                linear, trial_linear = trial_linear, linear
                residual, trial_residual = trial_residual, residual
                damping = max(0.2 * damping, 1e-9)
                normal_equations(
                    theta, energy, falloff, weight, prior, strength, rows, matrix, linear, residual, gradient
                )
                reduce_to_shape(matrix, lower, n_linear, strength, reduced, column)
            else:
                converged = damping <= 1.0 and promised <= 1e-3 * small
                damping *= 8.0
            if converged or damping > 1e12:
                break
        extra[n_linear:] = strength + floor
        invert(matrix, extra, trial_lower, out_inverse[pixel])
        out_linear[pixel], out_shape[pixel] = linear, theta
        out_cost[pixel], out_converged[pixel] = cost, converged
