"""The shape of a K-edge spectrum: edge step, pre-edge peak and white line.

Eq. (1) of Uematsu et al., Phys. Chem. Chem. Phys. 25, 3867 (2023):
μt(E) = a + (b1/2)·[1 + erf((E − b2)/b3)] + Σ_i c_i1 / {1 + ((E − c_i2)/c_i3)²}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from scipy.special import erf

from ptychrome.analysis.options import Options
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Interval:
    """Start value and bounds of one non-linear parameter, eV."""

    start: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.start <= self.high < math.inf or self.low == self.high:
            raise ValueError(f"expected low ≤ start ≤ high, got {self.low}, {self.start}, {self.high}")


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Peak:
    """A Lorentzian of the model: centre as offset to the edge energy, half width at half maximum, eV."""

    centre: Interval
    width: Interval

    def __post_init__(self) -> None:
        if not self.width.low > 0:
            raise ValueError(f"width: expected a lower bound above 0 eV, got {self.width.low}")


class XanesOptions(Options):
    """How spectra are fitted.

    Attributes
    ----------
    edge_shape : str
        ``erf``: eq. (1); ``arctan``: ½ + arctan((E − b2)/b3)/π, with long tails.
    falloff : float
        Exponent γ of an edge step that falls off as (E/E0)^−γ, see `XanesModel`; 0: eq. (1).
    more_peaks : tuple of Peak
        Lorentzians beside pre-edge peak and white line.
    with_phase : bool
        Fit absorbance and phase together: each shape has its Kramers–Kronig partner in the phase.
    prior : str
        ``mean``: Gaussian priors around the fit of the mean spectrum for what a single pixel determines
        poorly, widths and centres of the peaks and the width of the edge, never the edge energy or an
        amplitude. ``none``: the paper's plain fit.
    prior_centre_eV, prior_width_relative : float
        Standard deviations of these priors; peaks may follow the edge within the first.
    max_iterations : int
        Of Levenberg–Marquardt, per start.
    tolerance : float
        Largest relative decrease of the sum of squares in the last iteration.
    workers : int or None
        Threads; None: all cores.
    """

    edge_shape: Literal["erf", "arctan"] = "erf"
    falloff: Annotated[float, Field(ge=0)] = 0.0
    more_peaks: tuple[Peak, ...] = ()
    with_phase: bool = False
    prior: Literal["none", "mean"] = "none"
    prior_centre_eV: Annotated[float, Field(gt=0)] = 1.0
    prior_width_relative: Annotated[float, Field(gt=0)] = 0.3
    max_iterations: Annotated[int, Field(ge=1)] = 60
    tolerance: Annotated[float, Field(gt=0)] = 1e-5
    workers: Annotated[int, Field(ge=1)] | None = None


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
    edge_shape : str
        ``erf`` or ``arctan``, see `XanesOptions`.
    """

    edge_energy_eV: float
    edge: Peak = Peak(Interval(13.0, 4.0, 22.0), Interval(3.0, 0.3, 10.0))
    peaks: tuple[Peak, ...] = (
        Peak(Interval(4.0, -2.0, 8.0), Interval(1.3, 0.3, 4.0)),
        Peak(Interval(20.0, 12.0, 40.0), Interval(5.0, 1.0, 20.0)),
    )
    falloff: float = 0.0
    edge_shape: Literal["erf", "arctan"] = "erf"

    @classmethod
    def for_edge(cls, element: str, edge: str = "K", options: XanesOptions | None = None) -> XanesModel:
        """The model at a tabulated absorption edge (xraydb), as the options want it.

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
        options = options or XanesOptions()
        return cls(
            float(found.energy),
            peaks=cls.peaks + options.more_peaks,
            falloff=options.falloff,
            edge_shape=options.edge_shape,
        )

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
    """Eq. (1), or what the model makes of it.

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
    u = (energy - b2) / b3
    step = 0.5 * (1.0 + erf(u)) if model.edge_shape == "erf" else 0.5 + np.arctan(u) / np.pi
    total = a + b1 * step * model.step_falloff(energy)
    for c1, c2, c3 in zip(columns[4::3], columns[5::3], columns[6::3], strict=True):
        total = total + c1 / (1.0 + ((energy - c2) / c3) ** 2)
    return total
