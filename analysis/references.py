"""What Re[N_eff]/N of pure compounds would be, from each set of constants, to compare maps with."""

from __future__ import annotations

from collections.abc import Sequence

from ptychrome.analysis.chemistry import EdgeConstants, composition, n_eff_ratio_reference


def reference_ratios(
    element: str, formulas: Sequence[str], *, edge: str = "K", energy_eV: float | None = None
) -> dict[str, dict[str, float]]:
    """Re[N_eff] per atom of the edge's element of compounds, from all sets of constants that know them.

    Parameters
    ----------
    element : str
        Whose edge the scan covers.
    formulas : sequence of str
        Such as "Li10/7V6/7O2".
    edge : str
    energy_eV : float, optional
        Lowest energy of the scan, where the ratio is told; default: 45 eV below the edge. The constants of
        the paper are for 5420 eV only.

    Returns
    -------
    dict of str to dict of str to float
        By formula, then by the name of the constants: "chantler", and "paper" where it has all elements.

    Raises
    ------
    ptychrome.analysis.scan.DataError
        If there is no such edge, a formula cannot be read or lacks the element.
    """
    chantler, paper = EdgeConstants.chantler(element, edge, energy_eV), EdgeConstants.paper()
    table = {}
    for formula in formulas:
        table[formula] = {chantler.name: n_eff_ratio_reference(formula, chantler)}
        known = (element, edge, chantler.energy_eV) == (paper.element, "K", paper.energy_eV)
        if known and set(composition(formula)) <= set(paper.f1 or {}):
            table[formula][paper.name] = n_eff_ratio_reference(formula, paper)
    return table
