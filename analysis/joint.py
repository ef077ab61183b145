"""Refine all energies together: what the others say of an energy becomes a prior of its next sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from ptychrome.analysis.engines import Prior, Reconstruction
from ptychrome.analysis.grid import CommonGrid, pixel_average
from ptychrome.analysis.normalise import phase_of
from ptychrome.analysis.options import Options, Stage
from ptychrome.analysis.scan import ScanGeometry
from ptychrome.analysis.spectral import LARGEST_RANK, SPARE, SpectralModel, SpectralOptions, spectral_model
from ptychrome.analysis.stack import EnergyStack

ROBUST_AT = 3.0  # standard deviations at which a pixel's vote begins to shrink
LEAST_LIGHT = 0.01


class JointOptions(Options):
    """Rounds of a joint refinement, after the last energy.

    Attributes
    ----------
    rounds : int
        Times that the model is estimated and the energies are refined with it.
    refine : tuple of Stage
        Engines of each energy in a round.
    apply : str
        ``prior``: the model pulls on the object in every sweep; ``replace``: it takes the object's place
        once, before the first sweep (the way of the paper).
    weight : float
        Of the model, in units of the weight of the frames, in pixels of the particle.
    vacuum_weight : float
        The same for the vacuum around it, where the transmission is one.
    vacuum_rounds : int
        First rounds, in which only the vacuum is used: errors that each energy has of its own must not
        become part of the model.
    spectral : SpectralOptions
    """

    rounds: Annotated[int, Field(ge=1, le=20)] = 2
    refine: Annotated[tuple[Stage, ...], Field(min_length=1)]
    apply: Literal["prior", "replace"] = "prior"
    weight: Annotated[float, Field(ge=0)] = 3.0
    vacuum_weight: Annotated[float, Field(ge=0)] = 100.0
    vacuum_rounds: Annotated[int, Field(ge=0)] = 0
    spectral: SpectralOptions = SpectralOptions()


@dataclass(frozen=True)
class Energy:
    """One reconstructed energy on its free-running grid."""

    geometry: ScanGeometry
    reconstruction: Reconstruction


@dataclass(frozen=True)
class JointState:
    """All energies, aligned with a common model.

    Attributes
    ----------
    stack : EnergyStack
        Images aligned with the model.
    energies : mapping of int to Energy
        By place on the energy axis, with vacuum = 1: what was left open went into the probe.
    model : SpectralModel
    """

    stack: EnergyStack
    energies: Mapping[int, Energy]
    model: SpectralModel

    @property
    def modelled(self) -> EnergyStack:
        """The stack with the model in place of the images within the particle."""
        particle, images = self.stack.particle, self.stack.object.copy()
        for row, place in enumerate(sorted(self.energies)):
            images[place, particle] = np.exp(self.model.log_object[row, particle])
        return replace(self.stack, object=images)


def align(
    stack: EnergyStack,
    energies: Mapping[int, Energy],
    element: str,
    options: SpectralOptions,
    passes: int = 2,
    most: int = LARGEST_RANK,
) -> JointState:
    """Estimate the spectral model and align every energy with it, in turns.

    Parameters
    ----------
    stack : EnergyStack
        With all the energies that are given.
    energies : mapping of int to Energy
    element : str
    options : SpectralOptions
    passes : int
        Turns of model and alignment.
    most : int
        Principal components of the model, see `spectral_model`.

    Returns
    -------
    JointState

    Raises
    ------
    ptychrome.analysis.scan.DataError
        If there are too few energies or pixels for a model.
    """
    places = sorted(energies)
    images, shifts = stack.object.copy(), stack.shift_m.copy()
    aligned = {place: energies[place] for place in places}
    for turn in range(passes + 1):
        spare = SPARE if turn == passes else 0  # what is not aligned yet would fill it
        model = spectral_model(
            stack.energy_eV[places], images[places], stack.particle, element, options, most, spare
        )
        if turn == passes:
            break
        # transforms and interpolations hold no Python lock; threads of threads only stand in their way
        with threadpool_limits(1), ThreadPoolExecutor() as pool:
            one = partial(_align_one, stack)
            found = pool.map(one, aligned.values(), shifts[places], model.log_object)
            for place, (image, shift_m, energy) in zip(places, found, strict=True):
                images[place], shifts[place], aligned[place] = image, shift_m, energy
    return JointState(replace(stack, object=images, shift_m=shifts), aligned, model)


def _align_one(
    stack: EnergyStack, energy: Energy, shift_m: NDArray[np.float64], log_model: NDArray[np.complexfloating]
) -> tuple[NDArray[np.complex64], NDArray[np.float64], Energy]:
    """Shift, amplitude, phase and phase ramp of one energy by linear least squares against the model."""
    grid, geometry, region = stack.grid, energy.geometry, stack.field
    reconstruction = energy.reconstruction
    light = (reconstruction.illumination / reconstruction.illumination.max()).astype(np.float32)
    light = grid.resample(light, geometry, tuple(shift_m), order=1, outside=0.0)[region]
    image = grid.resample(pixel_average(reconstruction.object), geometry, tuple(shift_m))
    found = _least_squares(image, log_model, region, np.clip(light, LEAST_LIGHT, 1.0))
    shift_m = shift_m - found[:2] * grid.pixel_m
    reconstruction = _with_gauge(reconstruction, geometry, grid, shift_m, found[2:])
    image = grid.resample(pixel_average(reconstruction.object), geometry, tuple(shift_m))
    return image, shift_m, Energy(geometry, reconstruction)


def _least_squares(
    image: NDArray, log_model: NDArray, region: NDArray[np.bool_], light: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Shift (row, column; pixels), log amplitude, phase and its slopes (rad/pixel) from model to image."""
    rest = np.log(np.maximum(np.abs(image), 1e-6)) + 1j * phase_of(image) - log_model
    rest = rest[region]
    down, right = (slope[region] for slope in np.gradient(log_model))
    rows, columns = (np.indices(image.shape)[axis][region] - image.shape[axis] // 2 for axis in (0, 1))
    one, zero = np.ones(rest.size), np.zeros(rest.size)
    real = np.stack([-down.real, -right.real, one, zero, zero, zero])
    imaginary = np.stack([-down.imag, -right.imag, zero, one, rows, columns])
    design, values = np.concatenate([real, imaginary], axis=1), np.concatenate([rest.real, rest.imag])
    size = np.linalg.norm(design, axis=1)  # slopes are small and rows many: equal lengths keep all digits
    design /= np.where(size > 0, size, 1.0)[:, None]
    known = np.sqrt(np.concatenate([light, light]))
    weight = known**2
    for _ in range(3):
        weighted = design * weight
        found = np.linalg.lstsq(weighted @ design.T, weighted @ values, rcond=None)[0]
        left_over = (values - found @ design) * known
        spread = 1.4826 * np.median(np.abs(left_over)) + 1e-12
        weight = known**2 / (1 + (left_over / (ROBUST_AT * spread)) ** 2)
    return found / np.where(size > 0, size, 1.0)


def _with_gauge(
    reconstruction: Reconstruction,
    geometry: ScanGeometry,
    grid: CommonGrid,
    shift_m: NDArray[np.float64],
    gauge: NDArray[np.float64],
) -> Reconstruction:
    """Move a constant and a phase ramp of the object to the probe: the exit waves keep their modulus."""
    log_amplitude, phase, *slopes = gauge
    per_metre = np.asarray(slopes) / grid.pixel_m
    middle = phase - per_metre @ grid.displacement_m(geometry, (shift_m[0], shift_m[1]))

    def ramp(shape: tuple[int, ...]) -> NDArray[np.complex128]:
        y, x = (
            (np.arange(n) - n // 2) * pixel * slope
            for n, pixel, slope in zip(shape, geometry.pixel_m, per_metre, strict=True)
        )
        return np.exp(1j * y)[:, None] * np.exp(1j * x)

    obj = reconstruction.object / (np.exp(log_amplitude + 1j * middle) * ramp(reconstruction.object.shape))
    probe = reconstruction.probe * (np.exp(log_amplitude) * ramp(reconstruction.probe.shape[1:]))
    return replace(reconstruction, object=obj.astype(np.complex64), probe=probe.astype(np.complex64))


def expectation(state: JointState, place: int, options: JointOptions, *, vacuum_only: bool = False) -> Prior:
    """What the model and the vacuum say of one energy, on its free-running grid.

    Only the difference between model and image is brought over: where they agree nothing is interpolated.

    Parameters
    ----------
    state : JointState
    place : int
        On the energy axis.
    options : JointOptions
    vacuum_only : bool
        Leave the particle to the frames.

    Returns
    -------
    Prior
    """
    stack, energy = state.stack, state.energies[place]
    grid, obj = stack.grid, energy.reconstruction.object
    row = sorted(state.energies).index(place)
    image = stack.object[place]
    difference = state.model.log_object[row] - np.log(np.maximum(np.abs(image), 1e-6)) - 1j * phase_of(image)
    difference = np.where(stack.field, difference, 0).astype(np.complex64)
    inside = 0.0 if vacuum_only else options.weight
    weight = np.where(stack.field, np.where(stack.particle, inside, options.vacuum_weight), 0.0)
    shift = (stack.shift_m[place, 0], stack.shift_m[place, 1])
    change = grid.restore(difference, energy.geometry, obj.shape, shift)
    lit = grid.restore(weight.astype(np.float32), energy.geometry, obj.shape, shift, order=1)
    return Prior((obj * np.exp(change)).astype(np.complex64), np.clip(lit, 0, None))


def replacement(reconstruction: Reconstruction, prior: Prior) -> Reconstruction:
    """A reconstruction whose object is what is expected, wherever anything is expected."""
    obj = np.where(prior.weight > 0, prior.object, reconstruction.object).astype(np.complex64)
    return replace(reconstruction, object=obj)
