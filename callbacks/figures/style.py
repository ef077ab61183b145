"""How figures look: colours, scales, and names typeset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from ptychrome.callbacks.results import Revision
from ptychrome.schema import MAPS

INK = "0.15"
MISSING = "0.88"
# Okabe and Ito: told apart by colour-blind readers; there is no such set beyond eight
CLUSTER_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
CLUSTER_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
SYMBOLS = {"b2": "$b_2$", "N_V": r"$N_\mathrm{V}$", "N_eff": r"$N_\mathrm{eff}$"}
COLOUR_MAPS = {
    "edge_energy": "viridis",
    "edge_jump": "magma",
    "pre_edge_area": "magma",
    "pre_edge_ratio": "plasma",
    "n_eff_ratio": "cividis",
    "n_v": "magma",
    "n_eff": "magma",
}
RATIO_LIMITS = (30.0, 50.0)  # the paper's 0 to 100 leaves little contrast between vanadium oxides
SIGMA_LIMITS = (0.0, 0.5)  # eV; the default mask lets no more pass
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Scale:
    """How numbers become colours.

    Attributes
    ----------
    cmap : str
        Name of a colour map of matplotlib.
    limits : (float, float)
        In `unit`.
    unit : str
        For the colour bar.
    factor : float
        What one `unit` is in the unit of the array.
    """

    cmap: str
    limits: tuple[float, float]
    unit: str
    factor: float = 1.0


def cluster_colours(count: int) -> list[Any]:
    """A colour for each of `count` clusters."""
    if count <= len(CLUSTER_COLOURS):
        return list(CLUSTER_COLOURS[:count])
    return [colormaps["turbo"](place) for place in np.linspace(0.02, 0.98, count)]


def cluster_markers(count: int) -> list[str]:
    """A marker for each of `count` clusters, where colour is not enough."""
    return [CLUSTER_MARKERS[number % len(CLUSTER_MARKERS)] for number in range(count)]


def map_title(name: str) -> str:
    """Name of a chemical map or of its standard deviation, typeset."""
    return typeset(("σ of " if name.endswith("_sigma") else "") + MAPS[name.removesuffix("_sigma")].label)


def typeset(text: str) -> str:
    """Symbols of the field as matplotlib draws them."""
    for plain, symbol in SYMBOLS.items():
        text = text.replace(plain, symbol)
    return text


def axis_label(name: str) -> str:
    """Name and unit of a chemical map, typeset."""
    unit = MAPS[name].unit
    return map_title(name) + ("" if unit == "1" else f" ({unit})")


def robust_limits(image: NDArray, low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    """Percentiles of what is finite; (0, 1) where nothing is."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    bottom, top = np.percentile(finite, (low, high))
    return float(bottom), float(top) if top > bottom else float(bottom) + 1.0


def map_scale(
    name: str,
    revisions: Sequence[Revision],
    paper_scales: bool = False,
    limits: tuple[float, float] | None = None,
) -> Scale:
    """Fixed limits, so that particles compare; of amounts, and at another edge, those of the data.

    Parameters
    ----------
    name : str
        Of `schema.MAPS`, or the same with "_sigma".
    revisions : sequence of Revision
        All that are to share the scale.
    paper_scales : bool
        Re[N_eff]/N_V from 0 to 100 as in the paper instead of 30 to 50.
    limits : (float, float), optional
        In the unit of the map, instead of these.

    Returns
    -------
    Scale
    """
    base, sigma, key = name.removesuffix("_sigma"), name.endswith("_sigma"), f"maps/{name}"
    info, cmap = MAPS[base], "YlOrBr" if sigma else COLOUR_MAPS[base]
    if name == "edge_energy_sigma" and limits is None:
        limits = SIGMA_LIMITS
    images = [revision.arrays[key].ravel() for revision in revisions if key in revision.arrays]
    low, high = robust_limits(np.concatenate(images)) if images else (0.0, 1.0)
    if limits is None and not sigma:
        limits = RATIO_LIMITS if name == "n_eff_ratio" and not paper_scales else info.limits
        if limits is not None and images and (high < limits[0] or low > limits[1]):
            limits = (low, high)
    if limits is None:
        limits = (0.0, high)
    factor, unit = _decade(limits[1]), "" if info.unit == "1" else info.unit
    if factor != 1.0:
        unit = f"10{str(round(np.log10(factor))).translate(SUPERSCRIPTS)} {info.unit}"
    return Scale(cmap, (limits[0] / factor, limits[1] / factor), unit, factor)


def _decade(value: float) -> float:
    """The power of ten to take out of large numbers; 1 of others."""
    return 10.0 ** np.floor(np.log10(value)) if value > 1e5 else 1.0
