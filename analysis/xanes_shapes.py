# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Compiled shapes of a K-edge spectrum, their Kramers–Kronig partners, and derivatives of both.

With absorbance μt and phase φ = −r_e λ N (Z + f′) the Kramers–Kronig relation reads, up to terms that are
smooth over an edge, φ(E) = (1/2π) P∫ μt(x)/(x − E) dx. Partners of the shapes, with u = (E − b2)/b3 and
v = (E − c2)/c3:
½ [1 + erf(u)] ↔ −G(u)/π, G(u) = ∫₀ᵘ D(s) ds and D the Dawson function; ½ + arctan(u)/π ↔ −ln(1 + u²)/(4π);
1/(1 + v²) ↔ −½ v/(1 + v²).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import dawsn, erfcx

COMPILED: Any = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},  # not "nnan": a diverging trial must compare as such
}
ERROR_FUNCTION, ARCTAN, LORENTZIAN = 0, 1, 2
LARGEST_U = 6.0  # erfc(6) = 2e-17


def _erfcx_coefficients() -> tuple[float, ...]:
    """exp(x²) erfc(x) for 0 ≤ x ≤ 6 as a polynomial in 1/(1 + x/2); erf comes out to 2e-11."""
    low = 1.0 / (1.0 + LARGEST_U / 2)
    t = low + (1.0 - low) * 0.5 * (1.0 + np.cos(np.pi * (np.arange(200) + 0.5) / 200))
    fitted = Chebyshev.fit(t, erfcx(2.0 * (1.0 / t - 1.0)), 12).convert(kind=Polynomial)
    return tuple(float(c) for c in fitted.coef)


_C = _erfcx_coefficients()
TABLE_END, TABLE_STEP = 12.0, 1 / 64  # cubic Hermite between the nodes: 1e-9; the series beyond 12: 1e-8


def _dawson_table() -> np.ndarray:
    """D(u) and ∫₀ᵘ D at 0, TABLE_STEP, …, (2, n); the integral by Gauss–Legendre, exact to rounding."""
    nodes = np.arange(round(TABLE_END / TABLE_STEP) + 2) * TABLE_STEP
    x, w = np.polynomial.legendre.leggauss(6)
    parts = dawsn(nodes[:-1, None] + TABLE_STEP * 0.5 * (x + 1.0)) @ w * (0.5 * TABLE_STEP)
    return np.stack([dawsn(nodes), np.concatenate([[0.0], np.cumsum(parts)])])


_DAWSON = _dawson_table()


@njit(**COMPILED)
def erf_and_gauss(u):
    """erf(u) within 2e-11, and exp(−u²)."""
    x = min(abs(u), LARGEST_U)
    r = x * x * (1.0 / 64.0)
    g = 1.0 - r * (1 / 5) * (
        1.0 - r * (1 / 6) * (1.0 - r * (1 / 7) * (1.0 - r * (1 / 8) * (1.0 - r * (1 / 9))))
    )
    g = 1.0 - r * (1.0 - r * 0.5 * (1.0 - r * (1 / 3) * (1.0 - r * 0.25 * g)))
    g *= g
    g *= g
    g *= g
    g *= g
    g *= g
    g *= g
    t = 1.0 / (1.0 + 0.5 * x)
    p = _C[7] + t * (_C[8] + t * (_C[9] + t * (_C[10] + t * (_C[11] + t * _C[12]))))
    p = _C[0] + t * (_C[1] + t * (_C[2] + t * (_C[3] + t * (_C[4] + t * (_C[5] + t * (_C[6] + t * p))))))
    return math.copysign(1.0 - p * g, u), g


@njit(**COMPILED)
def dawson_and_integral(u):
    """Dawson function D(u) and G(u) = ∫₀ᵘ D(s) ds, both within 1e-8."""
    x = abs(u)
    if x >= TABLE_END:
        q = 1.0 / (x * x)
        d = 0.5 / x * (1.0 + q * (0.5 + q * (0.75 + q * 1.875)))
        # γ/4 + ½ ln 2 is the constant of G(u) − ½ ln u at infinity
        g = 0.5 * math.log(x) + 0.4908775065 - q * (0.125 + q * 0.09375)
    else:
        place = x / TABLE_STEP
        k = int(place)
        f = place - k
        d0, d1 = _DAWSON[0, k], _DAWSON[0, k + 1]
        s0 = (1.0 - 2.0 * k * TABLE_STEP * d0) * TABLE_STEP
        s1 = (1.0 - 2.0 * (k + 1) * TABLE_STEP * d1) * TABLE_STEP
        d = _hermite(d0, d1, s0, s1, f)
        g = _hermite(_DAWSON[1, k], _DAWSON[1, k + 1], d0 * TABLE_STEP, d1 * TABLE_STEP, f)
    return math.copysign(d, u), g


@njit(**COMPILED)
def _hermite(y0, y1, s0, s1, f):
    """Cubic through two values with given slopes (per step), at the fraction f of the step."""
    rise = y1 - y0
    return y0 + f * (s0 + f * (3.0 * rise - 2.0 * s0 - s1 + f * (s0 + s1 - 2.0 * rise)))


@njit(**COMPILED)
def absorbance_rows(theta, edge_kind, energy, falloff, root_weight, rows, first):
    """Step and Lorentzians into rows 0, 1, …; derivatives by centre and width into rows first, first + 1, ….

    Everything times the root of the weights.
    """
    b2, inverse = theta[0], 1.0 / theta[1]
    if edge_kind == ERROR_FUNCTION:
        slope = -inverse / math.sqrt(math.pi)
        for j in range(energy.size):
            u = (energy[j] - b2) * inverse
            value, gauss = erf_and_gauss(u)
            w = root_weight[j] * falloff[j]
            rows[0, j] = 0.5 * w * (1.0 + value)
            rows[first, j] = w * slope * gauss
            rows[first + 1, j] = w * slope * gauss * u
    else:
        slope = -inverse / math.pi
        for j in range(energy.size):
            u = (energy[j] - b2) * inverse
            w = root_weight[j] * falloff[j]
            bell = w * slope / (1.0 + u * u)
            rows[0, j] = w * (0.5 + math.atan(u) / math.pi)
            rows[first, j] = bell
            rows[first + 1, j] = bell * u
    for i in range(1, theta.size // 2):
        centre, inverse = theta[2 * i], 1.0 / theta[2 * i + 1]
        for j in range(energy.size):
            v = (energy[j] - centre) * inverse
            shape = 1.0 / (1.0 + v * v)
            value = root_weight[j] * shape
            slope = 2.0 * inverse * v * shape * value
            rows[i, j] = value
            rows[first + 2 * i, j] = slope
            rows[first + 2 * i + 1, j] = v * slope


@njit(**COMPILED)
def phase_rows(theta, edge_kind, energy, root_weight, rows, first):
    """The same for the phase, into the second half of the columns.

    A step's partner is known up to a constant, which the phase has for itself: derivatives leave it out.
    """
    n = energy.size
    b2, inverse = theta[0], 1.0 / theta[1]
    for j in range(n):
        u = (energy[j] - b2) * inverse
        w = root_weight[n + j]
        if edge_kind == ERROR_FUNCTION:
            d, g = dawson_and_integral(u)
            value, slope = -g / math.pi, d * inverse / math.pi
        else:
            value = -math.log(1.0 + u * u) / (4.0 * math.pi)
            slope = u / (1.0 + u * u) * inverse / (2.0 * math.pi)
        rows[0, n + j] = w * value
        rows[first, n + j] = w * slope
        rows[first + 1, n + j] = w * slope * u
    for i in range(1, theta.size // 2):
        centre, inverse = theta[2 * i], 1.0 / theta[2 * i + 1]
        for j in range(n):
            v = (energy[j] - centre) * inverse
            shape = 1.0 / (1.0 + v * v)
            w = root_weight[n + j]
            slope = 0.5 * w * inverse * (1.0 - v * v) * shape * shape
            rows[i, n + j] = -0.5 * w * v * shape
            rows[first + 2 * i, n + j] = slope
            rows[first + 2 * i + 1, n + j] = v * slope


@njit(**COMPILED)
def absorbance_curvature(theta, edge_kind, energy, falloff, residual, out):
    """Products of `residual` (times root of the weights) and the second derivatives of the shapes.

    A shape f(u), u = (E − c)/w, has f″/w² by its centre c twice, (f′ + u f″)/w² by both, and
    u (2 f′ + u f″)/w² by its width w twice: these are the columns of `out`, a row for each shape.
    """
    b2, inverse = theta[0], 1.0 / theta[1]
    centre, mixed, width = 0.0, 0.0, 0.0
    if edge_kind == ERROR_FUNCTION:
        for j in range(energy.size):
            u = (energy[j] - b2) * inverse
            r, first = residual[j] * falloff[j], erf_and_gauss(u)[1] / math.sqrt(math.pi)
            second = -2.0 * u * first
            both = first + u * second
            centre, mixed, width = centre + r * second, mixed + r * both, width + r * u * (first + both)
    else:
        for j in range(energy.size):
            u = (energy[j] - b2) * inverse
            bell = 1.0 / (1.0 + u * u)
            r, first = residual[j] * falloff[j], bell / math.pi
            second = -2.0 * u * bell * first
            both = first + u * second
            centre, mixed, width = centre + r * second, mixed + r * both, width + r * u * (first + both)
    _store(out, 0, inverse, centre, mixed, width)
    for i in range(1, theta.size // 2):
        at, inverse = theta[2 * i], 1.0 / theta[2 * i + 1]
        centre, mixed, width = 0.0, 0.0, 0.0
        for j in range(energy.size):
            v = (energy[j] - at) * inverse
            shape = 1.0 / (1.0 + v * v)
            r, square = residual[j], 2.0 * shape * shape
            first, second = -v * square, square * (3.0 - 4.0 * shape)
            both = first + v * second
            centre, mixed, width = centre + r * second, mixed + r * both, width + r * v * (first + both)
        _store(out, i, inverse, centre, mixed, width)


@njit(**COMPILED)
def phase_curvature(theta, edge_kind, energy, residual, out):
    """Adds what the phase, the second half of `residual`, has of the same."""
    n = energy.size
    for i in range(theta.size // 2):
        at, inverse = theta[2 * i], 1.0 / theta[2 * i + 1]
        centre, mixed, width = 0.0, 0.0, 0.0
        for j in range(n):
            u, r = (energy[j] - at) * inverse, residual[n + j]
            bell = 1.0 / (1.0 + u * u)
            if i > 0:
                first = -0.5 * (1.0 - u * u) * bell * bell
                second = u * (3.0 - u * u) * bell * bell * bell
            elif edge_kind == ERROR_FUNCTION:
                d, _ = dawson_and_integral(u)
                first, second = -d / math.pi, -(1.0 - 2.0 * u * d) / math.pi
            else:
                first, second = -u * bell / (2.0 * math.pi), -bell * (2.0 * bell - 1.0) / (2.0 * math.pi)
            both = first + u * second
            centre, mixed, width = centre + r * second, mixed + r * both, width + r * u * (first + both)
        before = out[i, 0], out[i, 1], out[i, 2]
        _store(out, i, inverse, centre, mixed, width)
        for m in range(3):
            out[i, m] += before[m]


@njit(**COMPILED)
def _store(out, i, inverse, centre, mixed, width):
    scale = inverse * inverse
    out[i, 0], out[i, 1], out[i, 2] = scale * centre, scale * mixed, scale * width
