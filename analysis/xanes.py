"""Fits of K-edge spectra, pixel by pixel, with uncertainties, also while energies are still missing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ptychrome.analysis.options import Options
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes_kernel import fit_pixels
from ptychrome.analysis.xanes_model import Interval, Peak, XanesModel, evaluate

__all__ = ["Interval", "Peak", "XanesFit", "XanesModel", "XanesOptions", "evaluate", "fit_xanes"]

Float = NDArray[np.float64]
RESTARTS_EV = (-2.0, 0.0, 2.0)
CHUNK = 2048  # pixels a thread takes at a time
UNKNOWN = 1e12  # a variance beyond this (eV², or absorbance²) says nothing
DETERMINED = 0.3  # largest σ of what counts as known, relative to the signal or to what the bounds allow


class XanesOptions(Options):
    """How eq. (1) is fitted.

    `prior` "mean" adds Gaussian priors around the fit of the mean spectrum to what a single pixel determines
    poorly: widths and centres of the peaks and the width of the edge, never the edge energy or an amplitude.
    Peak centres are free to follow the edge within `prior_centre_eV`. "none" is the paper's plain fit.
    """

    prior: Literal["none", "mean"] = "none"
    prior_centre_eV: Annotated[float, Field(gt=0)] = 1.0
    prior_width_relative: Annotated[float, Field(gt=0)] = 0.3
    max_iterations: Annotated[int, Field(ge=1)] = 60
    tolerance: Annotated[float, Field(gt=0)] = 1e-5
    workers: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class XanesFit:
    """Fitted spectra; parameters in the order of `XanesModel.names`.

    Attributes
    ----------
    model : XanesModel
    parameters : (n_pixels, p) float64
        NaN where a spectrum was missing or the energies do not determine the parameter.
    covariance : (n_pixels, p, p) float32
        With bounds counted as flat priors, so that no σ exceeds the allowed range.
    chi2 : (n_pixels,) float64
        Reduced χ²; NaN without degrees of freedom.
    converged : (n_pixels,) bool
    determined : (p,) bool
        Parameters which the energies measured so far determine.
    mean_parameters : (p,) float64
        Fit of the mean spectrum.
    """

    model: XanesModel
    parameters: Float
    covariance: NDArray[np.float32] = field(repr=False)
    chi2: Float = field(repr=False)
    converged: NDArray[np.bool_] = field(repr=False)
    determined: NDArray[np.bool_]
    mean_parameters: Float

    def __getitem__(self, name: str) -> Float:
        """Values of one named parameter, (n_pixels,)."""
        return self.parameters[:, self.model.names.index(name)]

    def sigma(self, name: str) -> Float:
        """Standard deviation of one named parameter, (n_pixels,)."""
        return np.sqrt(self.cov(name, name))

    def cov(self, first: str, second: str) -> Float:
        """Covariance of two named parameters, (n_pixels,)."""
        i, j = self.model.names.index(first), self.model.names.index(second)
        return self.covariance[:, i, j].astype(float)

    def pre_edge_area(self) -> tuple[Float, Float]:
        """Area π c11 c13 of the pre-edge peak and its standard deviation, (n_pixels,) each, eV."""
        c11, c13 = self["c11"], self["c13"]
        variance = (
            c13**2 * self.cov("c11", "c11")
            + c11**2 * self.cov("c13", "c13")
            + 2 * c11 * c13 * self.cov("c11", "c13")
        )
        return np.pi * c11 * c13, np.pi * np.sqrt(np.maximum(variance, 0.0))

    def pre_edge_ratio(self) -> tuple[Float, Float]:
        """Pre-edge area over edge jump and its standard deviation, (n_pixels,) each, eV."""
        area, area_sigma = self.pre_edge_area()
        jump = self["b1"]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = area / jump
            mixed = np.pi * (self["c13"] * self.cov("c11", "b1") + self["c11"] * self.cov("c13", "b1"))
            variance = area_sigma**2 + ratio**2 * self.cov("b1", "b1") - 2 * ratio * mixed
            return ratio, np.sqrt(np.maximum(variance, 0.0)) / np.abs(jump)


def fit_xanes(
    energy_eV: ArrayLike,
    absorbance: ArrayLike,
    *,
    model: XanesModel,
    sigma: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    start: ArrayLike | None = None,
    options: XanesOptions | None = None,
) -> XanesFit:
    """Fit eq. (1) to many spectra at once.

    Parameters
    ----------
    energy_eV : (n,) float, eV
        In any order; NaN where not yet known.
    absorbance : (n_pixels, n) float
        μt; an energy that is NaN in all pixels is dropped, a single NaN gets no weight.
    model : XanesModel
    sigma : float or (n_pixels,) float, optional
        Noise of μt; a spectrum whose noise is not positive is left out.
        None: taken from the residuals, and uncertainties are scaled by √(reduced χ²).
    weights : (n,) float, optional
        Relative weight of the energies (1/variance).
    start : (p,) or (n_pixels, p) float, optional
        Start parameters; default and where NaN: the fit of the mean spectrum.
    options : XanesOptions, optional

    Raises
    ------
    DataError
        If shapes do not fit together, nothing is finite or no noise is positive.
    """
    options = options or XanesOptions()
    spectra = np.asarray(absorbance, dtype=float)
    if sigma is not None:
        noise = _noise(sigma, len(spectra))
        spectra = np.where((noise > 0).reshape(-1, *[1] * (spectra.ndim - 1)), spectra, np.nan)
    data = _Spectra.prepare(energy_eV, spectra, weights, model)
    mean = data.mean_fit(options)
    if sigma is None:
        noise = np.full(len(data.values), data.residual_noise(mean))
    usual = float(np.median(noise[noise > 0]))
    variance = np.where(noise > 0, noise, usual) ** 2
    determined = data.determined(mean, usual, options)
    first = np.broadcast_to(mean[model.shape], (len(data.values), model.shape.size))
    if start is not None:
        given = np.broadcast_to(np.asarray(start, dtype=float), (len(first), len(model.names)))[
            :, model.shape
        ]
        first = np.where(np.isfinite(given), given, first)
    prior = _prior(model, mean, options, complete=data.complete)
    raw = data.solve(first, variance, prior, options, options.max_iterations)
    data.retry(raw, variance, prior, options)
    return data.finish(raw, variance, determined, mean, absolute=sigma is not None)


def _noise(sigma: ArrayLike, n_pixels: int) -> Float:
    """Noise of each pixel, (n_pixels,)."""
    values = np.asarray(sigma, dtype=float)
    if values.ndim > 1 or values.size not in (1, n_pixels) or not np.any(values > 0):
        raise DataError(
            f"sigma: expected a positive number or one per spectrum ({n_pixels}), got shape {values.shape}"
        )
    return np.broadcast_to(values, n_pixels).copy()


def _prior(model: XanesModel, mean: Float, options: XanesOptions, *, complete: bool) -> tuple[Float, Float]:
    """Means and inverse variances of the Gaussian priors on the non-linear parameters, (q,) each.

    While energies are missing the bounds act as weak priors, so that what is not yet measured stays put.
    """
    _, low, high = model.intervals()
    centre = mean[model.shape]
    strength = np.zeros(centre.size) if complete else 12.0 / (high - low) ** 2
    if options.prior == "mean":
        spread = np.where(
            np.arange(centre.size) % 2 == 0, options.prior_centre_eV, options.prior_width_relative * centre
        )
        strength[1:] += 1.0 / spread[1:] ** 2
    return centre, strength


@dataclass(frozen=True)
class _Raw:
    """Output arrays of the kernel."""

    linear: Float
    shape: Float
    inverse: Float
    cost: Float
    converged: NDArray[np.bool_]

    def arrays(self) -> tuple[NDArray, ...]:
        return self.linear, self.shape, self.inverse, self.cost, self.converged


@dataclass(frozen=True)
class _Spectra:
    """Spectra on the energies measured so far: times root weight, zero where missing."""

    model: XanesModel
    energy: Float
    values: Float
    root_weight: Float
    complete: bool

    @classmethod
    def prepare(
        cls, energy_eV: ArrayLike, absorbance: ArrayLike, weights: ArrayLike | None, model: XanesModel
    ) -> _Spectra:
        energy, values = np.asarray(energy_eV, dtype=float), np.asarray(absorbance, dtype=float)
        if values.ndim != 2 or values.shape[1:] != energy.shape:
            raise DataError(f"absorbance: expected shape (n_pixels, {energy.size}), got {values.shape}")
        weight = np.ones(energy.size) if weights is None else np.asarray(weights, dtype=float)
        if weight.shape != energy.shape or not np.all(weight >= 0):
            raise DataError(f"weights: expected {energy.size} numbers ≥ 0, got shape {weight.shape}")
        finite = np.isfinite(values)
        keep = np.isfinite(energy) & finite.any(axis=0) & (weight > 0)
        finite, values = finite[:, keep], values[:, keep]
        if not finite.any():
            raise DataError("absorbance: expected at least one finite spectrum, got none")
        root = np.where(finite, np.sqrt(weight[keep]), 0.0)
        return cls(model, energy[keep], root * np.where(finite, values, 0.0), root, bool(keep.all()))

    def solve(
        self,
        start: Float,
        variance: Float,
        prior: tuple[Float, Float],
        options: XanesOptions,
        iterations: int,
    ) -> _Raw:
        """Run the kernel in threads over chunks of pixels (it holds no Python lock)."""
        model, n_pixels, n = self.model, len(self.values), len(self.model.names)
        _, low, high = model.intervals()
        raw = _Raw(
            np.empty((n_pixels, model.linear.size)),
            np.empty((n_pixels, model.shape.size)),
            np.empty((n_pixels, n, n)),
            np.empty(n_pixels),
            np.empty(n_pixels, dtype=np.bool_),
        )
        falloff, start = model.step_falloff(self.energy), np.ascontiguousarray(start)

        def run(first: int) -> None:
            part = slice(first, first + CHUNK)
            fit_pixels(
                self.energy, falloff, self.root_weight[part], self.values[part], variance[part], start[part],
                low, high, prior[0], prior[1], iterations, options.tolerance,
                raw.linear[part], raw.shape[part], raw.inverse[part], raw.cost[part], raw.converged[part],
            )  # fmt: skip

        with ThreadPoolExecutor(options.workers or len(os.sched_getaffinity(0))) as pool:
            list(pool.map(run, range(0, n_pixels, CHUNK)))
        return raw

    def mean(self) -> _Spectra:
        """The mean spectrum; thick pixels count more, so that stray vacuum does not dilute it."""
        thickness = np.maximum(self.values.sum(axis=1), 0.0)[:, None]
        thickness = thickness if thickness.sum() > 0 else np.ones_like(thickness)
        norm = np.sum(thickness * self.root_weight**2, axis=0)
        total = np.sum(thickness * self.root_weight * self.values, axis=0)
        root = self.root_weight.max(axis=0)
        values = root * np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)
        return _Spectra(self.model, self.energy, values[None], root[None], self.complete)

    def mean_fit(self, options: XanesOptions) -> Float:
        """Parameters (p,) of the mean spectrum: the best of several starts."""
        mean, (nominal, low, high) = self.mean(), self.model.intervals()
        starts = np.repeat(nominal[None], 24, axis=0)
        starts[:, 0] = np.repeat(np.linspace(low[0] + 2.0, high[0] - 2.0, 6), 4)
        starts[:, 1] *= np.tile([0.6, 1.4], 12)
        starts[:, 4:6] += np.tile([[0.0, 0.0], [0.0, 0.0], [12.0, 6.0], [12.0, 6.0]], (6, 1))[
            :, : nominal.size - 4
        ]
        values, root = np.repeat(mean.values, 24, axis=0), np.repeat(mean.root_weight, 24, axis=0)
        many = _Spectra(self.model, self.energy, values, root, self.complete)
        # the bounds as priors only keep what is not yet measured in place: 1e-3 of the signal is loose
        variance = np.full(24, max(1e-6 * float(np.ptp(mean.values)) ** 2, 1e-18))
        raw = many.solve(starts, variance, (nominal, 12.0 / (high - low) ** 2), options, 300)
        best = int(np.argmin(raw.cost))
        return self._parameters(raw)[best]

    def residual_noise(self, mean: Float) -> float:
        """Median over pixels of the rms residual of the mean's shapes, their amplitudes free."""
        shapes = [np.ones(self.energy.size)]
        for amplitude in self.model.linear[1:]:
            unit = np.where(np.arange(mean.size) == amplitude, 1.0, mean)
            unit[np.setdiff1d(self.model.linear, amplitude)] = 0.0
            shapes.append(evaluate(self.model, unit, self.energy))
        basis = np.array(shapes).T
        amplitudes = np.linalg.lstsq(basis, self.values.T, rcond=1e-10)[0]
        free = max(self.energy.size - basis.shape[1], 1)
        noise = np.sqrt(np.sum((self.values.T - basis @ amplitudes) ** 2, axis=0) / free)
        return max(float(np.median(noise)), 1e-9)

    def determined(self, mean: Float, noise: float, options: XanesOptions) -> NDArray[np.bool_]:
        """Which parameters the energies at hand determine, at the noise of a single pixel.

        An amplitude must be known better than a part of the signal, the edge energy better than a part of
        what its bounds allow; the edge's width follows its energy, a peak's shape its amplitude (σ tells
        the rest). The question is put to the energies: where there is a signal its noise counts as ≤ 1/20.
        """
        model, spectrum = self.model, self.mean()
        _, low, high = model.intervals()
        signal = float(np.ptp(spectrum.values))
        noise = min(noise, signal / 20.0) if signal > 5.0 * noise else noise
        zero = np.zeros(low.size)
        raw = spectrum.solve(mean[None, model.shape], np.array([noise**2]), (zero, zero), options, 0)
        sigma = noise * np.sqrt(np.abs(self._ordered(np.diagonal(raw.inverse, axis1=1, axis2=2))[0]))
        known = sigma < DETERMINED * signal
        known[2] = sigma[2] < DETERMINED * (high[0] - low[0]) / np.sqrt(12.0)
        known[3] = known[2]
        known[4:] = np.repeat(known[4::3], 3)
        return known

    def retry(self, raw: _Raw, variance: Float, prior: tuple[Float, Float], options: XanesOptions) -> None:
        """Further starts, edge and white line moved together, where a fit is suspicious; keep the best.

        Suspicious: not converged, a negative peak, or a cost far above the median (relative, since eq. (1)
        never describes measured spectra within their noise).
        """
        cost = raw.cost / variance
        suspicious = ~raw.converged | (raw.linear[:, 2:].min(axis=1) < 0) | (cost > 1.6 * np.median(cost))
        lost = np.flatnonzero(suspicious)
        part = _Spectra(self.model, self.energy, self.values[lost], self.root_weight[lost], self.complete)
        for offset in RESTARTS_EV if lost.size else ():
            start = np.repeat(prior[0][None], lost.size, axis=0)
            start[:, 0] += offset
            start[:, 4::2] += offset
            again = part.solve(start, variance[lost], prior, options, 3 * options.max_iterations)
            better = again.cost < raw.cost[lost] * np.where(
                raw.converged[lost] | ~again.converged, 1 - 1e-6, 1.01
            )
            for old, new in zip(raw.arrays(), again.arrays(), strict=True):
                old[lost[better]] = new[better]

    def finish(
        self, raw: _Raw, variance: Float, determined: NDArray[np.bool_], mean: Float, *, absolute: bool
    ) -> XanesFit:
        """Order the parameters, scale the covariance and blank what is not determined."""
        parameters = self._parameters(raw)
        measured = np.count_nonzero(self.root_weight, axis=1)
        free = measured - parameters.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            chi2 = np.where(free > 0, raw.cost / (variance * free), np.nan)
        scale = variance if absolute else variance * np.where(free > 0, chi2, 1.0)
        order = self._order()
        covariance = raw.inverse[:, order[:, None], order] * scale[:, None, None]
        blank = ~determined | (measured == 0)[:, None]
        parameters[blank] = np.nan
        covariance[blank[:, :, None] | blank[:, None, :]] = np.nan
        covariance[np.abs(covariance) > UNKNOWN] = np.nan
        converged = raw.converged & (measured > 0)
        return XanesFit(
            self.model, parameters, covariance.astype(np.float32), chi2, converged, determined, mean
        )

    def _order(self) -> NDArray[np.intp]:
        """Where each parameter stands in the kernel's order (linear first)."""
        return np.argsort(np.concatenate([self.model.linear, self.model.shape]))

    def _ordered(self, kernel: Float) -> Float:
        return kernel[:, self._order()]

    def _parameters(self, raw: _Raw) -> Float:
        return self._ordered(np.concatenate([raw.linear, raw.shape], axis=1))
