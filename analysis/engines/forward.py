"""The forward model of one energy and its adjoint: probe times object, pixel modes, unitary FFT, detector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychrome.analysis.engines.backend import Array, Backend, Unscattered, backend_of
from ptychrome.analysis.engines.motion import Motion
from ptychrome.analysis.engines.pixel import PixelPoints
from ptychrome.analysis.engines.reconstruction import (
    Reconstruction,
    ReconstructionError,
    beam_photons,
    orthogonal,
    with_modes,
)
from ptychrome.analysis.options import EngineOptions
from ptychrome.analysis.scan import DiffractionData

MODULUS_FLOOR = 1e-6  # of the mean intensity of a pixel, against division by zero


@dataclass(frozen=True)
class State:
    """What is being refined, on the backend's device.

    Attributes
    ----------
    object : (ny, nx) complex64
    probe : (modes, n, n) complex64
    shift : (n, 2) float32
        Refined minus nominal positions, pixels (host).
    scale : (n,) float32
        Amplitude of each frame relative to the probe (host).
    """

    object: Array
    probe: Array
    shift: NDArray[np.float32]
    scale: NDArray[np.float32]


@dataclass(frozen=True)
class Gradient:
    """Sums over positions at one state.

    Attributes
    ----------
    object : (ny, nx) complex64
        Σ conj(P) χ with χ the residual of the exit wave: a descent direction once divided by `probe_power`.
    probe : (modes, n, n) complex64
        The same for the probe, Σ conj(O) χ.
    probe_power, object_power : float32, (ny, nx) and (n, n)
        Σ|P|² (at least its share of that over all positions) and Σ|O|².
    slope : (n, 2) float32
        Inner product of the residual with the derivative of the exit wave to its position, 1/pixels (host).
    moments : (n, 3) float32
        Of `Backend.residual` (host).
    """

    object: Array
    probe: Array
    probe_power: Array
    object_power: Array
    slope: NDArray[np.float32]
    moments: NDArray[np.float32]


class ForwardModel:
    """Exit waves of all positions with the probe at its exact sub-pixel place.

    With point pixels the wave in a window is what the FFT makes of it, tails of the probe wrapped around. A
    pixel that integrates is sampled at Gauss–Legendre points beside its centre, where the tails beyond the
    window matter: there the wave is P + P (O − 1), the far field of the probe alone, which is wider than the
    window, plus what the object changes within the window.

    Parameters
    ----------
    data : DiffractionData
    options : EngineOptions
        Likelihood, probe modes and backend.
    pixel_points : int
        Points per axis within a detector pixel.
    motion_points : int
        Points along the way of the probe during an exposure.
    """

    def __init__(
        self, data: DiffractionData, options: EngineOptions, pixel_points: int = 0, motion_points: int = 1
    ) -> None:
        ny, nx = data.amplitude.shape[1:]
        self.data, self._options = data, options
        self.photons = data.photons
        self.backend: Backend = backend_of(options.backend)
        self.amplitude = self.backend.asarray(data.amplitude)
        self._pixel = PixelPoints((ny, nx), max(1, pixel_points), pixel_points > 0, self.backend)
        self._motion = Motion(data.travel_px, motion_points, self.backend)
        waves = max(1, pixel_points) ** 2 * options.probe_modes * self._motion.count
        self._batch = min(self.backend.batch(8 * waves * ny * nx), len(data.amplitude))
        self._floor = float(MODULUS_FLOOR * data.photons / (ny * nx))
        self._frequencies = tuple(self.backend.asarray(fft.fftfreq(n).astype(np.float32)) for n in (ny, nx))
        self._fraction = data.fraction.astype(np.float32)

    def begin(self, guess: Reconstruction) -> State:
        """A guess on the device, with as many probe modes as wanted."""
        data = self.data
        count = len(data.amplitude)
        shift = np.zeros((count, 2), np.float32) if guess.shift_px is None else guess.shift_px.copy()
        scale = data.scale.copy() if guess.scale is None else guess.scale.copy()
        if guess.object.shape != data.object_shape or len(shift) != count or len(scale) != count:
            raise ReconstructionError(
                f"the guess has an object of {guess.object.shape}, {len(shift)} shifts and {len(scale)} "
                f"scales; expected {data.object_shape} and {count} of each, for the same positions"
            )
        if self._options.fixed_power:
            self.photons = beam_photons(data, guess.probe)
        self._given = with_modes(guess.probe, self._options.probe_modes)
        self._first = self._pixel.fitting(self._given)
        asarray = self.backend.asarray
        return State(asarray(guess.object.copy()), asarray(self._first.copy()), shift, scale)

    def finish(
        self, state: State, probe_power: Array, errors: tuple[float, ...], moments: NDArray[np.float32]
    ) -> Reconstruction:
        """A state on the host."""
        host = self.backend.to_host
        return Reconstruction(
            host(state.object).copy(),
            orthogonal(self._with_tails(host(state.probe))),
            host(probe_power).copy(),
            errors,
            state.shift.copy(),
            state.scale.copy(),
            (4 * moments[:, 0] / np.maximum(self._measured, 1)).astype(np.float32),
        )

    def _with_tails(self, probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """The refined probe; where the guess was wider, with the tails of the guess around it."""
        given = self._given.shape[1:]
        if given[0] <= probe.shape[1] and given[1] <= probe.shape[2]:
            return probe.copy()
        shape = tuple(np.maximum(given, probe.shape[1:]))
        return PixelPoints.padded(self._given, shape) + PixelPoints.padded(probe - self._first, shape)

    @cached_property
    def _measured(self) -> NDArray[np.int64]:
        return np.count_nonzero(self.data.amplitude >= 0, axis=(1, 2))

    def r_factor(self, moments: NDArray[np.float32]) -> float:
        """√(Σ(√I − |Ψ|)² / ΣI)."""
        return float(np.sqrt(np.sum(moments[:, 0], dtype=np.float64) / self._power))

    @cached_property
    def _power(self) -> float:
        amplitude = self.data.amplitude
        return float(np.sum(amplitude**2, where=amplitude > 0, dtype=np.float64))

    def central(self, probe: Array) -> Array:
        """Probe modes within the window of a frame, (m, ny, nx)."""
        return self._pixel.central(probe)

    def transformed(self, probe: Array) -> Array:
        """Unitary transform of the probe modes; the argument stays as it is."""
        return self.backend.fft2(probe + 0)

    def probes(self, probe_hat: Array, ramps: tuple[Array, Array]) -> Array:
        """Probe modes at their places, (b, m, ny, nx)."""
        return self.backend.shifted(probe_hat, *ramps)

    def ramps(self, state: State, index: Any) -> tuple[Array, Array]:
        """Phase ramps along rows (b, ny) and columns (b, nx) that shift the probe to its places."""
        xp = self.backend.xp
        shift = self.backend.asarray(self._offset(state, index))
        ramps = []
        for axis, q in enumerate(self._frequencies):
            angle = shift[:, axis][:, None] * (q[None, :] * (-2 * np.pi))
            cosine, sine = (xp.astype(part, xp.complex64) for part in (xp.cos(angle), xp.sin(angle)))
            ramps.append(cosine + sine * 1j)  # several times faster than exp of a complex array
        return ramps[0], ramps[1]

    def _offset(self, state: State, index: Any) -> NDArray[np.float32]:
        """Where the probe is beside whole pixels, (b, 2)."""
        return self._fraction[index] + state.shift[index]

    def residual(
        self,
        state: State,
        scatterer: Array,
        probes: Array,
        index: Any,
        unscattered: Unscattered | None = None,
    ) -> tuple[Array, Array]:
        """Exit-wave residuals (b, m, ny, nx) of a batch and the moments of `Backend.residual`."""
        far, moments = self._far_residual(state, scatterer, probes, index, unscattered)
        return self.backend.combine(self.backend.ifft2(far), self._pixel.weights), moments

    def _far_residual(
        self, state: State, scatterer: Array, probes: Array, index: Any, unscattered: Unscattered | None
    ) -> tuple[Array, Array]:
        waves = self.exit_waves(scatterer, probes, index)
        return self._compared(state, waves, index, unscattered)

    def exit_waves(self, obj: Array, probes: Array, index: Any) -> Array:
        """Probes times the object at their places, at each point in a pixel: (b, m k, ny, nx)."""
        return self.backend.exit_waves(obj, probes, self._pixel.weights, self.data.corner[index])

    def _compared(
        self, state: State, waves: Array, index: Any, unscattered: Unscattered | None
    ) -> tuple[Array, Array]:
        return self.backend.residual(
            self.backend.fft2(waves),
            unscattered,
            self._amplitude(index),
            self.backend.asarray(state.scale[index]),
            self._options.likelihood,
            self._floor,
        )

    def _amplitude(self, index: Any) -> Array:
        if isinstance(index, slice):
            return self.amplitude[index, ...]
        return self.backend.xp.take(self.amplitude, self.backend.asarray(index), axis=0)

    def missing(self, state: State, waves: Array, index: Any) -> Array:
        """What exit waves (b, m, ny, nx) lack to have the measured amplitudes; point pixels only.

        The waves themselves need not be those of the state, and stay as they are.
        """
        far, _ = self._compared(state, waves + 0, index, None)
        scale = self.backend.asarray(1 / state.scale[index] ** 2)
        return self.backend.ifft2(far) * scale[:, None, None, None]

    def batches(self, count: int | None = None) -> Iterator[slice]:
        """Places of the positions that are treated together, among all of them or the first `count`."""
        count = len(self.data.amplitude) if count is None else count
        for first in range(0, count, self._batch):
            yield slice(first, min(first + self._batch, count))

    def moments(self, state: State) -> NDArray[np.float32]:
        """The moments of `Backend.residual` for all positions, (n, 3)."""
        found = []
        for _, scatterer, probes, index, unscattered in self._waves(state, None):
            _, moments = self._far_residual(state, scatterer, probes, index, unscattered)
            found.append(self.backend.to_host(moments))
        return np.concatenate(found)

    def amplitudes(self, state: State) -> NDArray[np.float32]:
        """Amplitudes s|Ψ| that a state predicts for all positions, (n, ny, nx) float32, √photons (host)."""
        xp, found = self.backend.xp, []
        for ramps, scatterer, probes, index, unscattered in self._waves(state, None):
            waves = self.backend.fft2(self.exit_waves(scatterer, probes, index))
            if unscattered is not None:
                ramp = ramps[0][:, None, :, None] * ramps[1][:, None, None, :]
                waves = waves + unscattered.waves[None, ...] * ramp * unscattered.phases[:, :, None, None]
            power = xp.sum(xp.real(waves) ** 2 + xp.imag(waves) ** 2, axis=1)
            found.append(self.backend.to_host(xp.sqrt(power)) * state.scale[index, None, None])
        return np.concatenate(found)

    def _waves(self, state: State, order: NDArray[np.int64] | None) -> Iterator[tuple[Any, ...]]:
        """Ramps, probes at their places, index, far field of the probe alone (or None) of each batch."""
        probe = self._motion.spread(state.probe)
        probe_hat = self.transformed(self.central(probe))
        far = self._pixel.far_field(probe)
        gradient = None if far is None else far * 0
        # O − 1 multiplies the probe in the window where the probe alone is added in the far field
        scatterer = state.object if far is None else state.object - 1
        every = slice(None) if order is None else order
        rows, columns = self.ramps(state, every)
        offset = self._offset(state, every)
        phases = None if far is None else self._pixel.phases(offset, probe.shape[0])
        for part in self.batches(len(offset)):
            ramps = rows[part, ...], columns[part, ...]
            unscattered = None
            if phases is not None:
                unscattered = Unscattered(far, *ramps, phases[part, ...], gradient)
            index = part if order is None else order[part]
            yield ramps, scatterer, self.probes(probe_hat, ramps), index, unscattered

    def gradient(
        self, state: State, order: NDArray[np.int64] | None = None, *, positions: bool = False
    ) -> Gradient:
        """Descent directions over all positions, or over those in `order`."""
        backend = self.backend
        object_gradient = backend.zeros(tuple(state.object.shape), "complex64")
        window = tuple(self.data.amplitude.shape[1:])
        modes = state.probe.shape[0] * self._motion.count
        change_hat = backend.zeros((modes, *window), "complex64")
        derivatives = self.derivatives(state.object) if positions else None
        slopes, moments, unscattered = [], [], None
        for ramps, scatterer, probes, index, unscattered in self._waves(state, order):
            corner = self.data.corner[index]
            residual, moment = self.residual(state, scatterer, probes, index, unscattered)
            slope = backend.add_object(object_gradient, probes, residual, derivatives, corner)
            backend.add_probe(change_hat, scatterer, residual, corner, *ramps)
            slopes.append(slope)
            moments.append(moment)
        far_gradient = None if unscattered is None else unscattered.gradient
        probe_power, object_power = self.powers(state, order)
        count = len(self.data.amplitude) if order is None else len(order)
        return Gradient(
            object_gradient,
            self._motion.gathered(self._pixel.probe_gradient(backend.ifft2(change_hat), far_gradient)),
            probe_power,
            self._pixel.object_power(object_power, count),
            backend.to_host(backend.xp.concat(slopes)),
            backend.to_host(backend.xp.concat(moments)),
        )

    def powers(self, state: State, order: NDArray[np.int64] | None = None) -> tuple[Array, Array]:
        """Σ|P|² (ny, nx) and Σ|O|² (n, n) float32 over all positions or some, rounded to whole pixels.

        Pixels that few of some positions see are not theirs alone to decide: Σ|P|² of some is at least their
        share of that of all.
        """
        xp, (ny, nx) = self.backend.xp, self.data.amplitude.shape[1:]
        shape = tuple(state.object.shape)
        probe = self.central(self._motion.spread(state.probe))
        own = self.backend.zeros(shape, "float32")
        own[:ny, :nx] = xp.sum(xp.real(probe) ** 2 + xp.imag(probe) ** 2, axis=0)
        own_hat = xp.fft.rfftn(own)
        visits_hat = self._visits_hat
        lit = xp.fft.irfftn(visits_hat * own_hat, s=shape, axes=(0, 1))
        if order is not None:
            visits_hat, share = self._transformed_visits(order), len(order) / len(self.data.amplitude)
            lit = xp.maximum(lit * share, xp.fft.irfftn(visits_hat * own_hat, s=shape, axes=(0, 1)))
        power_hat = xp.fft.rfftn(xp.real(state.object) ** 2 + xp.imag(state.object) ** 2)
        seen = xp.fft.irfftn(power_hat * xp.conj(visits_hat), s=shape, axes=(0, 1))
        # rounding errors of the transform must not turn nothing into less
        return xp.maximum(lit, xp.zeros_like(lit)), xp.maximum(seen, xp.zeros_like(seen))[:ny, :nx]

    @cached_property
    def _visits_hat(self) -> Array:
        return self._transformed_visits(slice(None))

    def _transformed_visits(self, order: Any) -> Array:
        """Transform of how many of the positions have their corner at each object pixel."""
        visits = np.zeros(self.data.object_shape, np.float32)
        np.add.at(visits, tuple(self.data.corner[order].T), 1)
        return self.backend.xp.fft.rfftn(self.backend.asarray(visits))

    def derivatives(self, obj: Array) -> tuple[Array, Array]:
        """∂O along rows and columns, 1/pixels, by Fourier transform."""
        backend = self.backend
        spectrum = backend.fft2(obj + 0)
        found = []
        for axis, count in enumerate(obj.shape):
            q = fft.fftfreq(count).astype(np.complex64) * (2j * np.pi)
            factor = backend.asarray(q[:, None] if axis == 0 else q[None, :])
            found.append(backend.ifft2(spectrum * factor))
        return found[0], found[1]


def rescaled(state: State, photons: float, backend: Backend) -> State:
    """The same exit waves with a probe of given power."""
    xp = backend.xp
    power = float(xp.sum(xp.real(state.probe) ** 2 + xp.imag(state.probe) ** 2))
    factor = float(np.sqrt(photons / power))
    return replace(state, probe=state.probe * factor, object=state.object * (1 / factor))
