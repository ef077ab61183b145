"""Projections onto two sets: exit waves that fit the frames, and those that one probe and object make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ptychrome.analysis.engines.backend import Array
from ptychrome.analysis.engines.forward import ForwardModel, State
from ptychrome.analysis.engines.reconstruction import Prior, Reconstruction
from ptychrome.analysis.engines.refinement import Refinement
from ptychrome.analysis.options import RaarOptions
from ptychrome.analysis.scan import DiffractionData

DAMPING = 1e-3  # of the largest Σ|P|² or Σ|O|²: pixels of little light keep what they have


def raar(
    data: DiffractionData, guess: Reconstruction, options: RaarOptions, prior: Prior | None = None
) -> Iterator[Reconstruction]:
    """Relaxed averaged alternating reflections (Luke, Inverse Problems 21, 37 (2005)), with a free probe.

    With P_M the projection onto the measured amplitudes, P_O that onto products of one probe and one
    object, R = 2 P − 1 and w = R_M ψ, an iteration is ψ ← β (ψ + P_O w) + (1 − 2β) P_M ψ. With β = 1 that is
    Fienup's hybrid input–output and the difference map with its parameter at 1. Pixels not measured are
    left as they are by P_M. P_O is one step from the last object and probe, which makes it exact in the
    object but for the rounding of positions in Σ|P|². The error is that of the model P·O, so that it
    compares with the other engines'.

    All exit waves are kept twice: 16 bytes × positions × modes × pixels of a frame. Pixels of the detector
    are ideal points.

    Parameters
    ----------
    data : DiffractionData
    guess : Reconstruction
    options : RaarOptions
    prior : Prior, optional

    Yields
    ------
    Reconstruction
        After each sweep.
    """
    projections = _Projections(data, options, prior)
    model = projections.model
    state = model.begin(guess)
    waves = projections.exit_waves(state)
    errors = guess.error
    for sweep in range(options.sweeps):
        free = sweep >= options.probe_start
        state, reflected = projections.object_and_reflection(state, waves)
        if free:
            state = projections.probe(state, reflected)
        state = projections.refinement.settled(state)
        state, moments = projections.average(state, waves, reflected, free)
        errors = (*errors, model.r_factor(moments))
        yield model.finish(state, model.powers(state)[0], errors, moments)


class _Projections:
    """The parts of an iteration; each goes once over all positions."""

    def __init__(self, data: DiffractionData, options: RaarOptions, prior: Prior | None) -> None:
        self.model = ForwardModel(data, options)
        self.refinement = Refinement(self.model, options, prior)
        self._beta = options.relaxation

    def exit_waves(self, state: State) -> Array:
        """P·O at all positions: (n, m, ny, nx) complex64."""
        model = self.model
        shape = (len(model.data.amplitude), *state.probe.shape)
        waves = model.backend.zeros(tuple(shape), "complex64")
        probe_hat = model.transformed(state.probe)
        for index in model.batches():
            probes = model.probes(probe_hat, model.ramps(state, index))
            waves[index, ...] = model.exit_waves(state.object, probes, index)
        return waves

    def object_and_reflection(self, state: State, waves: Array) -> tuple[State, Array]:
        """The object that fits w = R_M ψ best, and w; `waves` becomes (1 − β) ψ + (1 − 2β)(P_M ψ − ψ)."""
        model, beta = self.model, self._beta
        backend = model.backend
        reflected = waves * 0
        gradient = backend.zeros(tuple(state.object.shape), "complex64")
        probe_hat = model.transformed(state.probe)
        for index in model.batches():
            probes = model.probes(probe_hat, model.ramps(state, index))
            here = waves[index, ...]
            change = model.missing(state, here, index)
            reflected[index, ...] = here + 2 * change
            waves[index, ...] = (1 - beta) * here + (1 - 2 * beta) * change
            rest = reflected[index, ...] - model.exit_waves(state.object, probes, index)
            backend.add_object(gradient, probes, rest, None, model.data.corner[index])
        weight = _damped(backend.xp, model.powers(state)[0])
        return replace(state, object=self.refinement.object(state.object, gradient / weight)), reflected

    def probe(self, state: State, reflected: Array) -> State:
        """The probe that fits w best with the object as it is."""
        model = self.model
        backend = model.backend
        change_hat = backend.zeros(tuple(state.probe.shape), "complex64")
        probe_hat = model.transformed(state.probe)
        for index in model.batches():
            ramps = model.ramps(state, index)
            probes = model.probes(probe_hat, ramps)
            rest = reflected[index, ...] - model.exit_waves(state.object, probes, index)
            backend.add_probe(change_hat, state.object, rest, model.data.corner[index], *ramps)
        weight = _damped(backend.xp, model.powers(state)[1])
        return replace(state, probe=state.probe + backend.ifft2(change_hat) / weight)

    def average(self, state: State, waves: Array, reflected: Array, free: bool) -> tuple[State, np.ndarray]:
        """Add β P_O w to `waves`; what the model's own residuals say of positions and intensities.

        Returns
        -------
        State
        (n, 3) float32
            Moments of `Backend.residual`.
        """
        model = self.model
        backend = model.backend
        scratch = backend.zeros(tuple(state.object.shape), "complex64")
        moves = self.refinement.moves
        derivatives = model.derivatives(state.object) if moves else None
        probe_hat = model.transformed(state.probe)
        slopes, moments = [], []
        for index in model.batches():
            probes = model.probes(probe_hat, model.ramps(state, index))
            own = model.exit_waves(state.object, probes, index)
            waves[index, ...] += self._beta * own
            residual, moment = model.residual(state, state.object, probes, index)
            moments.append(backend.to_host(moment))
            if moves:
                corner = model.data.corner[index]
                slopes.append(
                    backend.to_host(backend.add_object(scratch, probes, residual, derivatives, corner))
                )
        found = np.concatenate(moments)
        if free:
            slope = np.concatenate(slopes) if moves else np.zeros((len(found), 2), np.float32)
            state = self.refinement.frames(state, slope, found)
        return state, found


def _damped(xp: Array, weight: Array) -> Array:
    return weight + DAMPING * float(xp.max(weight))
