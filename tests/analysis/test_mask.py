"""Why pixels are missing, one of each kind."""

import numpy as np
import pytest

from ptychrome.analysis.mask import MaskOptions, fit_flags, fitted_mask
from ptychrome.analysis.xanes import XanesModel, XanesOptions, evaluate, fit_xanes
from ptychrome.schema import MAP_LABELS, Flag

ENERGY = np.concatenate(
    [np.arange(5420.0, 5462.0, 10.0), np.arange(5463.0, 5492.0, 1.0), [5500, 5520, 5540.0]]
)
MODEL = XanesModel.for_edge("V")
PIXEL = np.array([0.02, 0.2, 5478, 2.5, 0.06, 5469, 1.1, 0.08, 5484, 4.0])
SIGMA = 0.005


@pytest.fixture(scope="module")
def spectra():
    """200 pixels with an edge, 20 of vacuum, one without any value."""
    clean = np.concatenate(
        [np.tile(PIXEL, (200, 1)), np.tile(PIXEL * np.isin(np.arange(10), [2, 3, 5, 6, 8, 9]), (21, 1))]
    )
    values = evaluate(MODEL, clean, ENERGY)
    values += SIGMA * np.random.default_rng(0).standard_normal(values.shape)
    values[-1] = np.nan
    return values


def test_every_reason(spectra):
    flags = fit_flags(fit_xanes(ENERGY, spectra, model=MODEL, sigma=SIGMA), SIGMA)
    assert flags.dtype == np.uint8
    assert (flags[:200] == Flag.FITTED).mean() > 0.97
    assert np.isin(flags[200:220], [Flag.NOISY, Flag.NOT_CONVERGED]).all()
    assert flags[220] == Flag.NO_SPECTRUM
    early = np.where(ENERGY < 5474, ENERGY, np.nan)
    flags = fit_flags(fit_xanes(early, spectra, model=MODEL, sigma=SIGMA), SIGMA)
    assert (flags[:220] == Flag.UNDETERMINED).all()
    assert flags[220] == Flag.NO_SPECTRUM
    hurried = fit_xanes(
        ENERGY, spectra, model=MODEL, sigma=SIGMA, options=XanesOptions(max_iterations=1, tolerance=1e-14)
    )
    assert Flag.NOT_CONVERGED in fit_flags(hurried, SIGMA)[:200]


def test_the_mask_is_what_has_no_flag(spectra):
    fit = fit_xanes(ENERGY, spectra, model=MODEL, sigma=SIGMA)
    for options in (None, MaskOptions.paper(), MaskOptions(min_snr=40.0, max_sigma_eV=0.0)):
        np.testing.assert_array_equal(fitted_mask(fit, SIGMA, options), fit_flags(fit, SIGMA, options) == 0)
    assert 0 < fitted_mask(fit, SIGMA, options).sum() < 200


def test_labels_name_every_flag():
    assert all(f"{flag}: " in MAP_LABELS["flag"] for flag in Flag)
