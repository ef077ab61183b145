"""Where fits of spectra start: that of the mean spectrum, those of the pixels, further ones where needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.xanes_model import XanesModel, XanesOptions
from ptychrome.analysis.xanes_spectra import Prior, Raw, Spectra

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# further starts: edge with white line, pre-edge peak moved
RESTARTS_EV = ((0.0, -2.0), (-2.0, 0.0), (2.0, 2.0))
DOUBTFUL = 0.07  # σ of a centre over its range from which there may be several minima
HIGH_WHITE_LINE = (2.0, 0.8)  # heights above both, times the mean's and in edge jumps, are high
LEASH_EV = 2.0  # centres of a fit that is held close to the mean's
LEARN_FROM = 5.0  # least edge jump over noise of these pixels, and of those that start so
RIDGE = 1e-3  # of the mean variance of the features
SAMPLE = 512  # pixels from whose fits the starts of all are learned


def mean_prior(model: XanesModel, mean: Float, centre_eV: float, width_relative: float) -> Prior:
    """Gaussian priors around the shapes of the mean's parameters (p,): centres in eV, widths relative."""
    centre = mean[model.shape]
    spread = np.where(np.arange(centre.size) % 2 == 0, centre_eV, width_relative * centre)
    return centre, 1.0 / spread**2


def fit_of_one(data: Spectra, options: XanesOptions) -> Float:
    """Parameters (p,) of the one spectrum held: the best of several starts."""
    nominal, low, high = data.model.intervals()
    starts = np.repeat(nominal[None], 24, axis=0)
    starts[:, 0] = np.repeat(np.linspace(low[0] + 2.0, high[0] - 2.0, 6), 4)
    starts[:, 1] *= np.tile([0.6, 1.4], 12)
    starts[:, 4:6] += np.tile([[0.0, 0.0], [0.0, 0.0], [12.0, 6.0], [12.0, 6.0]], (6, 1))[
        :, : nominal.size - 4
    ]
    many = replace(
        data,
        values=np.repeat(data.values, 24, axis=0),
        root_weight=np.repeat(data.root_weight, 24, axis=0),
    )
    # the bounds as priors only keep what is not yet measured in place: 1e-3 of the signal is loose
    variance = np.full(24, max(1e-6 * data.signal**2, 1e-18))
    raw = many.solve(starts, variance, (nominal, 12.0 / (high - low) ** 2), options, 300)
    return raw.parameters[int(np.argmin(raw.cost))]


def learned_starts(data: Spectra, mean: Float, variance: Float, prior: Prior, options: XanesOptions) -> Float:
    """Start of each pixel (n_pixels, q), linear in its spectrum, as the fits of a sample of pixels teach.

    Where there is too little to learn from, a value is missing or a pixel is empty, that is the fit of the
    `mean` (p,).
    """
    model, shape = data.model, data.model.shape
    starts = np.repeat(mean[None, shape], len(data.values), axis=0)
    if len(starts) < 4 * SAMPLE:
        return starts
    sample = np.linspace(0, len(starts) - 1, SAMPLE).astype(np.intp)
    raw = data.part(sample, mean[shape], variance, prior, options)
    sound = raw.converged & (raw.parameters[:, model.linear[1:]] > 0).all(axis=1) & ~_at_bound(raw, model)
    sound &= raw.parameters[:, 1] > LEARN_FROM * np.sqrt(variance[sample])
    sound &= data.points[sample] == data.points.max()
    if np.count_nonzero(sound) < 2 * data.energy.size:
        return starts
    taught = raw.parameters[sound][:, shape]
    spectra, constant = data.values[:, : data.energy.size], np.sqrt(data.weight)
    slope, offset, scale = _regression(spectra[sample[sound]], constant, taught)
    projected = spectra @ np.column_stack([slope, scale])
    thickness = projected[:, -1]
    fine = (thickness * mean[1] > LEARN_FROM * np.sqrt(variance)) & (data.points == data.points.max())
    low, high = np.quantile(taught, [0.01, 0.99], axis=0)
    starts[fine] = np.clip(offset + projected[fine, :-1] / thickness[fine, None], low, high)
    return starts


def _regression(spectra: Float, constant: Float, parameters: Float) -> tuple[Float, Float, Float]:
    """Ridge regression of parameters (n, q) on spectra (n, m) less their `constant` (m,), per thickness.

    Returns slope (m, q), offset (q,) and scale (m,): spectrum · scale is its thickness, in mean spectra, and
    offset + spectrum · slope / thickness the expected parameters.
    """
    unit = constant / np.linalg.norm(constant)
    free = spectra - np.outer(spectra @ unit, unit)
    profile = free.mean(axis=0)
    scale = profile / (profile @ profile)
    features = free / (free @ scale)[:, None] - profile
    normal, middle = features.T @ features, parameters.mean(axis=0)
    normal += RIDGE * np.trace(normal) / unit.size * np.eye(unit.size)
    slope = np.linalg.solve(normal, features.T @ (parameters - middle))
    return slope - np.outer(unit, unit @ slope), middle - profile @ slope, scale


def retry(data: Spectra, raw: Raw, variance: Float, mean: Float, prior: Prior, options: XanesOptions) -> None:
    """Further starts where a fit is suspicious, the first also at a bound or with an uncertain centre.

    Suspicious: not converged, a negative peak, a white line far above that of the `mean` (p,), or a cost
    far above the median (relative, since eq. (1) never describes measured spectra within their noise).
    Where the white line stays high, edge and white line may have changed places: one more fit is held
    close to the mean, and what it loses in likelihood tells how well the best is known. The best is kept.
    """
    shape = data.model.shape
    slow = np.flatnonzero(~raw.converged)
    again = data.part(slow, raw.parameters[slow][:, shape], variance, prior, options)
    raw.keep_better(slow, again)
    lost = _suspicious(raw, variance) | _high_white_line(raw, mean, data.model)
    pixels = np.flatnonzero(lost | _at_bound(raw, data.model) | _uncertain(raw, data.model))
    for edge_shift, peak_shift in RESTARTS_EV:
        start = mean[shape].copy()
        start[[0, *range(4, start.size, 2)]] += edge_shift
        start[2:3] += peak_shift
        raw.keep_better(pixels, data.part(pixels, start, variance, prior, options))
        pixels = np.flatnonzero(lost)
    pixels = np.flatnonzero(_high_white_line(raw, mean, data.model))
    best, held = raw.of(pixels), mean_prior(data.model, mean, LEASH_EV, 1.0)
    leashed = data.part(pixels, mean[shape], variance, held, options)
    chi2 = [
        found.cost / variance[pixels] - np.sum(strength * (found.parameters[:, shape] - centre) ** 2, axis=1)
        for found, (centre, strength) in ((leashed, held), (best, prior))
    ]
    best.widen(leashed, chi2[0] - chi2[1])
    raw.covariance[pixels] = best.covariance


def _suspicious(raw: Raw, variance: Float) -> Bool:
    cost, peaks = raw.cost / variance, raw.parameters[:, 4::3]
    return ~raw.converged | (peaks < 0).any(axis=1) | (cost > 1.6 * np.median(cost))


def _high_white_line(raw: Raw, mean: Float, model: XanesModel) -> Bool:
    """Where a Lorentzian after the first is far higher, per edge jump, than in the mean's parameters (p,)."""
    high, jump = np.zeros(len(raw.cost), dtype=np.bool_), raw.parameters[:, 1]
    for amplitude in model.linear[3:]:
        usual = mean[amplitude] / mean[1] if mean[1] > 0 else 0.0
        limit = max(HIGH_WHITE_LINE[0] * usual, HIGH_WHITE_LINE[1])
        high |= raw.parameters[:, amplitude] > limit * jump
    return high


def _at_bound(raw: Raw, model: XanesModel) -> Bool:
    shape, (_, low, high) = raw.parameters[:, model.shape], model.intervals()
    stuck: Bool = np.logical_or(shape <= low, shape >= high)
    return np.asarray(stuck.any(axis=1))


def _uncertain(raw: Raw, model: XanesModel) -> Bool:
    """Where a peak or the edge may be anywhere in a good part of its range."""
    _, low, high = model.intervals()
    sigma = np.sqrt(np.diagonal(raw.covariance, axis1=1, axis2=2)[:, model.shape[::2]])
    return np.asarray((sigma > DOUBTFUL * (high - low)[::2]).any(axis=1))
