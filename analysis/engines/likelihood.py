"""Accelerated maximum likelihood: object, probe, positions and intensities together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.engines.backend import Array
from ptychrome.analysis.engines.forward import ForwardModel, Gradient, State, rescaled
from ptychrome.analysis.engines.reconstruction import Prior, Reconstruction
from ptychrome.analysis.options import MlOptions
from ptychrome.analysis.scan import DiffractionData


POSITION_STEP = 0.5  # of the common step: positions move what object and probe move too
CURVATURE_FLOOR = 0.03  # of the largest: where the object is flat, positions follow slowly


def ml(
    data: DiffractionData, guess: Reconstruction, options: MlOptions, prior: Prior | None = None
) -> Iterator[Reconstruction]:
    """Preconditioned gradient steps with Nesterov momentum, restarted when the error rises.

    Minimises Σ(√I − |Ψ|)² (amplitudes have nearly constant variance under Poisson noise) or the Poisson
    likelihood, with the integration of each detector pixel in the model (physics.md, "What is attainable").

    Parameters
    ----------
    data : DiffractionData
    guess : Reconstruction
    options : MlOptions
    prior : Prior, optional

    Yields
    ------
    Reconstruction
        After each sweep.
    """
    model = ForwardModel(data, options, options.pixel_points)
    step = _Step(model, options, prior)
    now = ahead = model.begin(guess)
    rng = np.random.default_rng(options.seed)
    errors, momentum, last = guess.error, 1.0, np.inf
    for _ in range(options.sweeps):
        moments = np.empty((len(data.amplitude), 3), np.float32)
        for order in _groups(rng, len(data.amplitude), options.groups):
            gradient = model.gradient(ahead, order, positions=options.position_error_m > 0)
            moments[slice(None) if order is None else order] = gradient.moments
            new = step(ahead, gradient, order)
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead = _extrapolated(now, new, (momentum - 1) / following)
            now, momentum = new, following
        error = model.r_factor(moments)
        if not error < last:
            momentum = 1.0
        last, errors = error, (*errors, error)
        yield model.finish(now, gradient.probe_power, errors, moments)


def _groups(rng: np.random.Generator, count: int, groups: int) -> list[NDArray[np.int64] | None]:
    if groups == 1:
        return [None]
    return [np.sort(part) for part in np.array_split(rng.permutation(count), min(groups, count))]


def _extrapolated(now: State, new: State, beta: float) -> State:
    return State(
        new.object + beta * (new.object - now.object),
        new.probe + beta * (new.probe - now.probe),
        new.shift + np.float32(beta) * (new.shift - now.shift),
        new.scale,
    )


class _Step:
    """One update of everything that is refined."""

    def __init__(self, model: ForwardModel, options: MlOptions, prior: Prior | None) -> None:
        backend = model.backend
        self._model, self._options = model, options
        self._position_weight = _inverse_variance(options.position_error_m / np.asarray(model.data.pixel_m))
        self._scale_weight = _inverse_variance(options.intensity_error)
        self._expected: Array | None = None
        if prior is not None:
            self._expected = backend.asarray(prior.object)
            # the share of the expectation in a pixel's update
            share = np.where(np.isinf(prior.weight), 1.0, prior.weight / (1 + prior.weight))
            self._share = backend.asarray(share.astype(np.float32))
            self._exact = backend.asarray(np.isinf(prior.weight).astype(np.float32))

    def __call__(self, state: State, gradient: Gradient, order: NDArray[np.int64] | None) -> State:
        options, xp = self._options, self._model.backend.xp
        floor = options.damping * float(xp.max(gradient.probe_power))
        change = gradient.object / (gradient.probe_power + floor)
        if self._expected is None:
            obj = state.object + options.step * change
        else:
            pull = self._share * (self._expected - state.object)
            obj = state.object + options.step * ((1 - self._share) * change + pull)
            obj = obj + self._exact * (self._expected - obj)
        floor = options.damping * float(xp.max(gradient.object_power))
        probe = state.probe + options.step * gradient.probe / (gradient.object_power + floor)
        new = State(
            obj,
            probe,
            self._positions(state, gradient, order),
            self._scales(state, gradient, order),
        )
        return rescaled(new, self._model.data.photons, self._model.backend) if options.fixed_power else new

    def _positions(
        self, state: State, gradient: Gradient, order: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Newton steps; a shift of all positions together is the object's affair."""
        if self._options.position_error_m == 0:
            return state.shift
        index = slice(None) if order is None else order
        curvature = position_curvature(self._model, state)
        weight = self._position_weight
        change = (gradient.slope - weight * state.shift[index]) / (curvature[index] + weight)
        shift = state.shift.copy()
        shift[index] += POSITION_STEP * self._options.step * np.clip(change, -1, 1)
        mean = np.sum(curvature * shift, axis=0) / np.sum(curvature, axis=0)
        return (shift - mean).astype(np.float32)

    def _scales(
        self, state: State, gradient: Gradient, order: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """The best factor of each frame between what the monitor and what the frame says."""
        if self._options.intensity_error == 0:
            return state.scale
        index = slice(None) if order is None else order
        measured, weight = self._model.data.scale, self._scale_weight
        _, cross, own = gradient.moments.T
        scale = state.scale.copy()
        scale[index] = (cross + weight * measured[index]) / (own + weight)
        return (scale * (np.mean(measured) / np.mean(scale))).astype(np.float32)


def _inverse_variance(sigma: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """1/(4σ²): the weight of a prior beside Σ(√I − |Ψ|)², since √I has variance 1/4."""
    with np.errstate(divide="ignore"):
        return np.asarray(1 / (4 * np.square(sigma)), np.float32)


def position_curvature(model: ForwardModel, state: State) -> NDArray[np.float32]:
    """Σ|P|²|∂O|² at each position and axis: what a shift changes in the frame.

    Moving probe and object together changes no intensity, so only the object's gradient under the probe
    counts.

    Returns
    -------
    (n, 2) float32
    """
    host = model.backend.to_host
    probe = host(model.central(state.probe))
    power = np.zeros(state.object.shape, np.float32)
    ny, nx = probe.shape[1:]
    power[:ny, :nx] = np.sum(np.abs(probe) ** 2, axis=0)
    power_hat = np.conj(np.fft.rfft2(power))
    rows, columns = model.data.corner.T
    found = []
    for slope in (host(v) for v in model.derivatives(state.object)):
        correlation = np.fft.irfft2(np.fft.rfft2(np.abs(slope) ** 2) * power_hat, power.shape)
        found.append(correlation[rows, columns])
    curvature = np.stack(found, axis=1)
    return (curvature + CURVATURE_FLOOR * curvature.max(axis=0)).astype(np.float32)


