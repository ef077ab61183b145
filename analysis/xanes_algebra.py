# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Compiled linear algebra of a few unknowns, for the XANES fits.

Everything is inlined: where the caller's `n` is known at compile time, LLVM unrolls the loops, which is what
makes such small systems fast. So is L D Lᵀ instead of Cholesky's factors: no roots to wait for.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from ptychrome.analysis.xanes_shapes import COMPILED

INLINED: Any = COMPILED | {"forceinline": True}
LOST = 1e-13  # a pivot below this part of its diagonal element is lost to rounding


@njit(**INLINED)
def products(rows, i, first, last, out):
    """out[i, k] = rows[i] · rows[k] for first ≤ k < last, four at a time so that rows[i] is read once."""
    width = rows.shape[1]
    k = first
    while k + 3 < last:
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            value = rows[i, j]
            a += value * rows[k, j]
            b += value * rows[k + 1, j]
            c += value * rows[k + 2, j]
            d += value * rows[k + 3, j]
        out[i, k], out[i, k + 1], out[i, k + 2], out[i, k + 3] = a, b, c, d
        k += 4
    while k < last:
        a = 0.0
        for j in range(width):
            a += rows[i, j] * rows[k, j]
        out[i, k] = a
        k += 1


@njit(**INLINED)
def factorise(matrix, lower, n):
    """Factors L D Lᵀ of matrix[:n, :n]: `lower` takes L D below its diagonal and 1/D on it.

    Returns the least pivot over its diagonal element. Pivots lost to rounding are floored: their unknowns
    freeze.
    """
    least = 1.0
    for i in range(n):
        for k in range(i):
            total = matrix[i, k]
            for m in range(k):
                total -= lower[i, m] * lower[k, m] * lower[m, m]
            lower[i, k] = total
        total = matrix[i, i]
        for m in range(i):
            total -= lower[i, m] * lower[i, m] * lower[m, m]
        least = min(least, total / abs(matrix[i, i]))
        lower[i, i] = 1.0 / max(total, LOST * matrix[i, i] + 1e-300)
    return least


@njit(**INLINED)
def solve(lower, x, n):
    """Solve L D Lᵀ x = x in place; returns xᵀ (L D Lᵀ)⁻¹ x of the x given."""
    square = 0.0
    for i in range(n):
        total = x[i]
        for m in range(i):
            total -= lower[i, m] * x[m]
        x[i] = total * lower[i, i]
        square += total * x[i]
    for i in range(n - 1, -1, -1):
        total = 0.0
        for m in range(i + 1, n):
            total += lower[m, i] * x[m]
        x[i] -= total * lower[i, i]
    return square


@njit(**INLINED)
def invert(matrix, n):
    """Inverse of matrix[:n, :n], of which the lower triangle is read, in place (Gauss and Jordan).

    Pivots lost to rounding are floored, as in `factorise`; column n is work space.
    """
    for i in range(n):
        matrix[i, n] = matrix[i, i]
        for k in range(i):
            matrix[k, i] = matrix[i, k]
    for k in range(n):
        inverse = 1.0 / max(matrix[k, k], LOST * matrix[k, n] + 1e-300)
        matrix[k, k] = 1.0
        for j in range(n):
            matrix[k, j] *= inverse
        for i in range(n):
            if i != k:
                factor = matrix[i, k]
                matrix[i, k] = 0.0
                for j in range(n):
                    matrix[i, j] -= factor * matrix[k, j]
