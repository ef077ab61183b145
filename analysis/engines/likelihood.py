"""Accelerated maximum likelihood: object, probe, positions and intensities together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from ptychrome.analysis.engines.backend import Array
from ptychrome.analysis.engines.forward import ForwardModel, Gradient, State
from ptychrome.analysis.engines.reconstruction import Prior, Reconstruction
from ptychrome.analysis.engines.refinement import Refinement
from ptychrome.analysis.options import MlOptions
from ptychrome.analysis.scan import DiffractionData


def ml(
    data: DiffractionData, guess: Reconstruction, options: MlOptions, prior: Prior | None = None
) -> Iterator[Reconstruction]:
    """Preconditioned gradient steps with Nesterov momentum, restarted when the error rises.

    Minimises Σ(√I − |Ψ|)² (amplitudes have nearly constant variance under Poisson noise) or the Poisson
    likelihood, with the integration of each detector pixel (physics.md, "What is attainable") and the motion
    during an exposure in the model.

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
    model = ForwardModel(data, options, options.pixel_points, options.motion_points)
    refinement = Refinement(model, options, prior)
    now = ahead = model.begin(guess)
    rng = np.random.default_rng(options.seed)
    errors, momentum, last = guess.error, 1.0, np.inf
    for _ in range(options.sweeps):
        moments = np.empty((len(data.amplitude), 3), np.float32)
        for order in _groups(rng, len(data.amplitude), options.groups):
            gradient = model.gradient(ahead, order, positions=refinement.moves)
            index = slice(None) if order is None else order
            moments[index] = gradient.moments
            new = _step(ahead, gradient, refinement, options)
            new = refinement.frames(
                new, gradient.slope, gradient.moments, index, position_step=options.step, scale_step=1.0
            )
            new = refinement.settled(new)
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = _extrapolated(now, new, (momentum - 1) / following)
            now, momentum = new, following
        error = model.r_factor(moments)
        if not error < last:
            momentum = 1.0
        last, errors = error, (*errors, error)
        power = gradient.probe_power if options.groups == 1 else model.powers(now)[0]
        yield model.finish(now, power, errors, moments)


def _groups(rng: np.random.Generator, count: int, groups: int) -> list[NDArray[np.int64] | None]:
    if groups == 1:
        return [None]
    return [np.sort(part) for part in np.array_split(rng.permutation(count), min(groups, count))]


def _extrapolated(now: State, new: State, beta: float) -> State:
    return State(
        new.object + beta * (new.object - now.object),
        new.probe + beta * (new.probe - now.probe),
        new.shift + beta * (new.shift - now.shift),
        new.scale,
    )


def _step(state: State, gradient: Gradient, refinement: Refinement, options: MlOptions) -> State:
    """Object and probe after one preconditioned step."""
    obj = gradient.object / _damped(gradient.probe_power, options.damping)
    probe = gradient.probe / _damped(gradient.object_power, options.damping)
    return replace(
        state,
        object=refinement.object(state.object, obj, options.step),
        probe=state.probe + probe * options.step,
    )


def _damped(power: Array, damping: float) -> Array:
    return power + damping * float(array_namespace(power).max(power))
