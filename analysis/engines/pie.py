"""The ePIE family: one position after the other in random order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ptychrome.analysis.engines.forward import ForwardModel, rescaled
from ptychrome.analysis.engines.reconstruction import Prior, Reconstruction
from ptychrome.analysis.options import EpieOptions
from ptychrome.analysis.scan import DiffractionData


def pie(
    data: DiffractionData, guess: Reconstruction, options: EpieOptions, prior: Prior | None = None
) -> Iterator[Reconstruction]:
    """Extended ptychographic iterative engine; with damping below 1 its regularised form, with momentum.

    Sources: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009); Maiden, Johnson & Li, Optica 4, 736 (2017).

    Parameters
    ----------
    data : DiffractionData
    guess : Reconstruction
    options : EpieOptions
    prior : Prior, optional
        Applied after each sweep.

    Yields
    ------
    Reconstruction
        After each sweep.
    """
    model = ForwardModel(data, options)
    backend, corner = model.backend, data.corner
    state = model.begin(guess)
    obj, probe_hat = state.object, model.transformed(state.probe)
    velocity, before = obj * 0, obj + 0
    errors = guess.error
    rng = np.random.default_rng(options.seed + len(errors))
    count = len(data.amplitude)
    for sweep in range(options.sweeps):
        probe_step = options.probe_step if sweep >= options.probe_start else 0.0
        moments = np.empty((count, 3), np.float32)
        for turn, j in enumerate(rng.permutation(count)):
            index = slice(j, j + 1)
            rows, columns = model.ramps(state, index)
            probes = model.probes(probe_hat, (rows, columns))
            residual, moment = model.residual(state, probes, index)
            moments[j] = backend.to_host(moment)[0]
            change = backend.pie_update(
                obj,
                probes,
                residual,
                corner[index],
                options.object_step,
                options.object_damping,
                probe_step,
                options.probe_damping,
            )
            if probe_step:
                back = backend.xp.conj(rows[0][:, None] * columns[0][None, :])
                probe_hat += backend.fft2(change)[0] * back
            if options.momentum and (turn + 1) % MOMENTUM_EVERY == 0:
                velocity = options.momentum * velocity + (obj - before)
                obj += options.momentum * velocity
                before = obj + 0
        state = replace(state, probe=backend.ifft2(probe_hat + 0))
        if options.fixed_power:
            state = rescaled(state, data.photons, backend)
            obj = state.object
            probe_hat = model.transformed(state.probe)
        errors = (*errors, model.r_factor(moments))
        yield model.finish(state, model.powers(state)[0], errors, moments)


MOMENTUM_EVERY = 30  # positions between two kicks of the momentum
