"""Which edge a scan is over, by its energies alone."""

import pytest

from ptychrome.edges import edge_among, edge_near, tabulated_edge_eV
from ptychrome.plans import k_edge, v_k_edge


@pytest.mark.parametrize("element", ["Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Zr", "Mo"])
def test_a_scan_over_a_k_edge_is_known_by_its_energies(element):
    energies = k_edge(element)
    assert edge_among(energies) == (element, "K")
    assert edge_near(energies[::3]) == (element, "K")


def test_an_l_edge_where_there_is_no_k_edge():
    assert edge_among([11_520.0 + 4 * i for i in range(25)]) == ("Pt", "L3")  # 11 564 eV, Ge K at 11 103


def test_off_all_edges():
    assert edge_among([5420.0]) is None
    assert edge_near([5420.0]) == ("V", "K")
    assert edge_near([7000.0, 7050.0]) == ("Fe", "K")


def test_tabulated_edges():
    assert tabulated_edge_eV("V") == 5465.0
    assert tabulated_edge_eV("Fe", "K") == 7112.0
    for element, edge in (("Xx", "K"), ("V", "Q7")):
        with pytest.raises(ValueError, match="no absorption edge"):
            tabulated_edge_eV(element, edge)


def test_the_scan_of_the_paper_is_the_one_of_vanadium():
    assert k_edge("V") == v_k_edge()
