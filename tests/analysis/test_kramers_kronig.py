"""The Kramers–Kronig matrix: against kkcalc, against an integral known in closed form, against xraydb."""

import numpy as np
import pytest
import xraydb

from ptychrome.analysis.kramers_kronig import f1_from_f2, kramers_kronig_matrix, kramers_kronig_operator
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes import XanesModel, evaluate

kk = pytest.importorskip("kkcalc.kk", reason="kkcalc, the oracle, is not installed")


def oracle(nodes: np.ndarray, f2: np.ndarray, at: np.ndarray) -> np.ndarray:
    """f′ by kkcalc for f″ linear between the nodes (its rows: powers 1, 0, −1, −2, −3)."""
    coefficients = np.zeros((nodes.size - 1, 5))
    coefficients[:, 0] = np.diff(f2) / np.diff(nodes)
    coefficients[:, 1] = f2[:-1] - coefficients[:, 0] * nodes[:-1]
    return kk.KK_PP(at, nodes, coefficients, 0.0)


@pytest.fixture
def spectrum() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    f2 = rng.random(40)
    f2[[0, -1]] = 0.0
    return np.sort(5420 + 120 * rng.random(40)), f2


def test_agrees_with_kkcalc_at_the_nodes(spectrum):
    nodes, f2 = spectrum
    # both are exact: what is left is rounding (6e-11 measured)
    np.testing.assert_allclose(kramers_kronig_matrix(nodes) @ f2, oracle(nodes, f2, nodes), atol=1e-8)


def test_agrees_with_kkcalc_between_and_outside_the_nodes(spectrum):
    nodes, f2 = spectrum
    at = np.linspace(5300, 5700, 201)
    np.testing.assert_allclose(kramers_kronig_matrix(nodes, at) @ f2, oracle(nodes, f2, at), atol=1e-8)


def test_agrees_with_kkcalc_with_the_table_around(spectrum):
    window, _ = spectrum
    nodes = np.concatenate([np.geomspace(30, 5400, 400), window, np.geomspace(5560, 4e5, 400)])
    f2 = xraydb.f2_chantler("V", nodes)
    np.testing.assert_allclose(
        kramers_kronig_matrix(nodes, window) @ f2, oracle(nodes, f2, window), atol=1e-8
    )


def test_triangle_in_closed_form():
    """f″ = 1 − |x − c|/w at its top: the odd kernel 1/(x − c) cancels, 1/(x + c) is all that is left."""
    centre, width = 5480.0, 10.0
    nodes = centre + width * np.array([-1.0, 0.0, 1.0])
    x = np.linspace(nodes[0], nodes[2], 20001)
    expected = -np.trapezoid((1 - np.abs(x - centre) / width) / (x + centre), x) / np.pi
    assert (kramers_kronig_matrix(nodes) @ [0.0, 1.0, 0.0])[1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("element", "edge_eV"), [("V", 5465.0), ("Fe", 7112.0)])
def test_tabulated_f2_gives_tabulated_f1(element, edge_eV):
    energy = np.linspace(edge_eV - 45, edge_eV + 75, 481)
    error = f1_from_f2(energy, xraydb.f2_chantler(element, energy), element) - xraydb.f1_chantler(
        element, energy
    )
    # the table has two points per 10 eV at the edge, splined for f′ and linear for f″ by xraydb: 0.3 e there
    away = np.abs(energy - edge_eV) > 5
    assert np.abs(error[away]).max() < 0.08
    assert np.sqrt(np.mean(error**2)) < 0.05


def test_coarse_grid_against_fine_one():
    model, parameters = XanesModel.for_edge("V"), [0.45, 3.52, 5478, 2.5, 1.0, 5469, 1.1, 1.5, 5485, 4.0]
    coarse = np.concatenate(
        [np.arange(5420, 5463, 6.0), np.arange(5463, 5492, 0.8), [5496, 5501, 5507, 5516, 5527, 5540]]
    )
    fine = np.linspace(5420, 5540, 1201)
    truth = np.interp(coarse, fine, f1_from_f2(fine, evaluate(model, parameters, fine), "V", step_eV=None))
    f2 = evaluate(model, parameters, coarse)
    linear, spline = (f1_from_f2(coarse, f2, "V", step_eV=step) for step in (None, 0.25))
    # the sharp pre-edge (1.1 eV wide, nodes every 0.8 eV) limits both: 0.08 and 0.03 e measured
    assert np.abs(spline - truth).max() < 0.04
    assert np.abs(spline - truth).max() < 0.5 * np.abs(linear - truth).max()


def test_operator_is_affine_and_batched():
    energy = np.linspace(5420.0, 5540.0, 40)
    matrix, constant = kramers_kronig_operator(energy, "V")
    f2 = np.random.default_rng(0).random((3, 2, 40))
    result = f1_from_f2(energy, f2, "V")
    assert result.shape == f2.shape
    np.testing.assert_allclose(result[1, 1], constant + matrix @ f2[1, 1], atol=1e-10)


def test_errors_name_what_is_wrong():
    with pytest.raises(DataError, match="ascending"):
        kramers_kronig_matrix([5420.0, 5419.0])
    with pytest.raises(DataError, match="at least 4"):
        kramers_kronig_operator([5420.0, 5430.0], "V")
    with pytest.raises(DataError, match="element 'Xx'"):
        f1_from_f2([5420.0, 5460.0, 5500.0, 5540.0], np.ones(4), "Xx")
    with pytest.raises(DataError, match="around one edge"):
        f1_from_f2([1.0, 2.0, 3.0, 4.0], np.ones(4), "V")
    with pytest.raises(DataError, match="f2"):
        f1_from_f2([1.0, 2.0, 3.0, 4.0], np.ones(3), "V")


def test_wide_window_reaches_the_same_table():
    energy = np.arange(5300.0, 6300.0, 2.0)
    error = f1_from_f2(energy, xraydb.f2_chantler("V", energy), "V") - xraydb.f1_chantler("V", energy)
    assert np.abs(error[np.abs(energy - 5465) > 15]).max() < 0.08
