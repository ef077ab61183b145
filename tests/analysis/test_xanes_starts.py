"""Learned starts: nearer to the truth than the mean's, and only where there is something to learn from."""

import numpy as np

from ptychrome.analysis.xanes import XanesModel, XanesOptions, evaluate
from ptychrome.analysis.xanes_spectra import Spectra
from ptychrome.analysis.xanes_starts import fit_of_one, learned_starts

MODEL, OPTIONS = XanesModel.for_edge("V"), XanesOptions()
ENERGY = np.concatenate(
    [np.arange(5420.0, 5460.0, 10.0), np.arange(5463.0, 5493.0), [5500.0, 5515.0, 5540.0]]
)
NOISE = 0.01


def starts_of(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts of all pixels and the mean's shape."""
    data = Spectra.prepare(ENERGY, spectra, None, MODEL)
    mean, none = fit_of_one(data.mean(), OPTIONS), np.zeros(MODEL.shape.size)
    return learned_starts(data, mean, np.full(len(spectra), NOISE**2), (none, none), OPTIONS), mean[
        MODEL.shape
    ]


def noisy(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Edge energies (n,) and spectra of pixels of different thickness."""
    rng = np.random.default_rng(0)
    truth = np.tile([0.02, 0.2, 5478.0, 2.5, 0.08, 5469.0, 1.2, 0.08, 5484.0, 4.0], (n, 1))
    truth[:, [2, 8]] += rng.uniform(-2, 2, (n, 1))
    truth[:, MODEL.linear] *= rng.uniform(0.7, 1.5, (n, 1))
    return truth[:, 2], evaluate(MODEL, truth, ENERGY) + NOISE * rng.standard_normal((n, ENERGY.size))


def test_starts_follow_the_spectra():
    edge, spectra = noisy(3000)
    starts, mean = starts_of(spectra)
    # b2 is uniform over ± 2 eV: an rms of 1.15 eV around the mean; the noise of one pixel alone makes 0.3 eV
    assert np.std(starts[:, 0] - edge) < 0.5 < 1.0 < np.std(mean[0] - edge)


def test_what_is_empty_or_has_holes_starts_from_the_mean():
    _, spectra = noisy(3000)
    spectra[5] = 0.0
    spectra[6, 10] = np.nan
    starts, mean = starts_of(spectra)
    assert (starts[[5, 6]] == mean).all()
    assert (starts[:5] != mean).any(axis=1).all()


def test_a_few_pixels_start_from_the_mean():
    starts, mean = starts_of(noisy(100)[1])
    assert (starts == mean).all()
