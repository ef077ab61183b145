"""The GPU's own versions of the hot operations: CUDA kernels of one pass over memory, cuFFT's transforms."""

from __future__ import annotations

from importlib import resources
from typing import Any

import cupy
import numpy as np
from cupyx.scipy import fft
from numpy.typing import NDArray

from ptychrome.analysis.engines.backend import POISSON_FLOOR, Array, Backend, Likelihood, Unscattered

THREADS = 256  # of a block that has a part of the pixels
BLOCK = 1024  # threads of a block that has all the pixels of one position; `over_block` counts on it


class CupyBackend(Backend):
    """CuPy arrays on the current device."""

    def __init__(self) -> None:
        super().__init__(cupy.empty(0))
        source = resources.files(__package__).joinpath("kernels.cu").read_text(encoding="utf-8")
        self._module: Any = cupy.RawModule(code=source, options=("-std=c++17",))

    def _over_pixels(self, name: str, pixels: int, count: int, *arguments: Any) -> None:
        """Run a kernel with a thread for each pixel of `count` images."""
        grid = (-(-pixels // THREADS), count)
        self._module.get_function(name)(grid, (THREADS,), _c_types(arguments))

    def _over_positions(self, name: str, count: int, *arguments: Any) -> None:
        """Run a kernel with a block for each position."""
        self._module.get_function(name)((count,), (BLOCK,), _c_types(arguments))

    def fft2(self, waves: Array) -> Array:
        """Unitary transform of the last two axes, in place."""
        return fft.fft2(waves, norm="ortho", overwrite_x=True)

    def ifft2(self, waves: Array) -> Array:
        """Inverse of `fft2`."""
        return fft.ifft2(waves, norm="ortho", overwrite_x=True)

    def shifted(self, probe_hat: Array, rows: Array, columns: Array) -> Array:
        """Probes at their sub-pixel places; see `Backend.shifted`."""
        m, ny, nx = probe_hat.shape
        out = cupy.empty((len(rows), m, ny, nx), np.complex64)
        self._over_pixels("ramped", ny * nx, len(rows) * m, probe_hat, rows, columns, out, m, ny, nx)
        return self.ifft2(out)

    def exit_waves(self, obj: Array, probes: Array, weights: Array, corner: NDArray[np.int64]) -> Array:
        """Probe mode × object window × pixel mode; see `Backend.exit_waves`."""
        (b, m, ny, nx), k = probes.shape, len(weights)
        out = cupy.empty((b, m * k, ny, nx), np.complex64)
        arrays = obj, probes, weights, cupy.asarray(corner), out
        self._over_pixels("exit_waves", ny * nx, b, *arrays, m, k, ny, nx, obj.shape[1])
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
        b, modes, ny, nx = waves.shape
        moments = cupy.empty((b, 3), np.float32)
        u = unscattered
        alone = (None,) * 4 if u is None else (u.waves, u.rows, u.columns, u.phases)
        arrays = waves, *alone, amplitude, scale, moments
        how = int(likelihood == "poisson"), float(floor), POISSON_FLOOR
        self._over_positions("residual", b, *arrays, modes, ny, nx, *how)
        if u is not None:
            ramps = u.rows, u.columns, u.phases
            self._over_pixels("collect", ny * nx, modes, waves, *ramps, u.gradient, b, modes, ny, nx)
        return waves, moments

    def combine(self, waves: Array, weights: Array) -> Array:
        """See `Backend.combine`."""
        if len(weights) == 1:
            return waves  # the only weight is one everywhere
        (b, modes, ny, nx), k = waves.shape, len(weights)
        out = cupy.empty((b, modes // k, ny, nx), np.complex64)
        self._over_pixels("combine", ny * nx, b * modes // k, waves, weights, out, k, ny * nx)
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
        (b, m, ny, nx), shape = probes.shape, gradient.shape
        places = cupy.asarray(corner)
        arrays = gradient, probes, residual, places
        self._over_pixels("add_object", shape[0] * shape[1], 1, *arrays, b, m, ny, nx, *shape)
        found = cupy.zeros((b, 2), np.float32)
        if slopes is not None:
            of_waves = probes, residual, *slopes, places, found
            self._over_positions("position_slopes", b, *of_waves, m, ny, nx, shape[1])
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
        b, m, ny, nx = residual.shape
        own = cupy.empty_like(residual)
        arrays = obj, residual, cupy.asarray(corner), own
        self._over_pixels("object_times", ny * nx, b * m, *arrays, m, ny, nx, obj.shape[1])
        self.add_moved_back(gradient_hat, own, rows, columns)

    def add_moved_back(self, total_hat: Array, waves: Array, rows: Array, columns: Array) -> None:
        """See `Backend.add_moved_back`; the waves are overwritten."""
        b, m, ny, nx = waves.shape
        arrays = self.fft2(waves), rows, columns, None, total_hat
        self._over_pixels("collect", ny * nx, m, *arrays, b, m, ny, nx)

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
        _, m, ny, nx = probes.shape
        change = cupy.empty_like(residual)
        arrays = obj, probes, residual, cupy.asarray(corner), change
        steps = (float(v) for v in (object_step, object_damping, probe_step, probe_damping))
        self._over_positions("pie_update", 1, *arrays, m, ny, nx, obj.shape[1], *steps)
        return change


def _c_types(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as the kernels take them: contiguous arrays, null pointers, ``int`` and ``float``."""
    found = []
    for value in arguments:
        if isinstance(value, cupy.ndarray):
            found.append(cupy.ascontiguousarray(value))  # what a kernel writes to is contiguous anyway
        else:
            found.append(np.uint64(0) if value is None else _NUMBERS[type(value)](value))
    return tuple(found)


_NUMBERS = {int: np.int32, float: np.float32}
