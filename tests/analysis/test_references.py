"""Reference ratios of compounds: the paper's numbers, and any element."""

import pytest
import xraydb

from ptychrome.analysis.references import reference_ratios
from ptychrome.analysis.scan import DataError

PAPER = {"Li10/7V6/7O2": (39.7, 42.25), "LiVO2": (35.0, 37.55), "LiVO3": (43.1, 45.64)}


def test_both_sets_give_the_numbers_of_the_paper_and_of_chantler():
    table = reference_ratios("V", list(PAPER))
    for formula, (paper, chantler) in PAPER.items():
        assert table[formula]["paper"] == pytest.approx(paper, abs=0.05)  # given to one decimal
        assert table[formula]["chantler"] == pytest.approx(chantler, abs=0.006)  # to two


@pytest.mark.parametrize(
    ("element", "formula", "others"),
    [
        ("Ti", "TiO2", {"O": 2}),
        ("Mn", "LiMn2O4", {"Li": 0.5, "O": 2}),
        ("Fe", "LiFePO4", {"Li": 1, "P": 1, "O": 4}),
        ("Co", "LiCoO2", {"Li": 1, "O": 2}),
        ("Ni", "NiO", {"O": 1}),
    ],
)
def test_any_element(element, formula, others):
    energy = xraydb.xray_edge(element, "K").energy - 45.0
    ratio = reference_ratios(element, [formula])[formula]
    expected = sum(
        n * (xraydb.atomic_number(e) + float(xraydb.f1_chantler(e, energy)))
        for e, n in {element: 1, **others}.items()
    )
    assert ratio == {"chantler": pytest.approx(expected, rel=1e-9)}


def test_the_paper_s_set_is_left_out_where_it_knows_nothing():
    assert set(reference_ratios("V", ["VPO5"])["VPO5"]) == {"chantler"}
    assert set(reference_ratios("V", ["LiVO2"], energy_eV=5440.0)["LiVO2"]) == {"chantler"}
    with pytest.raises(DataError, match="holds no Fe"):
        reference_ratios("Fe", ["LiVO2"])
    with pytest.raises(DataError, match="no absorption edge"):
        reference_ratios("Xx", ["LiVO2"])
