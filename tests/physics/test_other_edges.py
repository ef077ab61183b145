"""Nothing is wired to vanadium: atoms and composition come back at the K edges of other metals."""

from dataclasses import replace

import numpy as np
import pytest
import xraydb
from scipy.special import erf

from ptychrome.analysis.chemistry import EdgeConstants, composition
from ptychrome.analysis.grid import CommonGrid
from ptychrome.analysis.interpretation import interpret
from ptychrome.analysis.optics import CLASSICAL_ELECTRON_RADIUS_M, HC_EV_M
from ptychrome.analysis.options import EpieOptions
from ptychrome.analysis.recipe import ChemistryOptions, Recipe
from ptychrome.analysis.references import reference_ratios
from ptychrome.analysis.stack import EnergyStack
from ptychrome.plans import k_edge

SHAPE, NOISE = (20, 20), 1e-3
CHEMICAL_SHIFT_EV = 13.0  # of an oxide against its metal
RECIPE = Recipe(
    name="test",
    reconstruct=(EpieOptions(sweeps=1),),
    chemistry=ChemistryOptions(jump="eq1", average_n_eff=False),
    n_clusters=1,
)


def stack_of(element: str, formula: str) -> tuple[EnergyStack, np.ndarray]:
    """A wedge of a compound with f″ of eq. (1)'s shape and tabulated jump, and its areal density."""
    energy = np.array(k_edge(element))
    edge_eV = xraydb.xray_edge(element, "K").energy + CHEMICAL_SHIFT_EV
    density = np.zeros(SHAPE)
    density[4:16, 4:16] = np.linspace(3e22, 6e22, 12)[:, None]
    jump = EdgeConstants.chantler(element).delta_f2
    offset = energy - edge_eV
    shape = 0.5 * (1 + erf(offset / 2.5)) + 0.3 / (1 + ((offset + 9) / 1.1) ** 2)
    f2 = 0.5 + jump * (shape + 0.4 / (1 + ((offset - 7) / 4) ** 2))
    atoms = composition(formula)
    lowest = sum(
        n / atoms[element] * (xraydb.atomic_number(e) + float(xraydb.f1_chantler(e, energy[0])))
        for e, n in atoms.items()
    )
    f1 = lowest + xraydb.f1_chantler(element, energy) - xraydb.f1_chantler(element, energy[0])
    per_atom = CLASSICAL_ELECTRON_RADIUS_M * HC_EV_M / energy
    rng = np.random.default_rng(0)
    noise = NOISE * (rng.standard_normal((40, *SHAPE)) + 1j * rng.standard_normal((40, *SHAPE)))
    exponent = -(per_atom * (f2 + 1j * f1))[:, None, None] * density
    stack = EnergyStack.empty(energy, CommonGrid(30e-9, SHAPE, (0.0, 0.0)))
    return replace(
        stack,
        object=np.exp(exponent + noise).astype(np.complex64),
        shift_m=np.zeros((40, 2)),
        vacuum=density == 0,
        found_vacuum=True,
    ), density


@pytest.mark.parametrize(
    ("element", "formula"),
    [("Ti", "LiTiO2"), ("Mn", "LiMn2O4"), ("Fe", "LiFePO4"), ("Co", "LiCoO2"), ("Ni", "LiNiO2")],
)
def test_atoms_and_composition(element, formula):
    stack, density = stack_of(element, formula)
    maps = interpret(stack, RECIPE, element, "K").arrays()
    inside = density > 0
    assert maps["maps/fitted"][inside].mean() > 0.99
    edge_eV = xraydb.xray_edge(element, "K").energy + CHEMICAL_SHIFT_EV
    # 144 pixels with σ(b2) ≲ 0.15 eV: the median is known to 0.016 eV
    assert np.nanmedian(maps["maps/edge_energy"]) == pytest.approx(edge_eV, abs=0.05)
    # f″ falls as 1/E in μt (1.6 % from edge to the end of the scan), which a flat step takes up to half of
    n_v = maps["maps/n_v"][inside] / density[inside]
    assert np.median(n_v) == pytest.approx(1.0, abs=0.02)
    ratio = reference_ratios(element, [formula])[formula]["chantler"]
    assert np.nanmedian(maps["maps/n_eff_ratio"]) == pytest.approx(ratio, rel=0.02)  # follows from N_V's
