"""Many spectra ready to be fitted: weighted and padded for the compiled kernel, and what their mean tells."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes_kernel import Shared, best_amplitudes, fit_pixels
from ptychrome.analysis.xanes_model import XanesModel, XanesOptions, evaluate
from ptychrome.analysis.xanes_shapes import ARCTAN, ERROR_FUNCTION, LORENTZIAN

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Prior = tuple[Float, Float]  # means and inverse variances of the non-linear parameters, (q,) each

CHUNK = 1024  # pixels a thread takes at a time, at most
SIMD = 8  # columns come in multiples of this
DETERMINED = 0.3  # largest σ of what counts as known, relative to the signal or to what the bounds allow
PHASE_BACKGROUND = 2  # of the phase alone: an offset and a slope


@dataclass(frozen=True)
class Raw:
    """What the kernel found, parameters in the order of `XanesModel.names`.

    Attributes
    ----------
    parameters : (n_pixels, p) float64
    covariance : (n_pixels, p, p) float32
        With bounds and priors.
    cost : (n_pixels,) float64
        Weighted sum of squares, with priors.
    converged : (n_pixels,) bool
    """

    parameters: Float
    covariance: NDArray[np.float32]
    cost: Float
    converged: Bool

    @classmethod
    def empty(cls, n_pixels: int, n_parameters: int) -> Raw:
        """Arrays for the kernel to fill."""
        return cls(
            np.empty((n_pixels, n_parameters)),
            np.empty((n_pixels, n_parameters, n_parameters), np.float32),
            np.empty(n_pixels),
            np.empty(n_pixels, dtype=np.bool_),
        )

    def arrays(self) -> tuple[NDArray, ...]:
        """All of them, in the kernel's order."""
        return self.parameters, self.covariance, self.cost, self.converged

    def of(self, pixels: NDArray[np.intp]) -> Raw:
        """A copy for some pixels."""
        return Raw(*(array[pixels] for array in self.arrays()))

    def keep_better(self, pixels: NDArray[np.intp], again: Raw) -> None:
        """Take other fits of some pixels where they cost less, or converged and hardly cost more."""
        cost, converged = self.cost[pixels], self.converged[pixels]
        better = again.cost < cost * np.where(converged | ~again.converged, 1 - 1e-6, 1.01)
        for old, new in zip(self.arrays(), again.arrays(), strict=True):
            old[pixels[better]] = new[better]

    def widen(self, other: Raw, delta_chi2: Float) -> None:
        """Let the covariance cover other parameters that are nearly as likely, in place.

        Where curvature held, parameters at a distance d would cost Δχ² = d²/σ²: a σ² below d²/(1 + Δχ²) is
        too small, and d dᵀ/(1 + Δχ²) is added.

        Parameters
        ----------
        other : Raw
        delta_chi2 : (n_pixels,) float64
            χ² of `other` less this one's.
        """
        away = other.parameters - self.parameters
        step = away / np.sqrt(1.0 + np.maximum(delta_chi2, 0.0))[:, None]
        small = np.any(step**2 > np.diagonal(self.covariance, axis1=1, axis2=2), axis=1) & other.converged
        self.covariance[small] += step[small, :, None] * step[small, None, :]


@dataclass(frozen=True)
class Spectra:
    """Spectra on the energies measured so far.

    Attributes
    ----------
    model : XanesModel
    energy : (m,) float64, eV
        The `n_energy` measured ones, padded.
    n_energy : int
    values : (n_pixels, m) or (n_pixels, 2 m) float64
        Absorbance, or absorbance and phase, times root weight.
    root_weight : (n_pixels, m) or (n_pixels, 2 m) float64
        Zero where missing, and in the padding.
    kept : (n,) bool
        Which of the given energies these are.
    weight : (m,) float64
        Relative weight of the energies.
    """

    model: XanesModel
    energy: Float
    n_energy: int
    values: Float
    root_weight: Float
    kept: Bool
    weight: Float

    @classmethod
    def prepare(
        cls, energy_eV: ArrayLike, absorbance: ArrayLike, weights: ArrayLike | None, model: XanesModel
    ) -> Spectra:
        """From what `fit_xanes` is given; see there for the errors raised."""
        energy, values = np.asarray(energy_eV, dtype=float), np.asarray(absorbance, dtype=float)
        if values.ndim != 2 or values.shape[1:] != energy.shape:
            raise DataError(f"absorbance: expected shape (n_pixels, {energy.size}), got {values.shape}")
        weight = np.ones(energy.size) if weights is None else np.asarray(weights, dtype=float)
        if weight.shape != energy.shape or not np.all(weight >= 0):
            raise DataError(f"weights: expected {energy.size} numbers ≥ 0, got shape {weight.shape}")
        kept = np.isfinite(energy) & np.isfinite(values).any(axis=0) & (weight > 0)
        if not kept.any():
            raise DataError("absorbance: expected at least one finite spectrum, got none")
        padding = -int(kept.sum()) % SIMD
        padded = np.pad(energy[kept], (0, padding), mode="edge")
        weight = np.pad(weight[kept], (0, padding))
        n_energy = padded.size - padding
        return cls(model, padded, n_energy, *_weighted(_columns(values, kept), np.sqrt(weight)), kept, weight)

    def with_phase(self, phase: ArrayLike, ratio: Float) -> Spectra:
        """The same with the phase beside the absorbance.

        Parameters
        ----------
        phase : (n_pixels, n) float, rad
        ratio : (n_pixels,) float64
            Noise of the absorbance over that of the phase.
        """
        given = np.asarray(phase, dtype=float)
        if given.shape != (len(self.values), self.kept.size):
            raise DataError(
                f"phase: expected shape ({len(self.values)}, {self.kept.size}), got {given.shape}"
            )
        values, root = _weighted(_columns(given, self.kept), np.sqrt(self.weight) * ratio[:, None])
        return replace(
            self, values=np.hstack([self.values, values]), root_weight=np.hstack([self.root_weight, root])
        )

    @property
    def complete(self) -> bool:
        """Whether no energy is missing."""
        return bool(self.kept.all())

    @cached_property
    def points(self) -> NDArray[np.intp]:
        """How many values a pixel has, (n_pixels,)."""
        if self.root_weight.strides[0] == 0:
            return np.full(len(self.values), np.count_nonzero(self.root_weight[0]))
        return np.count_nonzero(self.root_weight, axis=1)

    @property
    def extra_linear(self) -> int:
        """Linear unknowns beside the model's."""
        return PHASE_BACKGROUND if self.values.shape[1] > self.energy.size else 0

    def constants(self) -> Float:
        """Linear shapes that do not change: the constant of μt, offset and slope of the phase."""
        if not self.extra_linear:
            return np.ones((1, self.energy.size))
        offset = (self.energy - self.model.edge_energy_eV) / max(float(np.ptp(self.energy)), 1.0)
        rows = np.zeros((1 + PHASE_BACKGROUND, self.values.shape[1]))
        rows[0, : self.energy.size] = 1.0
        rows[1:, self.energy.size :] = offset ** np.arange(PHASE_BACKGROUND)[:, None]
        return rows

    def shared(self, prior: Prior, options: XanesOptions, iterations: int) -> Shared:
        """What the kernel needs to know beside the pixels."""
        model = self.model
        return Shared(
            self.energy,
            model.step_falloff(self.energy),
            (ERROR_FUNCTION if model.edge_shape == "erf" else ARCTAN, *(LORENTZIAN for _ in model.peaks)),
            tuple(self.constants()),
            np.concatenate([model.linear[1:], [0], np.full(self.extra_linear, -1), model.shape]),
            *model.intervals()[1:],
            *prior,
            iterations,
            options.tolerance,
        )

    def solve(
        self, start: Float, variance: Float, prior: Prior, options: XanesOptions, iterations: int
    ) -> Raw:
        """Run the kernel in threads over chunks of pixels (it holds no Python lock)."""
        n_pixels, shared = len(self.values), self.shared(prior, options, iterations)
        raw, start = Raw.empty(n_pixels, len(self.model.names)), np.ascontiguousarray(start)
        workers = options.workers or len(os.sched_getaffinity(0))
        chunk = min(CHUNK, -(-n_pixels // (4 * workers)) or 1)

        def run(first: int) -> None:
            part = slice(first, first + chunk)
            fit_pixels(
                shared, np.ascontiguousarray(self.root_weight[part]), self.values[part], variance[part],
                start[part], *(array[part] for array in raw.arrays()),
            )  # fmt: skip

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, range(0, n_pixels, chunk)))
        return raw

    def simulated(
        self, theta: Float, variance: Float, options: XanesOptions, rng: np.random.Generator
    ) -> tuple[Float, Spectra]:
        """Parameters (n_pixels, p): given shapes, amplitudes of these spectra; and noisy spectra of them."""
        none, root = np.zeros(theta.shape[1]), np.ascontiguousarray(self.root_weight)
        parameters, values = np.empty((len(theta), len(self.model.names))), np.empty_like(self.values)
        best_amplitudes(self.shared((none, none), options, 0), root, self.values, theta, parameters, values)
        values += np.where(root > 0, np.sqrt(variance)[:, None] * rng.standard_normal(values.shape), 0.0)
        return parameters, replace(self, values=values)

    def select(self, pixels: NDArray[np.intp]) -> Spectra:
        """Some of the pixels."""
        return replace(self, values=self.values[pixels], root_weight=self.root_weight[pixels])

    def mean(self) -> Spectra:
        """The mean spectrum; thick pixels count more, so that stray vacuum does not dilute it."""
        thickness = np.maximum(self.values[:, : self.energy.size].sum(axis=1), 0.0)
        thickness = thickness if thickness.sum() > 0 else np.ones_like(thickness)
        norm = np.einsum("p,pj,pj->j", thickness, self.root_weight, self.root_weight)
        total = np.einsum("p,pj,pj->j", thickness, self.root_weight, self.values)
        root = self.root_weight.max(axis=0)
        values = root * np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)
        return replace(self, values=values[None], root_weight=root[None])

    @property
    def signal(self) -> float:
        """Highest minus lowest absorbance."""
        return float(np.ptp(self.values[:, : self.n_energy]))

    def residual_noise(self, mean: Float) -> float:
        """Median over pixels of the rms residual of the mean's shapes, their amplitudes free."""
        energy, values = self.energy[: self.n_energy], self.values[:, : self.n_energy]
        shapes = [np.ones(energy.size)]
        for amplitude in self.model.linear[1:]:
            unit = np.where(np.arange(mean.size) == amplitude, 1.0, mean)
            unit[np.setdiff1d(self.model.linear, amplitude)] = 0.0
            shapes.append(evaluate(self.model, unit, energy))
        basis = np.array(shapes).T
        amplitudes = np.linalg.lstsq(basis, values.T, rcond=1e-10)[0]
        free = max(energy.size - basis.shape[1], 1)
        noise = np.sqrt(np.sum((values.T - basis @ amplitudes) ** 2, axis=0) / free)
        return max(float(np.median(noise)), 1e-9)

    def determined(self, mean: Float, noise: float, options: XanesOptions) -> Bool:
        """Which parameters (p,) the energies of the one spectrum held determine, at the noise of one pixel.

        An amplitude must be known better than a part of the signal, the edge energy better than a part of
        what its bounds allow; the edge's width follows its energy, a peak's shape its amplitude (σ tells
        the rest). The question is put to the energies: where there is a signal its noise counts as ≤ 1/20.
        """
        _, low, high = self.model.intervals()
        noise = min(noise, self.signal / 20.0) if self.signal > 5.0 * noise else noise
        zero = np.zeros(low.size)
        raw = self.solve(mean[None, self.model.shape], np.array([noise**2]), (zero, zero), options, 0)
        sigma = np.sqrt(np.diagonal(raw.covariance[0]))
        known = sigma < DETERMINED * self.signal
        known[2] = sigma[2] < DETERMINED * (high[0] - low[0]) / np.sqrt(12.0)
        known[3] = known[2]
        known[4:] = np.repeat(known[4::3], 3)
        return known

    def part(
        self, pixels: NDArray[np.intp], start: Float, variance: Float, prior: Prior, options: XanesOptions
    ) -> Raw:
        """Fit of some pixels, from one start (q,) or one each (n, q), with three times the iterations."""
        starts = np.broadcast_to(start, (pixels.size, start.shape[-1]))
        return self.select(pixels).solve(starts, variance[pixels], prior, options, 3 * options.max_iterations)


def _columns(values: Float, kept: Bool) -> Float:
    return values if kept.all() else values[:, kept]


def _weighted(values: Float, root_weight: Float) -> tuple[Float, Float]:
    """Values times root weight and the weights, both zero where missing and padded like the weights."""
    shape, part = (len(values), root_weight.shape[-1]), slice(values.shape[1])
    finite = np.isfinite(values)
    if finite.all() and values.shape == shape:  # as usual: no copy of what is common to all pixels
        weighted = values if np.all(root_weight == 1.0) else values * root_weight
        return np.ascontiguousarray(weighted), np.broadcast_to(root_weight, shape)
    weighted, root = np.zeros(shape), np.zeros(shape)
    np.multiply(values, root_weight[..., part], out=weighted[:, part], where=finite)
    np.copyto(root[:, part], root_weight[..., part], where=finite)
    return weighted, root
