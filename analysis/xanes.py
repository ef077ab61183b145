"""Fits of K-edge spectra, pixel by pixel, with uncertainties, also while energies are still missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes_calibration import Calibration, simulated_fits
from ptychrome.analysis.xanes_model import Interval, Peak, XanesModel, XanesOptions, evaluate
from ptychrome.analysis.xanes_spectra import Prior, Raw, Spectra
from ptychrome.analysis.xanes_starts import fit_of_one, learned_starts, mean_prior, retry

__all__ = ["Interval", "Peak", "XanesFit", "XanesModel", "XanesOptions", "evaluate", "fit_xanes"]

Float = NDArray[np.float64]
UNKNOWN = 1e12  # a variance beyond this (eV², or absorbance²) says nothing


@dataclass(frozen=True)
class XanesFit:
    """Fitted spectra; parameters in the order of `XanesModel.names`.

    Attributes
    ----------
    model : XanesModel
    parameters : (n_pixels, p) float64
        NaN where a spectrum was missing or the energies do not determine the parameter.
    covariance : (n_pixels, p, p) float32
        Of the linearised model, with bounds counted as flat priors.
    chi2 : (n_pixels,) float64
        Reduced χ²; NaN without degrees of freedom.
    measured : (n_pixels,) bool
        Whether there was a spectrum to fit; false where all is missing, or the noise is not positive.
    converged : (n_pixels,) bool
    determined : (p,) bool
        Parameters which the energies measured so far determine.
    mean_parameters : (p,) float64
        Fit of the mean spectrum.
    calibration : Calibration
        What `sigma` and `cov` know beyond `covariance`.
    """

    model: XanesModel
    parameters: Float
    covariance: NDArray[np.float32] = field(repr=False)
    chi2: Float = field(repr=False)
    measured: NDArray[np.bool_] = field(repr=False)
    converged: NDArray[np.bool_] = field(repr=False)
    determined: NDArray[np.bool_]
    mean_parameters: Float
    calibration: Calibration = Calibration()

    def __getitem__(self, name: str) -> Float:
        """Values of one named parameter, (n_pixels,)."""
        return self.parameters[:, self.model.names.index(name)]

    def sigma(self, name: str) -> Float:
        """Standard deviation of one named parameter, (n_pixels,), calibrated."""
        return np.sqrt(self._local(name, name)) * self.calibration.factor(name)

    def cov(self, first: str, second: str) -> Float:
        """Covariance of two named parameters, (n_pixels,), calibrated."""
        factor = self.calibration.factor
        return self._local(first, second) * factor(first) * factor(second)

    def _local(self, first: str, second: str) -> Float:
        i, j = self.model.names.index(first), self.model.names.index(second)
        return self.covariance[:, i, j].astype(float)

    def pre_edge_area(self) -> tuple[Float, Float]:
        """Area π c11 c13 of the pre-edge peak and its calibrated standard deviation, (n_pixels,) each, eV.

        The variance has the terms of second order of a product (Goodman, J. Am. Stat. Assoc. 55, 708
        (1960)): height and width of a weak peak are uncertain by tens of per cent, and against each other.
        """
        area, variance = self._area()
        return area, np.sqrt(np.maximum(variance, 0.0)) * self.calibration.factor("area")

    def pre_edge_ratio(self) -> tuple[Float, Float]:
        """Pre-edge area over edge jump and its calibrated standard deviation, (n_pixels,) each, eV."""
        area, area_variance = self._area()
        jump, cov = self["b1"], self._local
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = area / jump
            mixed = np.pi * (self["c13"] * cov("c11", "b1") + self["c11"] * cov("c13", "b1"))
            variance = area_variance + ratio**2 * cov("b1", "b1") - 2 * ratio * mixed
            sigma = np.sqrt(np.maximum(variance, 0.0)) / np.abs(jump)
        return ratio, sigma * self.calibration.factor("ratio")

    def _area(self) -> tuple[Float, Float]:
        c11, c13, cov = self["c11"], self["c13"], self._local
        variance = (
            c13**2 * cov("c11", "c11")
            + c11**2 * cov("c13", "c13")
            + 2 * c11 * c13 * cov("c11", "c13")
            + cov("c11", "c11") * cov("c13", "c13")
            + cov("c11", "c13") ** 2
        )
        return np.pi * c11 * c13, np.pi**2 * variance

    def calibrated_by(self, variance: Float, truth: Float, noise2: Float, again: XanesFit) -> XanesFit:
        """The same with σ calibrated by fits of simulated spectra.

        Parameters
        ----------
        variance : (n_pixels,) float64
            Noise² of μt.
        truth, noise2 : (n, p) and (n,) float64
            True parameters and noise² of the simulated spectra.
        again : XanesFit
            Their fits.
        """
        true = replace(again, parameters=truth)
        deviations = {name: (again[name] - true[name], again.sigma(name)) for name in self.model.names}
        for name in ("area", "ratio"):
            (found, sigma), (expected, _) = (getattr(fit, f"pre_edge_{name}")() for fit in (again, true))
            deviations[name] = found - expected, sigma
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = (variance / self["b1"] ** 2, noise2 / true["b1"] ** 2)
        return replace(self, calibration=Calibration.learned(*relative, deviations))


def fit_xanes(
    energy_eV: ArrayLike,
    absorbance: ArrayLike,
    *,
    model: XanesModel,
    sigma: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    start: ArrayLike | None = None,
    phase: ArrayLike | None = None,
    sigma_phase: ArrayLike | None = None,
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
        Start parameters; where NaN: the fit of the mean spectrum. Default: what fits of a sample of pixels
        teach, or, of few pixels, the fit of the mean spectrum.
    phase : (n_pixels, n) float, rad, optional
        To be fitted together with the absorbance, each shape by its Kramers–Kronig partner, with an offset
        and a slope in energy of its own.
    sigma_phase : float or (n_pixels,) float
        Noise of the phase; needed with `phase`.
    options : XanesOptions, optional
        Those of the model count where the model is made (`XanesModel.for_edge`).

    Raises
    ------
    DataError
        If shapes do not fit together, nothing is finite or no noise is positive.
    """
    options = options or XanesOptions()
    spectra = np.asarray(absorbance, dtype=float)
    if sigma is not None:
        noise = _noise(sigma, len(spectra), "sigma")
        if not np.all(noise > 0):
            spectra = np.where((noise > 0).reshape(-1, *[1] * (spectra.ndim - 1)), spectra, np.nan)
    data = Spectra.prepare(energy_eV, spectra, weights, model)
    mean_spectrum = data.mean()
    mean = fit_of_one(mean_spectrum, options)
    if sigma is None:
        noise = np.full(len(data.values), data.residual_noise(mean))
    usual = float(np.median(noise[noise > 0]))
    noise = np.where(noise > 0, noise, usual)
    if phase is not None:
        data = data.with_phase(phase, noise / _positive_phase_noise(sigma_phase, len(noise)))
        mean_spectrum = data.mean()
    determined = mean_spectrum.determined(mean, usual, options)
    prior = _prior(model, mean, options, complete=data.complete)
    if start is None:
        first = learned_starts(data, mean, noise**2, prior, options)
    else:
        given = np.broadcast_to(np.asarray(start, dtype=float), (len(noise), len(model.names)))
        first = np.where(np.isfinite(given), given, mean)[:, model.shape]
    raw = data.solve(first, noise**2, prior, options, options.max_iterations)
    retry(data, raw, noise**2, mean, prior, options)
    fit = _finish(data, raw, noise**2, determined, mean, absolute=sigma is not None)
    known = sigma is not None or np.isfinite(fit.chi2).any()
    if not (data.complete and known):  # without noise there is nothing to simulate
        return fit
    variance = noise**2 * (1.0 if sigma is not None else np.nanmedian(fit.chi2))
    simulated = simulated_fits(data, raw, variance, mean, prior, options)
    if simulated is None:
        return fit
    truth, noise2, again = simulated
    found = replace(fit, parameters=again.parameters, covariance=again.covariance)
    return fit.calibrated_by(variance, truth, noise2, found)


def _noise(sigma: ArrayLike, n_pixels: int, name: str) -> Float:
    """Noise of each pixel, (n_pixels,)."""
    values = np.asarray(sigma, dtype=float)
    if values.ndim > 1 or values.size not in (1, n_pixels) or not np.any(values > 0):
        raise DataError(
            f"{name}: expected a positive number or one per spectrum ({n_pixels}), got shape {values.shape}"
        )
    return np.broadcast_to(values, n_pixels).copy()


def _positive_phase_noise(sigma: ArrayLike | None, n_pixels: int) -> Float:
    if sigma is None:
        raise DataError("sigma_phase: needed to weigh the phase against the absorbance, got none")
    noise = _noise(sigma, n_pixels, "sigma_phase")
    if not np.all(noise > 0):
        raise DataError(f"sigma_phase: expected positive numbers, got a minimum of {noise.min():.3g}")
    return noise


def _prior(model: XanesModel, mean: Float, options: XanesOptions, *, complete: bool) -> Prior:
    """Means and inverse variances of the Gaussian priors on the non-linear parameters, (q,) each.

    While energies are missing the bounds act as weak priors, so that what is not yet measured stays put.
    """
    _, low, high = model.intervals()
    strength = np.zeros(low.size) if complete else 12.0 / (high - low) ** 2
    centre, known = mean_prior(model, mean, options.prior_centre_eV, options.prior_width_relative)
    if options.prior == "mean":
        strength[1:] += known[1:]
    return centre, strength


def _finish(
    data: Spectra, raw: Raw, variance: Float, determined: NDArray[np.bool_], mean: Float, *, absolute: bool
) -> XanesFit:
    """Scale the covariance and blank what is not determined."""
    free = data.points - mean.size - data.extra_linear
    measured = data.points > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        chi2 = np.where(free > 0, raw.cost / (variance * free), np.nan)
    covariance, parameters = raw.covariance, raw.parameters
    if not absolute:
        # σ² from residuals: an estimate over it has Student's distribution, of variance free/(free − 2)
        student = np.where(free > 2, free / np.maximum(free - 2, 1), 1.0)
        covariance *= np.where(free > 0, chi2 * student, 1.0)[:, None, None].astype(np.float32)
    parameters[~measured] = np.nan
    covariance[~measured] = np.nan
    parameters[:, ~determined] = np.nan
    covariance[:, ~determined] = covariance[:, :, ~determined] = np.nan
    unknown = np.diagonal(covariance, axis1=1, axis2=2) > UNKNOWN
    if unknown.any():
        covariance[unknown[:, :, None] | unknown[:, None, :]] = np.nan
    return XanesFit(
        data.model, parameters, covariance, chi2, measured, raw.converged & measured, determined, mean
    )
