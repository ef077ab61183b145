"""The forward model of one energy and its adjoint: probe times object, pixel modes, unitary FFT, detector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychrome.analysis import kernels
from ptychrome.analysis.optics import pixel_modes
from ptychrome.analysis.scan import DiffractionData


@dataclass(frozen=True)
class Gradient:
    """Sums over all positions at one object and probe.

    Attributes
    ----------
    object : (ny, nx) complex64
        Σ conj(P) χ with χ the residual of the exit wave: a descent direction once divided by `probe_power`.
    probe : (n, n) complex64
        The same for the probe, Σ conj(O) χ.
    probe_power, object_power : float32, of the shapes of object and probe
        Σ|P|² and Σ|O|².
    error : float
        Σ(√I − |Ψ|)².
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    probe_power: NDArray[np.float32]
    object_power: NDArray[np.float32]
    error: float


class ForwardModel:
    """Exit waves of all positions with the probe at its exact sub-pixel place.

    Buffers live as long as the model, so that sweeps do not allocate them anew.

    Parameters
    ----------
    data : DiffractionData
    pixel_modes_count : int
        Modes that model the integration over detector pixels; 1: point pixels.
    batch : int
        Positions that are transformed together.
    """

    def __init__(self, data: DiffractionData, pixel_modes_count: int, batch: int) -> None:
        ny, nx = data.amplitude.shape[1:]
        self._data = data
        self._modes = pixel_modes((ny, nx), pixel_modes_count)
        self._batch = min(batch, len(data.amplitude))
        self._waves = np.empty((self._batch, pixel_modes_count, ny, nx), np.complex64)
        self._floor = np.float32(1e-6 * data.photons / (ny * nx))
        shift = -2j * np.pi * data.fraction.astype(np.float64)
        self._row_ramp = np.exp(shift[:, :1] * fft.fftfreq(ny)).astype(np.complex64)
        self._column_ramp = np.exp(shift[:, 1:] * fft.fftfreq(nx)).astype(np.complex64)

    @property
    def power(self) -> float:
        """Measured photons of all positions, ΣI."""
        amplitude = self._data.amplitude
        return float(np.sum(amplitude**2, where=amplitude > 0, dtype=np.float64))

    def ramps(self, index: slice) -> NDArray[np.complex64]:
        """Fourier phases that shift the probe to the exact positions of a batch."""
        return self._row_ramp[index, :, None] * self._column_ramp[index, None, :]

    def residual(self, obj: NDArray, probes: NDArray, index: slice) -> tuple[NDArray[np.complex64], float]:
        """Exit-wave residuals (b, ny, nx) of a batch and its summed squared amplitude error."""
        far, error = self._far_residual(obj, probes, index)
        near = fft.ifft2(far, norm="ortho", overwrite_x=True)
        kernels.combine_modes(near, self._modes)
        return near[:, 0], error

    def _far_residual(self, obj: NDArray, probes: NDArray, index: slice) -> tuple[NDArray, float]:
        waves = self._waves[: len(probes)]
        kernels.exit_waves(obj, probes, self._modes, self._data.corner[index], waves)
        far = fft.fft2(waves, norm="ortho", overwrite_x=True)
        return far, kernels.modulus_residual(far, self._data.amplitude[index], self._floor)

    def _batches(self) -> Iterator[slice]:
        count = len(self._data.amplitude)
        for first in range(0, count, self._batch):
            yield slice(first, min(first + self._batch, count))

    def error(self, obj: NDArray[np.complex64], probe: NDArray[np.complex64]) -> float:
        """Σ(√I − |Ψ|)² over all positions for an object (ny, nx) and a probe (n, n)."""
        probe_hat, total = fft.fft2(probe), 0.0
        for index in self._batches():
            probes = fft.ifft2(probe_hat * self.ramps(index), overwrite_x=True)
            total += self._far_residual(obj, probes, index)[1]
        return total

    def gradient(self, obj: NDArray, probe: NDArray) -> Gradient:
        """Preconditioned descent directions over all positions."""
        obj_gradient = np.zeros_like(obj)
        probe_power = np.zeros(obj.shape, np.float32)
        object_power = np.zeros(probe.shape, np.float32)
        probe_hat, change_hat = fft.fft2(probe), np.zeros_like(probe)
        total = 0.0
        for index in self._batches():
            ramps = self.ramps(index)
            probes = fft.ifft2(probe_hat * ramps, overwrite_x=True)
            residual, error = self.residual(obj, probes, index)
            own = np.empty_like(probes)
            kernels.accumulate(
                obj, probes, residual, self._data.corner[index], obj_gradient, own, probe_power, object_power
            )
            change_hat += np.einsum("bij,bij->ij", fft.fft2(own, overwrite_x=True), np.conj(ramps))
            total += error
        return Gradient(obj_gradient, fft.ifft2(change_hat), probe_power, object_power, total)

    def illumination(self, probe: NDArray) -> NDArray[np.float32]:
        """Σ|P|² over all positions, rounded to whole pixels."""
        total = np.zeros(self._data.object_shape, np.float32)
        power = np.abs(probe) ** 2
        ny, nx = power.shape
        for row, column in self._data.corner:
            total[row : row + ny, column : column + nx] += power
        return total
