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
SYMBOLS = {"b2": "$b_2$", "N_V": r"$N_\mathrm{V}$", "N_eff": r"$N_\mathrm{eff}$"}
COLOUR_MAPS = {
    "edge_energy": "viridis",
    "edge_energy_sigma": "YlOrBr",
    "pre_edge_ratio": "plasma",
    "n_eff_ratio": "cividis",
    "n_v": "magma",
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


def map_title(name: str) -> str:
    """Name of a chemical map or of its standard deviation, typeset."""
    title = ("σ of " if name.endswith("_sigma") else "") + MAPS[name.removesuffix("_sigma")].label
    for plain, typeset in SYMBOLS.items():
        title = title.replace(plain, typeset)
    return title


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


def map_scale(name: str, revisions: Sequence[Revision], paper_scales: bool) -> Scale:
    """Fixed limits, so that particles compare; of N_V, and at another edge, those of the data."""
    info, cmap, key = MAPS[name.removesuffix("_sigma")], COLOUR_MAPS[name], f"maps/{name}"
    if name.endswith("_sigma"):
        return Scale(cmap, SIGMA_LIMITS, info.unit)
    images = [revision.arrays[key].ravel() for revision in revisions if key in revision.arrays]
    low, high = robust_limits(np.concatenate(images)) if images else (0.0, 1.0)
    if name == "n_v":
        power = int(np.floor(np.log10(high))) if high > 0 else 0
        unit = f"10{str(power).translate(SUPERSCRIPTS)} {info.unit}"
        return Scale(cmap, (0.0, high / 10.0**power), unit, 10.0**power)
    limits = RATIO_LIMITS if name == "n_eff_ratio" and not paper_scales else info.limits
    if limits is None or (images and (high < limits[0] or low > limits[1])):
        limits = (low, high)
    return Scale(cmap, limits, "" if info.unit == "1" else info.unit)
