"""Reconstruction engines: ``(data, guess, options) -> Iterator[Reconstruction]``.

The caller decides how often to look, to show progress and when to stop. Both engines see the same
forward model: the probe, shifted to the exact sub-pixel position, times the object window, times the
pixel modes, propagated to the detector by a unitary FFT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychrome.analysis import kernels
from ptychrome.analysis.forward import ForwardModel
from ptychrome.analysis.options import EpieOptions, MlOptions, Stage
from ptychrome.analysis.scan import DiffractionData


class ReconstructionError(RuntimeError):
    """A reconstruction that diverged; the message names the energy's engine and the sweep."""


@dataclass(frozen=True)
class Reconstruction:
    """State of a reconstruction after some sweeps.

    Attributes
    ----------
    object : (ny, nx) complex64
        Transmission on the free-running grid, not yet normalised.
    probe : (modes, n, n) complex64
        √photons, centred on pixel ``(ny // 2, nx // 2)``.
    illumination : (ny, nx) float32
        Σ|P|² over all positions; shows where the object was seen.
    error : tuple of float
        R-factor √(Σ(√I − |Ψ|)² / ΣI) of each sweep so far.
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    illumination: NDArray[np.float32]
    error: tuple[float, ...] = ()


def start(data: DiffractionData, probe: NDArray[np.complex64]) -> Reconstruction:
    """First guess: an object of unity and the given probe, scaled to the measured photons.

    Parameters
    ----------
    data : DiffractionData
    probe : (ny, nx) or (modes, ny, nx) complex64
        Calculated or warm-start probe; the array itself is not altered.
    """
    probe = np.array(probe, dtype=np.complex64, ndmin=3)
    probe *= np.float32(np.sqrt(data.photons / np.sum(np.abs(probe) ** 2)))
    shape = data.object_shape
    return Reconstruction(np.ones(shape, np.complex64), probe, np.zeros(shape, np.float32))


def run(data: DiffractionData, guess: Reconstruction, stages: tuple[Stage, ...]) -> Iterator[Reconstruction]:
    """Run the engines of a recipe one after the other, each starting from the result before.

    Raises
    ------
    ReconstructionError
        If the error of a sweep is not finite.
    """
    state = guess
    for stage in stages:
        for step in ENGINES[stage.engine](data, state, stage):
            state = step
            if not np.isfinite(state.error[-1]):
                raise ReconstructionError(
                    f"{stage.engine} diverged in sweep {len(state.error)}; "
                    "check the frames, the positions and the start probe"
                )
            yield state


def epie(data: DiffractionData, guess: Reconstruction, options: EpieOptions) -> Iterator[Reconstruction]:
    """Extended ptychographic iterative engine, one position after the other in random order.

    Source: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009). Uses the first probe mode only.
    """
    model = ForwardModel(data, pixel_modes_count=1, batch=1)
    norm = model.power
    obj = guess.object.copy()
    probe_hat = fft.fft2(guess.probe[0])
    errors = guess.error
    rng = np.random.default_rng(options.seed)
    change = np.empty_like(guess.probe[:1])
    for sweep in range(options.sweeps):
        step = options.probe_step if sweep >= options.probe_start else 0.0
        total = 0.0
        for j in rng.permutation(len(data.amplitude)):
            index = slice(j, j + 1)
            ramp = model.ramps(index)
            probe = fft.ifft2(probe_hat * ramp)
            residual, error = model.residual(obj, probe, index)
            total += error
            row, column = data.corner[j]
            kernels.pie_update(obj, probe[0], residual[0], row, column, options.object_step, step, change[0])
            if step:
                probe_hat += fft.fft2(change[0]) * np.conj(ramp[0])
        errors = (*errors, float(np.sqrt(total / norm)))
        probe = fft.ifft2(probe_hat)[None]
        yield Reconstruction(obj.copy(), probe, model.illumination(probe[0]), errors)


def ml(data: DiffractionData, guess: Reconstruction, options: MlOptions) -> Iterator[Reconstruction]:
    """Accelerated maximum likelihood: all positions per sweep, object and probe together.

    Minimises Σ(√I − |Ψ|)² (amplitudes have nearly constant variance under Poisson noise) by
    preconditioned gradient steps with Nesterov momentum, restarted when the error rises (physics.md,
    "What is attainable"). The integration of each detector pixel is part of the model.
    """
    model = ForwardModel(data, options.pixel_modes, batch=options.batch)
    norm = model.power
    obj, probe = guess.object, guess.probe[0]
    ahead_obj, ahead_probe = obj, probe
    errors, momentum, last = guess.error, 1.0, np.inf
    for _ in range(options.sweeps):
        gradient = model.gradient(ahead_obj, ahead_probe)
        error = float(np.sqrt(gradient.error / norm))
        if error > last:
            momentum = 1.0
        last = error
        floor = np.float32(options.damping * gradient.probe_power.max())
        new_obj = ahead_obj + options.step * gradient.object / (gradient.probe_power + floor)
        floor = np.float32(options.damping * gradient.object_power.max())
        new_probe = ahead_probe + options.step * gradient.probe / (gradient.object_power + floor)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        beta = np.float32((momentum - 1) / following)
        ahead_obj = new_obj + beta * (new_obj - obj)
        ahead_probe = new_probe + beta * (new_probe - probe)
        obj, probe, momentum = new_obj, new_probe, following
        errors = (*errors, error)
        yield Reconstruction(obj, probe[None], gradient.probe_power, errors)


ENGINES: dict[str, Callable[..., Iterator[Reconstruction]]] = {"epie": epie, "ml": ml}
