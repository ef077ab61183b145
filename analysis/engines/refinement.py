"""What all engines refine beside object and probe, and what they know beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.engines.backend import Array
from ptychrome.analysis.engines.forward import ForwardModel, State, rescaled
from ptychrome.analysis.engines.reconstruction import Prior, ReconstructionError
from ptychrome.analysis.options import EngineOptions

POSITION_STEP = 1.0  # of a Newton step; half of it leaves a slow distortion of all positions behind
SCALE_STEP = 0.3  # of the way, for engines that bring each frame's residual to the object at once: they swing
CURVATURE_FLOOR = 0.03  # of the largest: where the object is flat, positions follow slowly


class Refinement:
    """Positions, intensities, the power of the probe, and the expectation of the object.

    Parameters
    ----------
    model : ForwardModel
    options : EngineOptions
    prior : Prior, optional

    Raises
    ------
    ReconstructionError
        If the prior does not fit the object or holds NaN where it has weight.
    """

    def __init__(self, model: ForwardModel, options: EngineOptions, prior: Prior | None) -> None:
        self._model, self._options = model, options
        # √I has variance 1/4: a prior of width σ weighs 1/(4σ²) beside Σ(√I − |Ψ|)²
        sigma_px = options.position_error_m / np.asarray(model.data.pixel_m)
        sigma_scale = options.intensity_error / 2  # of an amplitude
        with np.errstate(divide="ignore"):
            self._position_weight = (1 / (4 * sigma_px**2)).astype(np.float32)
            self._scale_weight = np.float32(1 / np.square(2 * np.float64(sigma_scale)))
        self._curvature: NDArray[np.float32] | None = None
        self._frames_since = 0  # the curvature was found
        self._expected: Array | None = None
        if prior is not None:
            self._expect(prior)

    def _expect(self, prior: Prior) -> None:
        shape = self._model.data.object_shape
        if prior.object.shape != shape or prior.weight.shape != shape:
            raise ReconstructionError(
                f"the prior has shapes {prior.object.shape} and {prior.weight.shape}; "
                f"expected that of the object, {shape}"
            )
        weighted = prior.weight > 0
        if not np.isfinite(prior.object[weighted]).all() or not (prior.weight >= 0).all():
            raise ReconstructionError(
                "the prior holds NaN or a negative weight; expected a finite object wherever it has weight"
            )
        exact = np.isinf(prior.weight)
        finite = np.where(exact, 0, prior.weight)
        # the share of the expectation in a pixel's update
        share = np.where(exact, 1, finite / (1 + finite))
        asarray = self._model.backend.asarray
        self._expected = asarray(np.where(weighted, prior.object, 1).astype(np.complex64))
        self._share = asarray(share.astype(np.float32))
        self._exact = asarray(exact.astype(np.float32))

    @property
    def moves(self) -> bool:
        """Whether positions are refined."""
        return self._options.position_error_m > 0

    def object(self, obj: Array, change: Array | float, step: float = 1.0) -> Array:
        """The object after a part of a change that the frames ask for, weighed against what is expected."""
        if self._expected is None:
            return obj + change * step
        return obj + ((1 - self._share) * change + self._share * (self._expected - obj)) * step

    def settled(self, state: State) -> State:
        """The state with the power of the probe and the exactly known pixels as they have to be."""
        if self._options.fixed_power:
            state = rescaled(state, self._model.photons, self._model.backend)
        if self._expected is None:
            return state
        obj = state.object + self._exact * (self._expected - state.object)
        return replace(state, object=obj)

    def frames(
        self,
        state: State,
        slope: NDArray[np.float32],
        moments: NDArray[np.float32],
        index: Any = slice(None),
        position_step: float = 1.0,
        scale_step: float = SCALE_STEP,
    ) -> State:
        """The state with new positions and intensities, where they are to be refined.

        Parameters
        ----------
        state : State
        slope : (b, 2) float32
            Of `Gradient`, 1/pixels.
        moments : (b, 3) float32
            Of `Backend.residual`.
        index : slice or (b,) int64
            Which frames these are.
        position_step, scale_step : float
            Share of the full step of positions and of intensities.
        """
        shift, scale = state.shift, state.scale
        if self.moves:
            shift = self._positions(state, slope, index, position_step)
        if self._options.intensity_error > 0:
            scale = self._scales(state, moments, index, scale_step)
        return replace(state, shift=shift, scale=scale)

    def _positions(
        self, state: State, slope: NDArray[np.float32], index: Any, step: float
    ) -> NDArray[np.float32]:
        """Newton steps; a shift of all positions together is the object's affair."""
        curvature = self._curvature_of(state, len(slope))
        weight = self._position_weight
        change = (slope - weight * state.shift[index]) / (curvature[index] + weight)
        shift = state.shift.copy()
        shift[index] += POSITION_STEP * step * np.clip(change, -1, 1)
        curvature = curvature + weight
        mean = np.sum(curvature * shift, axis=0) / np.sum(curvature, axis=0)
        return (shift - mean).astype(np.float32)

    def _curvature_of(self, state: State, frames: int) -> NDArray[np.float32]:
        """`position_curvature`, which changes little within a sweep."""
        if self._curvature is None or self._frames_since >= len(state.shift):
            self._curvature, self._frames_since = position_curvature(self._model, state), 0
        self._frames_since += frames
        return self._curvature

    def _scales(
        self, state: State, moments: NDArray[np.float32], index: Any, step: float
    ) -> NDArray[np.float32]:
        """Towards the best factor of each frame between what the monitor and what the frame says."""
        measured, weight = self._model.data.scale, self._scale_weight
        _, cross, own = moments.T
        scale = state.scale.copy()
        best = (cross + weight * measured[index]) / (own + weight)
        scale[index] += step * (best - scale[index])
        return (scale * (np.mean(measured) / np.mean(scale))).astype(np.float32)


def position_curvature(model: ForwardModel, state: State) -> NDArray[np.float32]:
    """Σ|P|²|∂O|² at each position and axis: what a shift changes in the frame.

    Moving probe and object together changes no intensity, so only the object's gradient under the probe
    counts.

    Parameters
    ----------
    model : ForwardModel
    state : State

    Returns
    -------
    (n, 2) float32
    """
    xp, probe = model.backend.xp, model.central(state.probe)
    ny, nx = probe.shape[1:]
    shape = tuple(state.object.shape)
    power = model.backend.zeros(shape, "float32")
    power[:ny, :nx] = xp.sum(xp.real(probe) ** 2 + xp.imag(probe) ** 2, axis=0)
    power_hat = xp.conj(xp.fft.rfftn(power))
    places = model.backend.asarray(model.data.corner[:, 0] * shape[1] + model.data.corner[:, 1])
    found = []
    for slope in model.derivatives(state.object):
        squares_hat = xp.fft.rfftn(xp.real(slope) ** 2 + xp.imag(slope) ** 2)
        correlation = xp.fft.irfftn(squares_hat * power_hat, s=shape, axes=(0, 1))
        found.append(model.backend.to_host(xp.take(xp.reshape(correlation, (-1,)), places, axis=0)))
    curvature = np.stack(found, axis=1)
    return (np.maximum(curvature, 0) + CURVATURE_FLOOR * curvature.max(axis=0)).astype(np.float32)
