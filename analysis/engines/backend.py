"""The operations that engines are made of, written in the array API: they run on NumPy, CuPy and torch.

`numba_backend` overrides the hot ones on the CPU, `cupy_backend` on a GPU. A reconstruction never sees
anything else of a machine.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, device, is_cupy_array, is_torch_array
from numpy.typing import NDArray

Array = Any  # of the backend's own library
Likelihood = Literal["gaussian", "poisson"]
POISSON_FLOOR = 0.5  # photons added to both sides of n/I: the score stays without bias, its steps bounded
BATCH_BYTES = 1 << 28  # of exit waves that are transformed together on a device of its own memory


@dataclass(frozen=True)
class Unscattered:
    """The far field of the probe alone, at the places of a batch.

    Attributes
    ----------
    waves : (m k, ny, nx) complex64
        Far field of the unshifted probe.
    rows, columns : (b, ny), (b, nx) complex64
        Phase ramps of each position's shift.
    phases : (b, m k) complex64
        What the ramps miss at points beside a pixel's centre.
    gradient : (m k, ny, nx) complex64
        Sum of the residuals, moved back by each position's shift; added to in place.
    """

    waves: Array
    rows: Array
    columns: Array
    phases: Array
    gradient: Array


class Backend:
    """The default of every operation.

    Shapes: b positions, m probe modes, k points within a detector pixel, windows of ny × nx pixels.

    Parameters
    ----------
    like : array
        Any array of the library and on the device to be used, such as ``torch.empty(0, device="cuda")``.
    """

    def __init__(self, like: Array) -> None:
        self.xp: Any = array_namespace(like)
        self._device = device(like)

    def batch(self, bytes_per_position: int) -> int:
        """How many positions to transform together."""
        return max(1, BATCH_BYTES // bytes_per_position)

    def asarray(self, host: NDArray) -> Array:
        """An array of the host on this backend's device; may share its memory."""
        return self.xp.asarray(np.ascontiguousarray(host), device=self._device)

    def to_host(self, array: Array) -> NDArray:
        """The same array for NumPy."""
        if is_cupy_array(array):
            return array.get()
        if is_torch_array(array):
            return array.detach().cpu().numpy()
        return np.array(array)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Zeros of ``"float32"`` or ``"complex64"``."""
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self._device)

    def fft2(self, waves: Array) -> Array:
        """Unitary transform of the last two axes; may overwrite its argument."""
        return self.xp.fft.fftn(waves, axes=(-2, -1), norm="ortho")

    def ifft2(self, waves: Array) -> Array:
        """Inverse of `fft2`."""
        return self.xp.fft.ifftn(waves, axes=(-2, -1), norm="ortho")

    def shifted(self, probe_hat: Array, rows: Array, columns: Array) -> Array:
        """Probes at their sub-pixel places.

        Parameters
        ----------
        probe_hat : (m, ny, nx) complex64
            Transformed probe modes.
        rows, columns : (b, ny), (b, nx) complex64
            Phase ramps of each position.

        Returns
        -------
        (b, m, ny, nx) complex64
        """
        return self.ifft2(probe_hat[None, ...] * (rows[:, None, :, None] * columns[:, None, None, :]))

    def exit_waves(self, obj: Array, probes: Array, weights: Array, corner: NDArray[np.int64]) -> Array:
        """Probe mode × object window × phase ramp of each point in a pixel: (b, m k, ny, nx) complex64."""
        b, m, ny, nx = probes.shape
        waves = probes * self._windows(obj, corner, ny, nx)[:, None, ...]
        return self.xp.reshape(waves[:, :, None, ...] * weights, (b, m * weights.shape[0], ny, nx))

    def residual(
        self,
        waves: Array,
        unscattered: Unscattered | None,
        amplitude: Array,
        scale: Array,
        likelihood: Likelihood,
        floor: float,
    ) -> tuple[Array, Array]:
        """What is missing in each far field to explain the measurement.

        Parameters
        ----------
        waves : (b, m k, ny, nx) complex64
            Far fields; may be overwritten.
        unscattered : Unscattered or None
            Part of the far fields that is still to be added; its gradient is added to.
        amplitude : (b, ny, nx) float32
            √counts; negative where not measured.
        scale : (b,) float32
            Factor on the far fields of each position.
        likelihood : str
        floor : float
            Added to the intensity of the gaussian likelihood, against division by zero.

        Returns
        -------
        residual : (b, m k, ny, nx) complex64
            ½ of minus the gradient.
        moments : (b, 3) float32
            Σ(a − s|Ψ|)², Σ a|Ψ| and Σ|Ψ|² over the measured pixels.
        """
        xp = self.xp
        if unscattered is not None:
            u = unscattered
            ramps = (u.rows[:, None, :, None] * u.columns[:, None, None, :]) * u.phases[:, :, None, None]
            waves = waves + u.waves[None, ...] * ramps
        power = xp.sum(xp.real(waves) ** 2 + xp.imag(waves) ** 2, axis=1)
        valid = xp.astype(amplitude >= 0, power.dtype)
        measured = amplitude * valid
        s = scale[:, None, None]
        modulus = xp.sqrt(power + floor)
        difference = valid * (measured - s * modulus)
        if likelihood == "poisson":
            counts, expected = measured**2, s**2 * power
            factor = valid * s**2 * 0.5 * ((counts + POISSON_FLOOR) / (expected + POISSON_FLOOR) - 1)
        else:
            factor = s * difference / modulus
        moments = [difference**2, measured * modulus * valid, modulus**2 * valid]
        residual = waves * factor[:, None, ...]
        if unscattered is not None:
            u.gradient[...] = u.gradient + xp.sum(residual * xp.conj(ramps), axis=0)
        return residual, xp.stack([xp.sum(v, axis=(1, 2)) for v in moments], axis=1)

    def combine(self, waves: Array, weights: Array) -> Array:
        """Residual of each probe mode's exit wave, Σ_k conj(weight_k) · wave_k: (b, m, ny, nx)."""
        b, modes, ny, nx = waves.shape
        k = weights.shape[0]
        parts = self.xp.reshape(waves, (b, modes // k, k, ny, nx))
        return self.xp.sum(parts * self.xp.conj(weights), axis=2)

    def add_object(
        self,
        gradient: Array,
        probes: Array,
        residual: Array,
        slopes: tuple[Array, Array] | None,
        corner: NDArray[np.int64],
    ) -> Array:
        """Add Σ_m conj(P) χ of each position to the gradient (ny, nx), in place.

        Parameters
        ----------
        slopes : (ny, nx) complex64 twice, or None
            Derivatives of the object along rows and columns, 1/pixels.

        Returns
        -------
        (b, 2) float32
            Inner product of the residual with the derivative of the exit wave to the position, 1/pixels:
            moving probe and object together changes no intensity, so P ∂O stands for −O ∂P.
        """
        xp = self.xp
        ny, nx = probes.shape[-2:]
        change = xp.sum(xp.conj(probes) * residual, axis=1)
        self._add_windows(gradient, change, corner)
        if slopes is None:
            return self.zeros((len(corner), 2), "float32")
        found = [
            xp.sum(xp.real(xp.conj(self._windows(slope, corner, ny, nx)) * change), axis=(1, 2))
            for slope in slopes
        ]
        return xp.stack(found, axis=1)

    def add_probe(
        self,
        gradient_hat: Array,
        obj: Array,
        residual: Array,
        corner: NDArray[np.int64],
        rows: Array,
        columns: Array,
    ) -> None:
        """Add conj(O) χ, moved back by each position's shift, to the transformed gradient (m, ny, nx).

        χ is lost: a backend may use its memory.
        """
        xp = self.xp
        windows = self._windows(obj, corner, *residual.shape[-2:])
        self.add_moved_back(gradient_hat, xp.conj(windows)[:, None, ...] * residual, rows, columns)

    def add_moved_back(self, total_hat: Array, waves: Array, rows: Array, columns: Array) -> None:
        """Add waves (b, m, ny, nx), moved back by each position's shift, to a transformed sum (m, ny, nx)."""
        xp = self.xp
        back = xp.conj(rows[:, None, :, None] * columns[:, None, None, :])
        total_hat[...] = total_hat + xp.sum(self.fft2(waves) * back, axis=0)

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
        """One update of the ePIE family at one position, the object's in place.

        The weight of a pixel is conj(P) / ((1 − α)|P|² + α max|P|²), with α the damping: 1 is ePIE
        (Maiden & Rodenburg 2009), less is rPIE (Maiden, Johnson & Li, Optica 4, 736 (2017)).

        Returns
        -------
        (1, m, ny, nx) complex64
            Change of the shifted probe.
        """
        xp = self.xp
        ny, nx = probes.shape[-2:]
        row, column = (int(v) for v in corner[0])
        here = (slice(row, row + ny), slice(column, column + nx))
        view = obj[here]
        power = xp.sum(xp.real(probes[0, ...]) ** 2 + xp.imag(probes[0, ...]) ** 2, axis=0)
        own = xp.real(view) ** 2 + xp.imag(view) ** 2
        weight = object_step / ((1 - object_damping) * power + object_damping * xp.max(power))
        own_weight = probe_step / ((1 - probe_damping) * own + probe_damping * xp.max(own))
        change = xp.conj(view) * residual * own_weight
        obj[here] = view + weight * xp.sum(xp.conj(probes[0, ...]) * residual[0, ...], axis=0)
        return change

    def _windows(self, obj: Array, corner: NDArray[np.int64], ny: int, nx: int) -> Array:
        pixels = self._pixels(obj, corner, ny, nx)
        values = self.xp.take(self.xp.reshape(obj, (-1,)), pixels, axis=0)
        return self.xp.reshape(values, (len(corner), ny, nx))

    def _pixels(self, obj: Array, corner: NDArray[np.int64], ny: int, nx: int) -> Array:
        """Places of the windows' pixels in the flattened object, (b ny nx,) int64."""
        xp, width = self.xp, obj.shape[1]
        first = self.asarray(corner[:, 0] * width + corner[:, 1])
        inside = self.asarray((np.arange(ny) * width)[:, None] + np.arange(nx))
        return xp.reshape(first[:, None, None] + inside[None, ...], (-1,))

    def _add_windows(self, total: Array, windows: Array, corner: NDArray[np.int64]) -> None:
        """Add windows (b, ny, nx) to an image in place, for which the array API has no operation."""
        ny, nx = windows.shape[-2:]
        if is_torch_array(total):
            as_real = sys.modules["torch"].view_as_real
            pixels = self._pixels(total, corner, ny, nx)
            as_real(total).view(-1, 2).index_add_(0, pixels, as_real(windows).reshape(-1, 2))
        else:
            for window, (row, column) in enumerate(corner):
                total[int(row) : int(row) + ny, int(column) : int(column) + nx] += windows[window, ...]


def _numba() -> Backend:
    from ptychrome.analysis.engines.numba_backend import NumbaBackend

    return NumbaBackend()


def _torch(device_name: str) -> Backend:
    import torch

    return Backend(torch.empty(0, device=device_name))


def _cupy() -> Backend:
    from ptychrome.analysis.engines.cupy_backend import CupyBackend

    return CupyBackend()


BACKENDS: dict[str, Callable[[], Backend]] = {
    "numba": _numba,
    "numpy": lambda: Backend(np.empty(0)),
    "torch": lambda: _torch("cpu"),
    "torch-cuda": lambda: _torch("cuda"),
    "cupy": _cupy,
}


class BackendError(RuntimeError):
    """A backend that cannot be had here; the message says what to install."""


def backend_of(name: str) -> Backend:
    """The backend of a name in `BACKENDS`, or with ``"auto"`` a GPU where one is at hand and Numba elsewhere.

    Raises
    ------
    BackendError
        If its library is not installed or finds no device.
    """
    if name == "auto":
        return _automatic()
    try:
        return BACKENDS[name]()
    except KeyError:
        known = ", ".join(("auto", *BACKENDS))
        raise BackendError(f"backend {name!r} is unknown; expected one of {known}") from None
    except Exception as error:  # a GPU library fails in its own ways where there is no device
        extra = name.partition("-")[0]
        raise BackendError(
            f"backend {name!r} is not usable here ({error}); install ptychrome[{extra}], or choose 'numba'"
        ) from error


def _automatic() -> Backend:
    for name in ("cupy", "torch-cuda") if _cuda_driver() else ():
        try:
            return BACKENDS[name]()
        except Exception:  # not installed, or no device: the next one
            continue
    return BACKENDS["numba"]()


def _cuda_driver() -> bool:
    """Whether NVIDIA's driver is there; importing torch only to learn that takes seconds."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
