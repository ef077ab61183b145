"""The shape of a K-edge spectrum: edge step, pre-edge peak and white line.

Eq. (1) of Uematsu et al., Phys. Chem. Chem. Phys. 25, 3867 (2023):
μt(E) = a + (b1/2)·[1 + erf((E − b2)/b3)] + Σ_i c_i1 / {1 + ((E − c_i2)/c_i3)²}.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Start value and bounds of one non-linear parameter, eV."""

    start: float
    low: float
    high: float


@dataclass(frozen=True)
class Peak:
    """A Lorentzian of the model: centre as offset to the edge energy, half width at half maximum, eV."""

    centre: Interval
    width: Interval


@dataclass(frozen=True)
class XanesModel:
    """An edge step and Lorentzians; energies are offsets to a tabulated edge, so that any K edge works.

    Attributes
    ----------
    edge_energy_eV : float
        Tabulated edge (of the metal): the reference of all centres.
    edge : Peak
        Centre and width of the error function; in oxides it stands about 13 eV above the metal's edge.
    peaks : tuple of Peak
        The first is the pre-edge peak, the second the white line; more on request.
    falloff : float
        Exponent γ of an edge step that falls off as (E/E0)^−γ above the edge, E0 its start value;
        0 is the paper's step, 1.9 what tabulated f″ of vanadium do.
    """

    edge_energy_eV: float
    edge: Peak = Peak(Interval(13.0, 4.0, 22.0), Interval(3.0, 0.3, 10.0))
    peaks: tuple[Peak, ...] = (
        Peak(Interval(4.0, -2.0, 8.0), Interval(1.3, 0.3, 4.0)),
        Peak(Interval(20.0, 12.0, 40.0), Interval(5.0, 1.0, 20.0)),
    )
    falloff: float = 0.0

    @classmethod
    def for_edge(cls, element: str, edge: str = "K", *, falloff: float = 0.0) -> XanesModel:
        """The model at a tabulated absorption edge (xraydb).

        Raises
        ------
        DataError
            If xraydb knows no such edge.
        """
        try:
            found = xraydb.xray_edge(element, edge)
        except ValueError:
            found = None
        if found is None:
            raise DataError(f"no absorption edge {element!r} {edge!r}; expected e.g. 'V', 'K'")
        return cls(edge_energy_eV=float(found.energy), falloff=falloff)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in the order of all parameter arrays: a, b1, b2, b3, c11, c12, c13, c21, …"""
        peaks = (f"c{i + 1}{j}" for i in range(len(self.peaks)) for j in (1, 2, 3))
        return ("a", "b1", "b2", "b3", *peaks)

    @property
    def linear(self) -> NDArray[np.intp]:
        """Positions of the amplitudes a, b1, c11, c21, … among the parameters."""
        return np.array([0, *range(1, len(self.names), 3)])

    @property
    def shape(self) -> NDArray[np.intp]:
        """Positions of the non-linear parameters b2, b3, c12, c13, … among the parameters."""
        return np.array([k for k in range(1, len(self.names)) if k % 3 != 1])

    def intervals(self) -> tuple[Float, Float, Float]:
        """Start values and bounds of the non-linear parameters, (q,) each, eV (centres absolute)."""
        rows = []
        for peak in (self.edge, *self.peaks):
            centre = peak.centre
            rows.append([self.edge_energy_eV + v for v in (centre.start, centre.low, centre.high)])
            rows.append([peak.width.start, peak.width.low, peak.width.high])
        start, low, high = np.array(rows).T
        return start, low, high

    def step_falloff(self, energy_eV: Float) -> Float:
        """(E/E0)^−γ at the given energies, (n,)."""
        return (energy_eV / (self.edge_energy_eV + self.edge.centre.start)) ** -self.falloff


def evaluate(model: XanesModel, parameters: ArrayLike, energy_eV: ArrayLike) -> Float:
    """Eq. (1).

    Parameters
    ----------
    model : XanesModel
    parameters : (..., p) float
        In the order of `XanesModel.names`.
    energy_eV : (n,) float

    Returns
    -------
    (..., n) float64
        Absorbance μt.
    """
    energy = np.asarray(energy_eV, dtype=float)
    columns = np.moveaxis(np.asarray(parameters, dtype=float)[..., None], -2, 0)
    a, b1, b2, b3 = columns[:4]
    total = a + 0.5 * b1 * (1.0 + erf((energy - b2) / b3)) * model.step_falloff(energy)
    for c1, c2, c3 in zip(columns[4::3], columns[5::3], columns[6::3], strict=True):
        total = total + c1 / (1.0 + ((energy - c2) / c3) ** 2)
    return total
