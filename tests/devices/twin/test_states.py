"""Scattering factors of the twin's chemical states."""

import numpy as np
import pytest
import xraydb
from kkcalc import kk

from ptychrome.devices.twin import states
from ptychrome.devices.twin.states import LIVO2, LIVO3, OXIDE_STATES, dispersion_correction, vanadium_factors

ALL_STATES = (*OXIDE_STATES, LIVO2, LIVO3)


@pytest.mark.parametrize("state", ALL_STATES, ids=lambda state: state.name)
def test_edge_step_is_that_of_the_tables(state):
    """f″ at both ends of the window, continued to the edge as E^−1.7 and E^−1.8, differs by 3.53.

    2 %: the table falls off with an exponent of 1.7 to 1.9 above the edge, 0.3 % over 155 eV; the core
    hole's tails take 0.3 %, fine structure up to 1 %.
    """
    energy, _, f2 = vanadium_factors(state)
    low, high = f2[[0, -1]] * (energy[[0, -1]] / states.EDGE_EV) ** np.array([1.7, 1.8])
    assert high - low == pytest.approx(3.53, rel=0.02)


@pytest.mark.parametrize("state", ALL_STATES, ids=lambda state: state.name)
def test_joins_the_table_at_the_ends_of_the_window(state):
    """1 %: the size of the table's own wiggle at 5620 eV, where it is sampled every 56 eV."""
    energy, _, f2 = vanadium_factors(state)
    assert f2[[0, -1]] == pytest.approx(xraydb.f2_chantler("V", energy[[0, -1]]), rel=0.01)


def test_kramers_kronig_against_kkcalc():
    """Same nodes, same piecewise-linear f″: 1e-5 electrons (physics.md: "same nodes: < 1e-5 e")."""
    nodes, f2, _ = states.table()
    inside = (nodes > 100) & (nodes < 1e5)
    nodes, f2 = nodes[inside], f2[inside]
    slope = np.diff(f2) / np.diff(nodes)
    coefficients = np.zeros((slope.size, 5))
    coefficients[:, 0], coefficients[:, 1] = slope, f2[:-1] - slope * nodes[:-1]
    energy = np.concatenate([np.linspace(5301.3, 5701.3, 60), nodes[(nodes > 5400) & (nodes < 5500)]])
    oracle = kk.KK_PP(energy, nodes, coefficients, 0.0)
    # kkcalc stops at its ends where ours runs on to zero: give ours steep ends, which add less than 1e-6.
    edges = np.array([nodes[0] - 1e-2, *nodes, nodes[-1] + 1.0])
    ours = dispersion_correction(edges, np.concatenate([[0.0], f2, [0.0]]), energy)
    assert np.abs(ours - oracle).max() < 1e-5


def test_kramers_kronig_reproduces_the_table():
    """f′ from Chantler's f″ is Chantler's f′: at 5420 eV −4.63 (physics.md), 0.01 for his own table's f′."""
    nodes, f2, offset = states.table()
    assert float(dispersion_correction(nodes, f2, 5420.0)) + offset == pytest.approx(-4.63, abs=0.01)
    assert abs(offset) < 0.1  # the relativistic correction of vanadium


def test_a_lorentz_oscillator_has_its_known_dispersion():
    """A damped resonance obeys Kramers–Kronig exactly; 2e-3 of its peak for the sampling and the ends."""
    parts = np.linspace(1, 900, 500), np.linspace(900.5, 1100, 400), np.linspace(1101, 2e5, 20000)
    nodes = np.concatenate(parts)
    response = nodes**2 / (1000.0**2 - nodes**2 - 20j * nodes)
    energy = np.array([700.0, 980.0, 1000.0, 1030.0, 1500.0])
    expected = energy**2 / (1000.0**2 - energy**2 - 20j * energy)
    # χ(x) x² → −1 at high energy: f′ = −1 − Re response in the sign convention f′(∞) = 0.
    assert dispersion_correction(nodes, response.imag, energy) == pytest.approx(
        -(expected.real + 1), abs=2e-3 * response.imag.max()
    )


def test_edge_and_pre_edge_follow_the_state():
    """The first maximum of the slope stands at the edge energy, and pre-edge heights sort as the areas do."""
    heights = []
    for state in OXIDE_STATES:
        energy, _, f2 = vanadium_factors(state)
        around = np.abs(energy - state.edge_energy_eV) < 4
        steepest = energy[around][np.argmax(np.gradient(f2)[around])]
        # The white line's rising flank adds to the slope: it moves the maximum by less than the edge's width.
        assert steepest == pytest.approx(state.edge_energy_eV, abs=1.0)
        heights.append(f2[np.abs(energy - state.pre_edge_energy_eV) < 1.5].max())
    assert np.array_equal(np.argsort(heights), np.argsort([s.pre_edge_ratio_eV for s in OXIDE_STATES]))


def test_composition_gives_the_ratio_of_the_compounds():
    """Z + f′ per V of LiVO2 and LiVO3 at 5420 eV with Chantler's −4.63 is 37.55 and 45.64 (physics.md).

    0.3: the states' edges stand 11–15 eV above the metal's edge of the table, which raises f′_V by 0.15–0.2.
    """
    ratio = states.scattering_factors((LIVO2, LIVO3), 5420.0)[:, 0].real
    assert ratio == pytest.approx([37.55, 45.64], abs=0.3)
    assert ratio[0] > 37.55


def test_broadening_keeps_areas_and_lowers_peaks():
    values = np.zeros(2001)
    values[1000] = 1.0
    broad = states._broaden(values)
    assert broad.sum() == pytest.approx(1.0, abs=1e-12)
    # A Voigt profile of 0.71 eV (Gauss) and 1.01 eV (Lorentz) is 1.34 eV wide (Olivero–Longbothum, 0.02 %).
    width = states.STEP_EV * np.count_nonzero(broad > broad.max() / 2)
    assert width == pytest.approx(0.5346 * 1.01 + np.sqrt(0.2166 * 1.01**2 + 0.7105**2), abs=states.STEP_EV)


def test_energies_outside_the_window_are_refused():
    with pytest.raises(ValueError, match=r"7112 eV.*expected 5380 to 5620 eV"):
        states.scattering_factors((LIVO2,), 7112.0)
