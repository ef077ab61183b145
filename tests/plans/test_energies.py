"""Energy grids: the paper's scan, segments and refusals."""

import json

import numpy as np
import pytest

from ptychrome.plans.energies import check_energies, k_edge, segments, v_k_edge


def test_v_k_edge_is_the_scan_of_the_paper():
    energies = v_k_edge()
    assert len(energies) == 40
    assert (energies[0], energies[-1]) == (5420.0, 5540.0)
    gaps = np.diff(energies)
    assert gaps.min() == 0.5
    assert sum(5420 <= energy < 5466 for energy in energies) >= 4
    inside = np.array(energies)
    assert np.diff(inside[(inside >= 5465) & (inside <= 5470)]).max() <= 1.0  # pre-edge
    assert np.diff(inside[(inside >= 5474) & (inside <= 5483)]).max() <= 0.75  # edge
    assert json.loads(json.dumps(energies)) == energies


def test_segments_keep_a_stop_that_is_whole_steps_away():
    assert segments([(100, 110, 5)]) == [100.0, 105.0, 110.0]
    assert segments([(100, 110, 4)]) == [100.0, 104.0, 108.0]
    assert segments([(5420.0, 5420.3, 0.1)]) == pytest.approx([5420.0, 5420.1, 5420.2, 5420.3], abs=1e-9)


def test_segments_count_a_joint_once():
    assert segments([(5460, 5464, 2), (5464, 5465, 0.5)]) == [5460.0, 5462.0, 5464.0, 5464.5, 5465.0]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(5420, 5410, 1)], "start <= stop"),
        ([(5420, 5430, 0)], "step > 0"),
        ([(5420, float("nan"), 1)], "all finite"),
        ([(5420, 5430)], "has 2 numbers"),
        ([(5420, 5430, 5), (5420, 5421, 1)], "comes twice"),
        ([], "is empty"),
    ],
)
def test_segments_refuse(parts, message):
    with pytest.raises(ValueError, match=message):
        segments(parts)


@pytest.mark.parametrize(
    ("energies", "message"),
    [
        ([], "is empty"),
        ([5.42], "eV, not keV"),
        ([float("nan")], "expected 100 to"),
        ([5420.0, 5430.0, 5420.0], "comes twice"),
        (["five"], "list of numbers"),
        (5420.0, "list of numbers"),
    ],
)
def test_check_energies_refuses(energies, message):
    with pytest.raises(ValueError, match=message):
        check_energies(energies)


def test_check_energies_makes_plain_floats():
    checked = check_energies(np.array([5430, 5420], dtype=np.float32))
    assert checked == [5430.0, 5420.0]
    assert all(type(energy) is float for energy in checked)


@pytest.mark.parametrize(("element", "edge_eV"), [("Ti", 4966.0), ("Fe", 7112.0), ("Ni", 8333.0)])
def test_other_k_edges_have_the_same_spacing(element, edge_eV):
    assert np.array(k_edge(element)) - edge_eV == pytest.approx(np.array(v_k_edge()) - 5465.0, abs=1e-9)
    assert k_edge(element, 60)[0] == pytest.approx(edge_eV - 45.0)
    assert k_edge(element, 60)[-1] == pytest.approx(edge_eV + 75.0)
    assert len(k_edge(element, 60)) == 60
    assert json.loads(json.dumps(k_edge(element, 25))) == k_edge(element, 25)


def test_k_edge_refuses():
    with pytest.raises(ValueError, match="no absorption edge 'Xx'"):
        k_edge("Xx")
    with pytest.raises(ValueError, match="at least 12"):
        k_edge("V", 5)
