"""Bulk spectra: normalisation of synthetic and measured ones, and the energy scale from a foil."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

from ptychrome.analysis.bulk import foil_offset, normalise_bulk
from ptychrome.analysis.scan import DataError

DATA = Path("/work/shared/data")
EDGE_EV = 5465.0
FINE = np.concatenate([np.arange(5365.0, 5445, 5), np.arange(5445, 5515, 0.25), np.arange(5515, 6300, 4.0)])


def spectrum(energy, step=1.7, width_eV=1.0, centre_eV=EDGE_EV):
    """A step on a falling background; the post-edge falls off, too."""
    offset = energy - EDGE_EV
    background = 0.8 - 6e-4 * offset
    above = step * (1 - 3e-4 * offset + 1e-7 * offset**2)
    return background + 0.5 * (1 + erf((energy - centre_eV) / width_eV)) * above


def test_line_and_step_come_back():
    bulk = normalise_bulk(FINE, spectrum(FINE), EDGE_EV, name="made")
    assert bulk.edge_step == pytest.approx(1.7, rel=1e-9)  # the model has exactly this form
    assert bulk.normalised[FINE < 5440] == pytest.approx(0.0, abs=1e-9)
    assert bulk.at([5520.0]) == pytest.approx(1 - 3e-4 * 55 + 1e-7 * 55**2, abs=1e-5)  # chords of 4 eV
    assert bulk.shifted(0.5).at([5500.5]) == pytest.approx(bulk.at([5500.0]))


@pytest.mark.parametrize(("stop_eV", "tolerance"), [(5540.0, 0.02), (5700.0, 0.03)])
def test_short_ranges_take_a_lower_polynomial(stop_eV, tolerance):
    """The post-edge falls by 3e-4 per eV: a constant, or a line for the parabola, is off by that much."""
    energy = FINE[stop_eV > FINE]
    bulk = normalise_bulk(energy, spectrum(energy), EDGE_EV)
    assert bulk.edge_step == pytest.approx(1.7, rel=tolerance)


def test_points_in_any_order_and_twice():
    energy, mu = np.append(FINE[::-1], FINE[:5]), spectrum(np.append(FINE[::-1], FINE[:5]))
    mu[7] = np.nan
    bulk = normalise_bulk(energy, mu, EDGE_EV)
    assert bulk.energy_eV.size == FINE.size - 1
    assert np.all(np.diff(bulk.energy_eV) > 0)


def test_refusals():
    with pytest.raises(DataError, match="made: edge step"):
        normalise_bulk(FINE, -spectrum(FINE), EDGE_EV, name="made")
    with pytest.raises(DataError, match="before the edge"):
        normalise_bulk(FINE[FINE > 5450], spectrum(FINE[FINE > 5450]), EDGE_EV)
    with pytest.raises(DataError, match="two columns"):
        normalise_bulk(FINE, FINE[1:], EDGE_EV)
    with pytest.raises(DataError, match="made covers"):
        normalise_bulk(FINE, spectrum(FINE), EDGE_EV, name="made").at([5000.0])
    with pytest.raises(DataError, match="expected at least 10"):
        foil_offset(FINE[:16], spectrum(FINE[:16]), EDGE_EV)


def test_the_foil_s_edge_is_found_with_an_honest_error():
    rng = np.random.default_rng(0)
    found = np.array(
        [
            foil_offset(FINE + 0.8, spectrum(FINE) + 2e-3 * rng.standard_normal(FINE.size), EDGE_EV)
            for _ in range(200)
        ]
    )
    assert found[:, 0].mean() == pytest.approx(-0.8, abs=0.03)  # a cubic is not quite an error function
    assert found[:, 0].std() < found[:, 1].mean() < 3 * found[:, 0].std()


def test_the_first_steep_slope_is_the_edge():
    """A metal's own edge, and a steeper rise 10 eV behind it."""
    mu = spectrum(FINE) + 2.2 * 0.5 * (1 + erf((FINE - 5475.0) / 1.0))
    assert foil_offset(FINE, mu, EDGE_EV)[0] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("name", "before_eV", "edge_step"),
    [
        ("V_foil", (-75.0, -37.5), 2.36562),
        ("V2O3", (-95.0, -47.5), 1.29427),
        ("V2O5", (-95.0, -47.5), 1.13902),
    ],
)
def test_the_step_is_that_of_larch(name, before_eV, edge_step):
    """xraylarch 2026.3, pre_edge with e0 = 5465 and the ranges that it chose itself."""
    if not DATA.is_dir():
        pytest.skip("no measured spectra beside the repository")
    energy, _, i0, transmitted = np.loadtxt(DATA / f"{name}.xdi").T
    bulk = normalise_bulk(energy, -np.log(transmitted / i0), EDGE_EV, before_eV=before_eV, behind_eV=25.0)
    assert bulk.edge_step == pytest.approx(edge_step, rel=0.01)  # one point more or less in a line of eight


def test_measured_vanadium():
    """The foil stands half an eV high at 13-BM-D; oxides are in the order of their valence."""
    if not DATA.is_dir():
        pytest.skip("no measured spectra beside the repository")
    spectra = {}
    for name in ("V_foil", "V2O3", "V2O5"):
        energy, _, i0, transmitted = np.loadtxt(DATA / f"{name}.xdi").T
        spectra[name] = energy, -np.log(transmitted / i0)
    offset, sigma = foil_offset(*spectra["V_foil"], EDGE_EV)
    # the steepest of the points, 0.25 eV apart, are at 5465.25 to 5465.75 eV
    assert offset == pytest.approx(-0.5, abs=0.25)
    assert 0.01 < sigma < 0.25
    half = []
    for name, (energy, mu) in spectra.items():
        bulk = normalise_bulk(energy, mu, EDGE_EV, name=name)
        assert bulk.edge_step > 0.9
        inside = (bulk.energy_eV > 5465) & (bulk.energy_eV < 5490)
        smooth = np.maximum.accumulate(bulk.normalised[inside][::-1] < 0.8)[::-1]
        half.append(bulk.energy_eV[inside][smooth].max())
        above = (bulk.energy_eV > 5520) & (bulk.energy_eV < 5600)
        # f″/E falls by 5 % to there; the step is known to 3 %, EXAFS does the rest
        assert np.mean(bulk.normalised[above]) == pytest.approx(0.95, abs=0.06)
    assert half == sorted(half)
