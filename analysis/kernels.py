"""The element-wise inner loops of the engines, fused with Numba; the only module that knows Numba here.

Complex arrays are passed as they are; every loop runs along contiguous rows so that it vectorises.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# reassociation lets sums vectorise; NaN keeps its meaning, so that a diverging engine is noticed
_FAST = {"reassoc", "contract", "arcp", "nsz"}
_OPTIONS = {"cache": True, "fastmath": _FAST, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def exit_waves(obj, probes, modes, corner, out):
    """out[b, k] = modes[k] · probes[b] · obj[window b]."""
    count, ny, nx = probes.shape
    for b in range(count):
        r0, c0 = corner[b]
        for r in range(ny):
            window = obj[r0 + r, c0 : c0 + nx]
            probe = probes[b, r]
            first = out[b, 0, r]
            for c in range(nx):
                first[c] = probe[c] * window[c]
            for k in range(modes.shape[0] - 1, -1, -1):
                weight = modes[k, r]
                row = out[b, k, r]
                for c in range(nx):
                    row[c] = first[c] * weight[c]


@njit(**_OPTIONS)
def modulus_residual(waves, amplitude, floor):
    """Replace far fields by (measured modulus − own) and return the summed squared error.

    The modes of one position share the modulus √Σ_k|Ψ_k|²; a negative amplitude leaves the pixel free.
    """
    count, n_modes, ny, nx = waves.shape
    error = 0.0
    factor = np.empty(nx, dtype=np.float32)
    for b in range(count):
        for r in range(ny):
            measured = amplitude[b, r]
            for c in range(nx):
                factor[c] = np.float32(0.0)
            for k in range(n_modes):
                row = waves[b, k, r]
                for c in range(nx):
                    factor[c] += row[c].real * row[c].real + row[c].imag * row[c].imag
            row_error = np.float32(0.0)
            for c in range(nx):
                modulus = np.sqrt(factor[c] + floor)
                valid = np.float32(1.0) if measured[c] >= 0 else np.float32(0.0)
                difference = valid * (measured[c] - modulus)
                row_error += difference * difference
                factor[c] = difference / modulus
            error += row_error
            for k in range(n_modes):
                row = waves[b, k, r]
                for c in range(nx):
                    row[c] = row[c] * factor[c]
    return error


@njit(**_OPTIONS)
def combine_modes(waves, modes):
    """waves[b, 0] ← Σ_k modes[k] · waves[b, k]: the residual of the common exit wave."""
    count, n_modes, ny, nx = waves.shape
    for b in range(count):
        for r in range(ny):
            total = waves[b, 0, r]
            weight = modes[0, r]
            for c in range(nx):
                total[c] = total[c] * weight[c]
            for k in range(1, n_modes):
                row = waves[b, k, r]
                weight = modes[k, r]
                for c in range(nx):
                    total[c] += row[c] * weight[c]


@njit(**_OPTIONS)
def accumulate(obj, probes, residual, corner, obj_gradient, probe_gradient, probe_power, obj_power):
    """Add conj(P)·χ and |P|² to the object's gradient and weight; probe gradient per position; Σ|O|²."""
    count, ny, nx = probes.shape
    for b in range(count):
        r0, c0 = corner[b]
        for r in range(ny):
            window = obj[r0 + r, c0 : c0 + nx]
            gradient = obj_gradient[r0 + r, c0 : c0 + nx]
            power = probe_power[r0 + r, c0 : c0 + nx]
            probe = probes[b, r]
            chi = residual[b, r]
            own = probe_gradient[b, r]
            for c in range(nx):
                gradient[c] += np.conj(probe[c]) * chi[c]
                power[c] += probe[c].real * probe[c].real + probe[c].imag * probe[c].imag
            for c in range(nx):
                own[c] = np.conj(window[c]) * chi[c]
                obj_power[r, c] += window[c].real * window[c].real + window[c].imag * window[c].imag


@njit(**_OPTIONS)
def pie_update(obj, probe, residual, r0, c0, object_step, probe_step, probe_change):
    """One ePIE update in place; writes the probe's change (of the shifted probe) to `probe_change`."""
    ny, nx = probe.shape
    peak_probe = np.float32(0.0)
    peak_object = np.float32(0.0)
    for r in range(ny):
        window = obj[r0 + r, c0 : c0 + nx]
        row = probe[r]
        for c in range(nx):
            peak_probe = max(peak_probe, row[c].real * row[c].real + row[c].imag * row[c].imag)
            peak_object = max(peak_object, window[c].real * window[c].real + window[c].imag * window[c].imag)
    a = np.float32(object_step) / peak_probe
    b = np.float32(probe_step) / peak_object
    for r in range(ny):
        window = obj[r0 + r, c0 : c0 + nx]
        row = probe[r]
        chi = residual[r]
        change = probe_change[r]
        for c in range(nx):
            change[c] = b * np.conj(window[c]) * chi[c]
        for c in range(nx):
            window[c] += a * np.conj(row[c]) * chi[c]
