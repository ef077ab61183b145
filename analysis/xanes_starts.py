"""Where fits of spectra start: the mean spectrum's own, those of the pixels, and further ones where needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.xanes_model import XanesModel, XanesOptions
from ptychrome.analysis.xanes_spectra import Prior, Raw, Spectra

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# further starts: edge and white line moved, pre-edge peak moved (eV), widths of peaks and edge scaled
RESTARTS = ((0.0, -0.7, 0.5), (-2.0, 0.0, 1.0), (2.0, 0.7, 0.5))
HIGH_WHITE_LINE = (2.0, 0.8)  # heights above both, times the mean's and in edge jumps, are high
LEASH_EV = 2.0  # centres of a fit that is held close to the mean's
LEARN_FROM = 5.0  # least edge jump over noise of these pixels, and of those that start so
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

    Spectra count without their constant and per mean spectrum's thickness. Where there is too little to learn
    from, a value is missing or a pixel is empty, that is the fit of the `mean` (p,).
    """
    shape, usual = data.model.shape, mean[data.model.shape]
    starts = np.repeat(usual[None], len(data.values), axis=0)
    width = data.energy.size
    if len(starts) < 4 * SAMPLE:
        return starts
    root, values = data.root_weight[:, :width], data.values[:, :width]
    sample = np.linspace(0, len(starts) - 1, SAMPLE).astype(np.intp)
    raw = data.part(sample, usual, variance, prior, options)
    sound = raw.converged & (raw.parameters[:, data.model.linear[1:]] > 0).all(axis=1)
    sound &= ~_at_bound(raw, data.model) & (raw.parameters[:, 1] > LEARN_FROM * np.sqrt(variance[sample]))
    sample, taught = sample[sound], raw.parameters[sound][:, shape]
    if sample.size < 2 * width:
        return starts
    constant = root.max(axis=0)
    constant = constant / np.linalg.norm(constant)
    profile = values[sample].mean(axis=0)
    profile -= constant * (constant @ profile)
    scale = profile / (profile @ profile)
    features = values[sample] / (values[sample] @ scale)[:, None] - profile
    features -= np.outer(features @ constant, constant)
    normal = features.T @ features
    normal += 1e-3 * np.trace(normal) / width * np.eye(width)
    middle = taught.mean(axis=0)
    slope = np.linalg.solve(normal, features.T @ (taught - middle))
    slope -= np.outer(constant, constant @ slope)
    projected = values @ np.column_stack([slope, scale])
    thickness = projected[:, -1]
    fine = (thickness * (mean[1] / LEARN_FROM) > np.sqrt(variance)) & (root == root.max(axis=0)).all(axis=1)
    low, high = np.quantile(taught, [0.01, 0.99], axis=0)
    starts[fine] = np.clip(middle + projected[fine, :-1] / thickness[fine, None] - profile @ slope, low, high)
    return starts


def retry(data: Spectra, raw: Raw, variance: Float, mean: Float, prior: Prior, options: XanesOptions) -> None:
    """Further starts where a fit is suspicious, the first also where it is at a bound; keep the best.

    Suspicious: not converged, a negative peak, a white line far above that of the `mean` (p,), or a cost
    far above the median (relative, since eq. (1) never describes measured spectra within their noise).
    Where the white line stays high, edge and white line may have changed places: one more fit is held
    close to the mean, and what it loses in likelihood tells how well the best is known.
    """
    shape = data.model.shape
    slow = np.flatnonzero(~raw.converged)
    again = data.part(slow, raw.parameters[slow][:, shape], variance, prior, options)
    raw.keep_better(slow, again)
    lost = _suspicious(raw, variance) | _high_white_line(raw, mean, data.model)
    pixels = np.flatnonzero(lost | _at_bound(raw, data.model))
    for edge_shift, peak_shift, width in RESTARTS:
        start = mean[shape].copy()
        start[[0, *range(4, start.size, 2)]] += edge_shift
        start[2:3] += peak_shift
        start[1::2] *= width
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
