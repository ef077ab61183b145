"""The ePIE family: one position after the other in random order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ptychrome.analysis.engines.backend import Array
from ptychrome.analysis.engines.forward import ForwardModel, State
from ptychrome.analysis.engines.reconstruction import Prior, Reconstruction
from ptychrome.analysis.engines.refinement import Refinement
from ptychrome.analysis.options import EpieOptions
from ptychrome.analysis.scan import DiffractionData

MOMENTUM_EVERY = 30  # positions between two kicks of the momentum


def pie(
    data: DiffractionData, guess: Reconstruction, options: EpieOptions, prior: Prior | None = None
) -> Iterator[Reconstruction]:
    """Extended ptychographic iterative engine; with damping below 1 its regularised form, with momentum.

    Positions, intensities and the expectation of the object have their turn after each sweep. Pixels of the
    detector are ideal points.

    Sources: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009); Maiden, Johnson & Li, Optica 4, 736 (2017).

    Parameters
    ----------
    data : DiffractionData
    guess : Reconstruction
    options : EpieOptions
    prior : Prior, optional

    Yields
    ------
    Reconstruction
        After each sweep.
    """
    model = ForwardModel(data, options)
    refinement = Refinement(model, options, prior)
    state = model.begin(guess)
    sweep_over = _Sweep(model, options, refinement.moves, state)
    errors = guess.error
    rng = np.random.default_rng(options.seed + len(errors))
    for sweep in range(options.sweeps):
        free = sweep >= options.probe_start
        state, slope, moments = sweep_over(state, rng, free)
        if free:
            state = refinement.frames(state, slope, moments)
        state = refinement.settled(replace(state, object=refinement.object(state.object, 0.0)))
        errors = (*errors, model.r_factor(moments))
        yield model.finish(state, model.powers(state)[0], errors, moments)


class _Sweep:
    """One visit to every position."""

    def __init__(self, model: ForwardModel, options: EpieOptions, moves: bool, state: State) -> None:
        self._model, self._options, self._moves = model, options, moves
        self._object_momentum = _Momentum(options.momentum, state.object)
        self._probe_momentum = _Momentum(options.momentum, state.probe)
        self._turn = 0

    def __call__(
        self, state: State, rng: np.random.Generator, free: bool
    ) -> tuple[State, np.ndarray, np.ndarray]:
        """The state after all positions, `Gradient.slope` and moments of each as it was met."""
        model, backend = self._model, self._model.backend
        count = len(model.data.amplitude)
        slope, moments = np.zeros((count, 2), np.float32), np.empty((count, 3), np.float32)
        derivatives = model.derivatives(state.object) if self._moves else None
        scratch = state.object * 0
        obj, probe_hat = state.object + 0, model.transformed(state.probe)
        self._object_momentum.restart(obj)
        self._probe_momentum.restart(probe_hat)
        rows, columns = model.ramps(state, slice(None))
        for j in rng.permutation(count):
            index = slice(int(j), int(j) + 1)
            ramps = rows[index, ...], columns[index, ...]
            probes = model.probes(probe_hat, ramps)
            residual, moment = model.residual(state, obj, probes, index)
            moments[j] = backend.to_host(moment)[0]
            if self._moves:
                corner = model.data.corner[index]
                slope[j] = backend.to_host(
                    backend.add_object(scratch, probes, residual, derivatives, corner)
                )[0]
            # amplitudes are replaced by a/s where the frame has the scale s
            share = 1 / float(state.scale[j]) ** 2
            self._update(obj, probe_hat, probes, residual, index, ramps, share if free else 0.0, share)
            self._turn += 1
            if self._options.momentum and self._turn % MOMENTUM_EVERY == 0:
                self._object_momentum.kick(obj)
                if free:
                    self._probe_momentum.kick(probe_hat)
        return replace(state, object=obj, probe=backend.ifft2(probe_hat)), slope, moments

    def _update(
        self,
        obj: Array,
        probe_hat: Array,
        probes: Array,
        residual: Array,
        index: slice,
        ramps: tuple[Array, Array],
        probe_share: float,
        share: float,
    ) -> None:
        """`Backend.pie_update`, and the probe's change moved back to its centre; both in place."""
        options, backend = self._options, self._model.backend
        change = backend.pie_update(
            obj,
            probes,
            residual,
            self._model.data.corner[index],
            options.object_step * share,
            options.object_damping,
            options.probe_step * probe_share,
            options.probe_damping,
        )
        if probe_share and options.probe_step:
            backend.add_moved_back(probe_hat, change, *ramps)


class _Momentum:
    """v ← η v + (O − O before); O ← O + η v, once in a batch of positions (Optica 4, 736, section 4)."""

    def __init__(self, friction: float, array: Array) -> None:
        self._friction = friction
        self._velocity = self._before = array * 0

    def restart(self, array: Array) -> None:
        """Count the next change from here: what happened between sweeps is no movement."""
        self._before = array + 0

    def kick(self, array: Array) -> None:
        """Add the momentum in place."""
        self._velocity = self._velocity * self._friction + (array - self._before)
        array[...] = array + self._velocity * self._friction
        self._before = array + 0
