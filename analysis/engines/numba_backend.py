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
    """The fastest module with the interface of ``scipy.fft`` that is installed."""
    for name in ("mkl_fft.interfaces.scipy_fft", "pyfftw.interfaces.scipy_fft"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if name.startswith("pyfftw"):
            importlib.import_module("pyfftw.interfaces.cache").enable()
        return module
    return fft


class NumbaBackend(Backend):
    """NumPy arrays, one thread.

    Threads are of no use: energies run side by side in processes.
    """

    def __init__(self) -> None:
        super().__init__(np.empty(0))
        self._fft: Any = _transforms()
        self._buffers: dict[str, NDArray[np.complex64]] = {}

    def _buffer(self, name: str, shape: tuple[int, ...]) -> NDArray[np.complex64]:
        """Memory that is used again with every batch; the last batch of a sweep may be shorter."""
        held = self._buffers.get(name)
        if held is None or held.shape[1:] != shape[1:] or len(held) < shape[0]:
            held = self._buffers[name] = np.empty(shape, np.complex64)
        return held[: shape[0]]

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
        _exit_waves(obj, probes, weights, corner, out)
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
        poisson, floor = likelihood == "poisson", np.float32(floor)
        if unscattered is None:
            _residual(waves, amplitude, scale, poisson, floor, moments)
        else:
            u = unscattered
            _add_ramped(waves, u.waves, u.rows, u.columns, u.phases)
            _residual(waves, amplitude, scale, poisson, floor, moments)
            _collect(waves, u.rows, u.columns, u.phases, u.gradient)
        return waves, moments

    def combine(self, waves: Array, weights: Array) -> Array:
        """See `Backend.combine`."""
        if len(weights) == 1:
            return waves  # the only weight is one everywhere
        b, modes, ny, nx = waves.shape
        out = self._buffer("residual", (b, modes // len(weights), ny, nx))
        _combine(waves, weights, out)
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
        """See `Backend.add_probe`."""
        own = self._buffer("own", residual.shape)
        _object_times(obj, residual, corner, own)
        phases = np.ones(own.shape[:2], np.complex64)
        _collect(self.fft2(own), rows, columns, phases, gradient_hat)

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
        change = np.empty(residual.shape, np.complex64)
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
def _exit_waves(obj, probes, weights, corner, out):
    """out[b, m k] = weights[k] · probes[b, m] · obj[window b]."""
    count, n_modes, ny, nx = probes.shape
    n_weights = weights.shape[0]
    for b in range(count):
        r0, c0 = corner[b]
        for m in range(n_modes):
            for r in range(ny):
                window = obj[r0 + r, c0 : c0 + nx]
                probe = probes[b, m, r]
                first = out[b, m * n_weights, r]
                for c in range(nx):
                    first[c] = probe[c] * window[c]
                for k in range(n_weights - 1, -1, -1):
                    weight = weights[k, r]
                    row = out[b, m * n_weights + k, r]
                    for c in range(nx):
                        row[c] = first[c] * weight[c]


@njit(**_OPTIONS)
def _residual(waves, amplitude, scale, poisson, floor, moments):
    """Replace far fields by factor · far field; all modes of a position share the factor."""
    count, n_modes, ny, nx = waves.shape
    one, zero, half = np.float32(1.0), np.float32(0.0), np.float32(0.5)
    extra = np.float32(POISSON_FLOOR)
    factor = np.empty(nx, dtype=np.float32)
    for b in range(count):
        s = scale[b]
        error, cross, own = 0.0, 0.0, 0.0
        for r in range(ny):
            measured = amplitude[b, r]
            for c in range(nx):
                factor[c] = zero
            for k in range(n_modes):
                row = waves[b, k, r]
                for c in range(nx):
                    factor[c] += row[c].real * row[c].real + row[c].imag * row[c].imag
            row_error, row_cross, row_own = zero, zero, zero
            for c in range(nx):
                power = factor[c]
                valid = one if measured[c] >= zero else zero
                a = valid * measured[c]
                modulus = np.sqrt(power + floor)
                difference = valid * (a - s * modulus)
                row_error += difference * difference
                row_cross += a * modulus
                row_own += valid * modulus * modulus
                if poisson:
                    ratio = (a * a + extra) / (s * s * power + extra)
                    factor[c] = valid * s * s * half * (ratio - one)
                else:
                    factor[c] = s * difference / modulus
            error += row_error
            cross += row_cross
            own += row_own
            for k in range(n_modes):
                row = waves[b, k, r]
                for c in range(nx):
                    row[c] = row[c] * factor[c]
        moments[b, 0], moments[b, 1], moments[b, 2] = error, cross, own


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
def _object_times(obj, residual, corner, own):
    """own = conj(O) χ."""
    count, n_modes, ny, nx = residual.shape
    for b in range(count):
        r0, c0 = corner[b]
        for r in range(ny):
            window = obj[r0 + r, c0 : c0 + nx]
            for m in range(n_modes):
                chi = residual[b, m, r]
                target = own[b, m, r]
                for c in range(nx):
                    target[c] = np.conj(window[c]) * chi[c]


@njit(**_OPTIONS)
def _collect(waves, rows, columns, phases, total):
    """total[m] += Σ_b waves[b, m] · conj(phases[b, m] rows[b]ᵀ columns[b]): undoes the shifts."""
    count, n_waves, ny, nx = waves.shape
    for b in range(count):
        ramp = columns[b]
        for m in range(n_waves):
            for r in range(ny):
                phase = np.conj(rows[b, r] * phases[b, m])
                source = waves[b, m, r]
                target = total[m, r]
                for c in range(nx):
                    target[c] += source[c] * (phase * np.conj(ramp[c]))


@njit(**_OPTIONS)
def _add_ramped(waves, unscattered, rows, columns, phases):
    """waves[b, m] += unscattered[m] · phases[b, m] rows[b]ᵀ columns[b]."""
    count, n_waves, ny, nx = waves.shape
    for b in range(count):
        ramp = columns[b]
        for m in range(n_waves):
            for r in range(ny):
                phase = rows[b, r] * phases[b, m]
                source = unscattered[m, r]
                target = waves[b, m, r]
                for c in range(nx):
                    target[c] += source[c] * (phase * ramp[c])


@njit(**_OPTIONS)
def _pie_update(obj, probes, residual, corner, steps, change):
    n_modes, ny, nx = probes.shape
    r0, c0 = corner
    one = np.float32(1.0)
    object_step, object_damping, probe_step, probe_damping = steps
    power = np.zeros((ny, nx), np.float32)
    own = np.empty((ny, nx), np.float32)
    for r in range(ny):
        window = obj[r0 + r, c0 : c0 + nx]
        for m in range(n_modes):
            row = probes[m, r]
            for c in range(nx):
                power[r, c] += row[c].real * row[c].real + row[c].imag * row[c].imag
        for c in range(nx):
            own[r, c] = window[c].real * window[c].real + window[c].imag * window[c].imag
    # as integers the order is the same, and the maximum vectorises
    peak = object_damping * np.array([power.view(np.int32).max()], np.int32).view(np.float32)[0]
    own_peak = probe_damping * np.array([own.view(np.int32).max()], np.int32).view(np.float32)[0]
    for r in range(ny):
        window = obj[r0 + r, c0 : c0 + nx]
        weight, own_weight = power[r], own[r]
        for c in range(nx):
            weight[c] = object_step / ((one - object_damping) * weight[c] + peak)
            own_weight[c] = probe_step / ((one - probe_damping) * own_weight[c] + own_peak)
        for m in range(n_modes):
            chi, target = residual[m, r], change[m, r]
            for c in range(nx):
                target[c] = own_weight[c] * (np.conj(window[c]) * chi[c])
        for m in range(n_modes):
            row, chi = probes[m, r], residual[m, r]
            for c in range(nx):
                window[c] += weight[c] * (np.conj(row[c]) * chi[c])
