# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Compiled inner loop of the XANES fits: variable projection with Levenberg–Marquardt, pixel by pixel.

Rows of the work array `rows` are functions of energy (and, in a joint fit, once more for the phase): first
the linear shapes (step, Lorentzians, then rows that do not change, such as the constant), then derivatives of
the shapes by the non-linear parameters (edge centre and width, then centre and width of each Lorentzian). One
Gram matrix of these rows gives the step (Schur complement over the linear part, Kaufman's variant of Golub
and Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)) and the covariance. The number of columns is padded to
whole SIMD registers by columns of no weight; factors hold the inverse of their diagonal.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ptychrome.analysis.xanes_shapes import COMPILED, absorbance_rows, phase_rows

LONGEST_STEP = 0.12  # of the width between bounds: longer leaps land in minima with a negative white line


@njit(**COMPILED)
def dot(a, i, b, k):
    """a[i] · b[k]."""
    total = 0.0
    for j in range(a.shape[1]):
        total += a[i, j] * b[k, j]
    return total


@njit(**COMPILED)
def dot_four(rows, i, k):
    """rows[i] · rows[k], rows[k + 1], rows[k + 2], rows[k + 3], each value of rows[i] read once."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for j in range(rows.shape[1]):
        value = rows[i, j]
        a += value * rows[k, j]
        b += value * rows[k + 1, j]
        c += value * rows[k + 2, j]
        d += value * rows[k + 3, j]
    return a, b, c, d


@njit(**COMPILED)
def gram(rows, first, last, out):
    """out[i, k] = rows[i] · rows[k] for first ≤ i < last and k ≤ i."""
    for i in range(first, last):
        k = 0
        while k + 3 <= i:
            out[i, k], out[i, k + 1], out[i, k + 2], out[i, k + 3] = dot_four(rows, i, k)
            k += 4
        while k <= i:
            out[i, k] = dot(rows, i, rows, k)
            k += 1


@njit(**COMPILED)
def factorise(matrix, lower, n):
    """Cholesky factor of matrix[:n, :n]; pivots lost to rounding are floored: their unknowns freeze."""
    for i in range(n):
        for k in range(i):
            total = matrix[i, k]
            for m in range(k):
                total -= lower[i, m] * lower[k, m]
            lower[i, k] = total * lower[k, k]
        total = matrix[i, i]
        for m in range(i):
            total -= lower[i, m] * lower[i, m]
        lower[i, i] = 1.0 / math.sqrt(max(total, 1e-13 * matrix[i, i] + 1e-300))


@njit(**COMPILED)
def substitute(lower, x, n):
    """Solve (lower lowerᵀ) x = x in place."""
    for i in range(n):
        total = x[i]
        for m in range(i):
            total -= lower[i, m] * x[m]
        x[i] = total * lower[i, i]
    for i in range(n - 1, -1, -1):
        total = x[i]
        for m in range(i + 1, n):
            total -= lower[m, i] * x[m]
        x[i] = total * lower[i, i]


@njit(**COMPILED)
def project(
    theta, edge_kind, energy, falloff, root_weight, data, prior, prior_weight, rows, matrix, lower, linear,
    residual,
):  # fmt: skip
    """Best linear parameters for given non-linear ones; returns the cost Σ w r² + priors.

    Also leaves the rows of the derivatives, without their amplitudes.
    """
    n_linear = linear.size
    absorbance_rows(theta, edge_kind, energy, falloff, root_weight, rows, n_linear)
    if rows.shape[1] > energy.size:
        phase_rows(theta, edge_kind, energy, root_weight, rows, n_linear)
    gram(rows, 0, n_linear, matrix)
    for i in range(n_linear):
        linear[i] = dot(rows, i, data, 0)
    factorise(matrix, lower, n_linear)
    substitute(lower, linear, n_linear)
    for j in range(rows.shape[1]):
        residual[0, j] = data[0, j]
    for i in range(n_linear):
        amplitude = linear[i]
        for j in range(rows.shape[1]):
            residual[0, j] -= amplitude * rows[i, j]
    cost = dot(residual, 0, residual, 0)
    for k in range(theta.size):
        cost += prior_weight[k] * (theta[k] - prior[k]) ** 2
    return cost


@njit(**COMPILED)
def normal_equations(theta, prior, prior_weight, rows, matrix, linear, residual, gradient):
    """Rest of the Gram matrix at `theta` (derivatives times their amplitude) and the downhill gradient."""
    n_linear, n_shape = linear.size, theta.size
    gram(rows, n_linear, n_linear + n_shape, matrix)
    for k in range(n_shape):
        amplitude = linear[k // 2]
        gradient[k] = amplitude * dot(rows, n_linear + k, residual, 0) - prior_weight[k] * (
            theta[k] - prior[k]
        )
        for i in range(n_linear):
            matrix[n_linear + k, i] *= amplitude
        for m in range(k + 1):
            matrix[n_linear + k, n_linear + m] *= amplitude * linear[m // 2]


@njit(**COMPILED)
def reduce_to_shape(matrix, lower, n_linear, prior_weight, reduced):
    """Schur complement: what the data know of the non-linear parameters once the linear ones follow.

    `lower` holds the factor of the linear part and takes lower⁻¹ times the mixed part below it.
    """
    for k in range(reduced.shape[0]):
        row = n_linear + k
        for i in range(n_linear):
            total = matrix[row, i]
            for m in range(i):
                total -= lower[i, m] * lower[row, m]
            lower[row, i] = total * lower[i, i]
        for m in range(k + 1):
            total = matrix[row, n_linear + m]
            for i in range(n_linear):
                total -= lower[row, i] * lower[n_linear + m, i]
            reduced[k, m] = total
        reduced[k, k] += prior_weight[k]


@njit(**COMPILED)
def damped_step(theta, lower_bound, upper_bound, reduced, gradient, floor, damping, damped, factor, step):
    """Levenberg–Marquardt step within a box and the bounds; returns the decrease it promises.

    Parameters that stand at a bound and are pushed outwards take no part.
    """
    n = theta.size
    for k in range(n):
        stuck = (theta[k] <= lower_bound[k] and gradient[k] < 0) or (
            theta[k] >= upper_bound[k] and gradient[k] > 0
        )
        for m in range(k):
            damped[k, m] = reduced[k, m]
        damped[k, k] = reduced[k, k] + damping * (reduced[k, k] + floor[k])
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


@njit(**COMPILED)
def invert(matrix, extra, lower, scale, place, out):
    """Inverse of matrix + diag(extra), of which the lower triangle is read, times `scale`.

    Unknown i goes to `place[i]` of the result, or is left out where that is negative.
    """
    n = matrix.shape[0]
    for i in range(n):
        matrix[i, i] += extra[i]
    factorise(matrix, lower, n)
    for i in range(n):  # lower⁻¹ in place, row by row
        for k in range(i):
            total = 0.0
            for m in range(k, i):
                total -= lower[i, m] * lower[m, k]
            matrix[i, k] = total * lower[i, i]
        for k in range(i):
            lower[i, k] = matrix[i, k]
    for i in range(n):
        for k in range(i + 1):
            if place[i] >= 0 and place[k] >= 0:
                total = 0.0
                for m in range(i, n):
                    total += lower[m, i] * lower[m, k]
                out[place[i], place[k]] = scale * total
                out[place[k], place[i]] = scale * total


@njit(**COMPILED)
def fit_pixels(
    energy, falloff, edge_kind, fixed, place, root_weight, spectra, variance, start, lower_bound, upper_bound,
    prior, prior_strength, max_iterations, tolerance, out_parameters, out_covariance, out_cost, out_converged,
):  # fmt: skip
    """Fit every row of `spectra` (already times `root_weight`, zero where missing).

    `fixed` holds the linear shapes that do not change. Unknown i of the kernel (linear ones, then shapes) is
    parameter `place[i]` of the output, or none where that is negative. `variance` (noise²) weighs the data
    against priors and bounds; a bound counts as a flat prior of the same variance in the covariance.
    """
    n_shape, n_moving, width = start.shape[1], start.shape[1] // 2, spectra.shape[1]
    n_linear = n_moving + fixed.shape[0]
    n = n_linear + n_shape
    rows, trial_rows = np.empty((n, width)), np.empty((n, width))
    matrix, trial_matrix = np.empty((n, n)), np.empty((n, n))
    lower, trial_lower = np.zeros((n, n)), np.zeros((n, n))
    reduced, damped = np.empty((n_shape, n_shape)), np.empty((n_shape, n_shape))
    factor = np.zeros((n_shape, n_shape))
    linear, trial_linear = np.empty(n_linear), np.empty(n_linear)
    data, residual, trial_residual = np.empty((1, width)), np.empty((1, width)), np.empty((1, width))
    gradient, step, extra = np.empty(n_shape), np.empty(n_shape), np.zeros(n)
    theta, trial = np.empty(n_shape), np.empty(n_shape)
    for pixel in range(spectra.shape[0]):
        data[0], weight = spectra[pixel], root_weight[pixel]
        for i in range(fixed.shape[0]):
            for j in range(width):
                rows[n_moving + i, j] = trial_rows[n_moving + i, j] = weight[j] * fixed[i, j]
        strength = variance[pixel] * prior_strength
        floor = variance[pixel] * 12.0 / (upper_bound - lower_bound) ** 2
        theta[:] = np.minimum(np.maximum(start[pixel], lower_bound), upper_bound)
        tiny = 1e-12 * dot(data, 0, data, 0)
        cost = project(
            theta, edge_kind, energy, falloff, weight, data, prior, strength, rows, matrix, lower, linear,
            residual,
        )  # fmt: skip
        normal_equations(theta, prior, strength, rows, matrix, linear, residual, gradient)
        reduce_to_shape(matrix, lower, n_linear, strength, reduced)
        damping, converged = 1e-2, False
        for _ in range(max_iterations):
            promised = damped_step(
                theta, lower_bound, upper_bound, reduced, gradient, floor, damping, damped, factor, step
            )
            for k in range(n_shape):
                trial[k] = theta[k] + step[k]
            trial_cost = project(
                trial, edge_kind, energy, falloff, weight, data, prior, strength, trial_rows, trial_matrix,
                trial_lower, trial_linear, trial_residual,
            )  # fmt: skip
            small = tolerance * (cost + tiny)
            if trial_cost <= cost:
                converged = damping <= 1.0 and cost - trial_cost <= small and promised <= small
                cost = trial_cost
                theta, trial = trial, theta
                rows, trial_rows = trial_rows, rows
                matrix, trial_matrix = trial_matrix, matrix
                lower, trial_lower = trial_lower, lower
                linear, trial_linear = trial_linear, linear
                residual, trial_residual = trial_residual, residual
                damping = max(0.2 * damping, 1e-9)
                normal_equations(theta, prior, strength, rows, matrix, linear, residual, gradient)
                reduce_to_shape(matrix, lower, n_linear, strength, reduced)
            else:
                converged = damping <= 1.0 and promised <= 1e-3 * small
                damping *= 8.0
            if converged or damping > 1e12:
                break
        for k in range(n_shape):
            extra[n_linear + k] = strength[k] + floor[k]
            out_parameters[pixel, place[n_linear + k]] = theta[k]
        for i in range(n_linear):
            if place[i] >= 0:
                out_parameters[pixel, place[i]] = linear[i]
        invert(matrix, extra, trial_lower, variance[pixel], place, out_covariance[pixel])
        out_cost[pixel], out_converged[pixel] = cost, converged
