"""The CPU's own versions of the hot operations: element-wise loops fused by Numba, SciPy's transforms.

Every loop runs along contiguous rows so that it vectorises. Complex numbers are taken apart where that is
what makes it do so.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from ptychrome.analysis.engines.backend import POISSON_FLOOR, Array, Backend, Likelihood, Unscattered

# reassociation lets sums vectorise; NaN keeps its meaning, so that a diverging engine is noticed
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "nogil": True,
    "error_model": "numpy",
}
CACHE_BYTES = 1 << 21  # exit waves that are transformed together stay in the cache


def _transforms() -> ModuleType:
    """The fastest module with the interface of ``scipy.fft`` that is installed and works in place."""
    try:
        return importlib.import_module("mkl_fft.interfaces.scipy_fft")
    except ImportError:
        return fft


class NumbaBackend(Backend):
    """NumPy arrays, one thread.

    Threads are of no use: energies run side by side in processes.
    """

    def __init__(self) -> None:
        super().__init__(np.empty(0))
        self._fft: Any = _transforms()
        self._buffers: dict[str, NDArray[np.complex64]] = {}
        self._rows: tuple[Array, Array] = (None, None)

    def _buffer(self, name: str, shape: tuple[int, ...]) -> NDArray[np.complex64]:
        """Memory that is used again with every batch; the last batch of a sweep may be shorter."""
        held = self._buffers.get(name)
        if held is None or held.shape[1:] != shape[1:] or len(held) < shape[0]:
            held = self._buffers[name] = np.empty(shape, np.complex64)
        return held[: shape[0]]

    def _contiguous(self, weights: Array) -> Array:
        """Weights as rows that vectorise; the engines hand over the same view with every batch."""
        if self._rows[0] is not weights:
            self._rows = (weights, np.ascontiguousarray(weights))
        return self._rows[1]

    def batch(self, bytes_per_position: int) -> int:
        """As many positions as the cache holds."""
        return max(1, CACHE_BYTES // bytes_per_position)

    def fft2(self, waves: Array) -> Array:
        """Unitary transform of the last two axes, in place where the library can."""
        return self._fft.fft2(waves, norm="ortho", overwrite_x=True)

    def ifft2(self, waves: Array) -> Array:
        """Inverse of `fft2`."""
        return self._fft.ifft2(waves, norm="ortho", overwrite_x=True)

    def shifted(self, probe_hat: Array, rows: Array, columns: Array) -> Array:
        """Probes at their sub-pixel places; see `Backend.shifted`."""
        out = self._buffer("probes", (len(rows), *probe_hat.shape))
        _ramped(probe_hat, rows, columns, out)
        return self.ifft2(out)

    def exit_waves(self, obj: Array, probes: Array, weights: Array, corner: NDArray[np.int64]) -> Array:
        """Probe mode × object window × pixel mode; see `Backend.exit_waves`."""
        b, m, ny, nx = probes.shape
        out = self._buffer("waves", (b, m * len(weights), ny, nx))
        if len(weights) == 1:
            _exit_wave(obj, probes, corner, out)  # the only weight is one everywhere
        else:
            _exit_waves(obj, probes, self._contiguous(weights), corner, out)
        return out

    def residual(
        self,
        waves: Array,
        unscattered: Unscattered | None,
        amplitude: Array,
        scale: Array,
        likelihood: Likelihood,
        floor: float,
    ) -> tuple[Array, Array]:
        """In place; see `Backend.residual`."""
        moments = np.empty((len(waves), 3), np.float32)
        # an argument, since a constant would stay what it was in the compiled functions of the cache
        how = (likelihood == "poisson", np.float32(floor), np.float32(POISSON_FLOOR))
        if unscattered is None:
            _residual(waves, amplitude, scale, *how, moments)
        else:
            u = unscattered
            alone = (u.waves, u.rows, u.columns, u.phases, u.gradient)
            _residual_beside(waves, *alone, amplitude, scale, *how, moments)
        return waves, moments

    def combine(self, waves: Array, weights: Array) -> Array:
        """See `Backend.combine`."""
        if len(weights) == 1:
            return waves  # the only weight is one everywhere
        b, modes, ny, nx = waves.shape
        out = self._buffer("residual", (b, modes // len(weights), ny, nx))
        _combine(waves, self._contiguous(weights), out)
        return out

    def add_object(
        self,
        gradient: Array,
        probes: Array,
        residual: Array,
        slopes: tuple[Array, Array] | None,
        corner: NDArray[np.int64],
    ) -> Array:
        """See `Backend.add_object`."""
        found = np.zeros((len(corner), 2), np.float32)
        if slopes is None:
            _add_object(gradient, probes, residual, corner)
        else:
            _add_object_and_slopes(gradient, probes, residual, *slopes, corner, found)
        return found

    def add_probe(
        self,
        gradient_hat: Array,
        obj: Array,
        residual: Array,
        corner: NDArray[np.int64],
        rows: Array,
        columns: Array,
    ) -> None:
        """In place; see `Backend.add_probe`."""
        _times_object(obj, residual, corner)
        self.add_moved_back(gradient_hat, residual, rows, columns)

    def add_moved_back(self, total_hat: Array, waves: Array, rows: Array, columns: Array) -> None:
        """See `Backend.add_moved_back`; the waves are overwritten."""
        _collect(self.fft2(waves), rows, columns, total_hat)

    def pie_update(
        self,
        obj: Array,
        probes: Array,
        residual: Array,
        corner: NDArray[np.int64],
        object_step: float,
        object_damping: float,
        probe_step: float,
        probe_damping: float,
    ) -> Array:
        """See `Backend.pie_update`."""
        change = self._buffer("own", residual.shape)
        steps = np.array([object_step, object_damping, probe_step, probe_damping], np.float32)
        _pie_update(obj, probes[0], residual[0], corner[0], steps, change[0])
        return change


@njit(**_OPTIONS)
def _ramped(probe_hat, rows, columns, out):
    """out[b, m] = probe_hat[m] · rows[b]ᵀ columns[b]."""
    for b in range(out.shape[0]):
        ramp = columns[b]
        for m in range(out.shape[1]):
            for r in range(out.shape[2]):
                phase = rows[b, r]
                source = probe_hat[m, r]
                target = out[b, m, r]
                for c in range(out.shape[3]):
                    target[c] = source[c] * (phase * ramp[c])


@njit(**_OPTIONS)
def _exit_wave(obj, probes, corner, out):
    """out[b, m] = probes[b, m] · obj[window b]."""
    count, n_modes, ny, nx = probes.shape
    for b in range(count):
        r0, c0 = corner[b]
        for m in range(n_modes):
            for r in range(ny):
                window = obj[r0 + r, c0 : c0 + nx]
                probe = probes[b, m, r]
                target = out[b, m, r]
                for c in range(nx):
                    target[c] = probe[c] * window[c]


@njit(**_OPTIONS)
def _exit_waves(obj, probes, weights, corner, out):
    """out[b, m k] = weights[k] · probes[b, m] · obj[window b]."""
    count, n_modes, ny, nx = probes.shape
    n_weights = weights.shape[0]
    wave = np.empty(nx, np.complex64)
    for b in range(count):
        r0, c0 = corner[b]
        for m in range(n_modes):
            for r in range(ny):
                window = obj[r0 + r, c0 : c0 + nx]
                probe = probes[b, m, r]
                for c in range(nx):
                    wave[c] = probe[c] * window[c]
                for k in range(n_weights):
                    weight = weights[k, r]
                    target = out[b, m * n_weights + k, r]
                    for c in range(nx):
                        target[c] = wave[c] * weight[c]


@njit(**_OPTIONS)
def _factors(power, measured, s, poisson, floor, extra, sums):
    """Turn a row of far-field intensities into the factors of its residual; adds to the row's moments."""
    one, zero, half = np.float32(1.0), np.float32(0.0), np.float32(0.5)
    error, cross, own = zero, zero, zero
    for c in range(power.shape[0]):
        intensity = power[c]
        valid = one if measured[c] >= zero else zero
        a = valid * measured[c]
        modulus = np.sqrt(intensity + floor)
        difference = valid * (a - s * modulus)
        error += difference * difference
        cross += a * modulus
        own += valid * modulus * modulus
        if poisson:
            ratio = (a * a + extra) / (s * s * intensity + extra)
            power[c] = valid * s * s * half * (ratio - one)
        else:
            power[c] = s * difference / modulus
    sums[0] += error
    sums[1] += cross
    sums[2] += own


@njit(**_OPTIONS)
def _residual(waves, amplitude, scale, poisson, floor, extra, moments):
    """Replace far fields by factor · far field; all modes of a position share the factor."""
    count, n_modes, ny, nx = waves.shape
    factor = np.empty(nx, np.float32)
    sums = np.empty(3, np.float64)
    for b in range(count):
        sums[:] = 0.0
        for r in range(ny):
            factor[:] = np.float32(0.0)
            for k in range(n_modes):
                row = waves[b, k, r]
                for c in range(nx):
                    factor[c] += row[c].real * row[c].real + row[c].imag * row[c].imag
            _factors(factor, amplitude[b, r], scale[b], poisson, floor, extra, sums)
            for k in range(n_modes):
                row = waves[b, k, r]
                for c in range(nx):
                    row[c] = row[c] * factor[c]
        for i in range(3):
            moments[b, i] = sums[i]


@njit(**_OPTIONS)
def _residual_beside(
    waves, alone, rows, columns, phases, gradient, amplitude, scale, poisson, floor, extra, moments
):
    """As `_residual`, with what the probe alone sends to the far field: alone[m] · phase rowᵀ column.

    The gradient of that is collected on the way, while a row of all modes is in the cache.
    """
    count, n_modes, ny, nx = waves.shape
    factor = np.empty(nx, np.float32)
    sums = np.empty(3, np.float64)
    for b in range(count):
        sums[:] = 0.0
        ramp = columns[b]
        for r in range(ny):
            factor[:] = np.float32(0.0)
            for k in range(n_modes):
                phase = rows[b, r] * phases[b, k]
                row, source = waves[b, k, r], alone[k, r]
                for c in range(nx):
                    row[c] += source[c] * (phase * ramp[c])
                for c in range(nx):
                    factor[c] += row[c].real * row[c].real + row[c].imag * row[c].imag
            _factors(factor, amplitude[b, r], scale[b], poisson, floor, extra, sums)
            for k in range(n_modes):
                phase = np.conj(rows[b, r] * phases[b, k])
                row, target = waves[b, k, r], gradient[k, r]
                for c in range(nx):
                    row[c] = row[c] * factor[c]
                for c in range(nx):
                    target[c] += row[c] * (phase * np.conj(ramp[c]))
        for i in range(3):
            moments[b, i] = sums[i]


@njit(**_OPTIONS)
def _combine(waves, weights, out):
    """out[b, m] = Σ_k conj(weights[k]) · waves[b, m k]."""
    count, n_modes, ny, nx = out.shape
    n_weights = weights.shape[0]
    for b in range(count):
        for m in range(n_modes):
            for r in range(ny):
                total = out[b, m, r]
                row = waves[b, m * n_weights, r]
                weight = weights[0, r]
                for c in range(nx):
                    total[c] = row[c] * np.conj(weight[c])
                for k in range(1, n_weights):
                    row = waves[b, m * n_weights + k, r]
                    weight = weights[k, r]
                    for c in range(nx):
                        total[c] += row[c] * np.conj(weight[c])


@njit(**_OPTIONS)
def _add_object(gradient, probes, residual, corner):
    count, n_modes, ny, nx = probes.shape
    for b in range(count):
        r0, c0 = corner[b]
        for m in range(n_modes):
            for r in range(ny):
                change = gradient[r0 + r, c0 : c0 + nx]
                probe = probes[b, m, r]
                chi = residual[b, m, r]
                for c in range(nx):
                    change[c] += np.conj(probe[c]) * chi[c]


@njit(**_OPTIONS)
def _add_object_and_slopes(gradient, probes, residual, along, across, corner, slopes):
    """As `_add_object`; slopes[b] = Σ Re(conj(∂O) conj(P) χ)."""
    count, n_modes, ny, nx = probes.shape
    change = np.empty(nx, np.complex64)
    for b in range(count):
        r0, c0 = corner[b]
        first, second = 0.0, 0.0
        for r in range(ny):
            target = gradient[r0 + r, c0 : c0 + nx]
            for c in range(nx):
                change[c] = 0.0
            for m in range(n_modes):
                probe = probes[b, m, r]
                chi = residual[b, m, r]
                for c in range(nx):
                    change[c] += np.conj(probe[c]) * chi[c]
            down = along[r0 + r, c0 : c0 + nx]
            right = across[r0 + r, c0 : c0 + nx]
            row_first, row_second = np.float32(0.0), np.float32(0.0)
            for c in range(nx):
                target[c] += change[c]
                row_first += down[c].real * change[c].real + down[c].imag * change[c].imag
                row_second += right[c].real * change[c].real + right[c].imag * change[c].imag
            first += row_first
            second += row_second
        slopes[b, 0], slopes[b, 1] = first, second


@njit(**_OPTIONS)
def _times_object(obj, residual, corner):
    """χ → conj(O) χ."""
    count, n_modes, ny, nx = residual.shape
    for b in range(count):
        r0, c0 = corner[b]
        for r in range(ny):
            window = obj[r0 + r, c0 : c0 + nx]
            for m in range(n_modes):
                chi = residual[b, m, r]
                for c in range(nx):
                    chi[c] = np.conj(window[c]) * chi[c]


@njit(**_OPTIONS)
def _collect(waves, rows, columns, total):
    """total[m] += Σ_b waves[b, m] · conj(rows[b]ᵀ columns[b]): undoes the shifts."""
    count, n_waves, ny, nx = waves.shape
    for b in range(count):
        ramp = columns[b]
        for m in range(n_waves):
            for r in range(ny):
                phase = np.conj(rows[b, r])
                source = waves[b, m, r]
                target = total[m, r]
                for c in range(nx):
                    target[c] += source[c] * (phase * np.conj(ramp[c]))


@njit(**_OPTIONS)
def _peaks(window, probes, power, own):
    """Largest Σ|P|² and |O|² of the window; the rows of both are scratch."""
    n_modes, ny, nx = probes.shape
    # as integers the order is the same, and the maximum vectorises
    power_bits, own_bits = power.view(np.int32), own.view(np.int32)
    peaks = np.zeros(2, np.float32)
    bits = peaks.view(np.int32)
    for r in range(ny):
        row, seen = probes[0, r], window[r]
        for c in range(nx):
            power[c] = row[c].real * row[c].real + row[c].imag * row[c].imag
        for m in range(1, n_modes):
            row = probes[m, r]
            for c in range(nx):
                power[c] += row[c].real * row[c].real + row[c].imag * row[c].imag
        for c in range(nx):
            own[c] = seen[c].real * seen[c].real + seen[c].imag * seen[c].imag
        highest, own_highest = bits[0], bits[1]
        for c in range(nx):
            highest = max(highest, power_bits[c])
        for c in range(nx):
            own_highest = max(own_highest, own_bits[c])
        bits[0], bits[1] = highest, own_highest
    return peaks[0], peaks[1]


@njit(**_OPTIONS)
def _pie_update(obj, probes, residual, corner, steps, change):
    n_modes, ny, nx = probes.shape
    r0, c0 = corner
    one, zero = np.float32(1.0), np.float32(0.0)
    object_step, object_damping, probe_step, probe_damping = steps
    weight, own_weight = np.empty(nx, np.float32), np.empty(nx, np.float32)
    window = obj[r0 : r0 + ny, c0 : c0 + nx]
    peak, own_peak = _peaks(window, probes, weight, own_weight)
    peak, own_peak = object_damping * peak, probe_damping * own_peak
    weight[:], own_weight[:] = object_step / peak, probe_step / own_peak
    for r in range(ny):
        seen = obj[r0 + r, c0 : c0 + nx]
        if probe_damping < one:
            for c in range(nx):
                own = seen[c].real * seen[c].real + seen[c].imag * seen[c].imag
                own_weight[c] = probe_step / ((one - probe_damping) * own + own_peak)
        if object_damping < one:
            weight[:] = zero
            for m in range(n_modes):
                row = probes[m, r]
                for c in range(nx):
                    weight[c] += row[c].real * row[c].real + row[c].imag * row[c].imag
            for c in range(nx):
                weight[c] = object_step / ((one - object_damping) * weight[c] + peak)
        for m in range(n_modes):
            chi, target = residual[m, r], change[m, r]
            for c in range(nx):
                target[c] = own_weight[c] * (np.conj(seen[c]) * chi[c])
        for m in range(n_modes):
            row, chi = probes[m, r], residual[m, r]
            for c in range(nx):
                seen[c] += weight[c] * (np.conj(row[c]) * chi[c])
