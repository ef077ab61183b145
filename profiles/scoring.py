"""Scores of a result against the truth of the simulation (only the simulation has one)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation
from sklearn.metrics import adjusted_rand_score

from ptychrome.devices.twin import Truth

LEAST_JUMP = 0.05
BORDER_M = 45e-9
FEATURES = {
    "edge_energy_eV": "edge_energy",
    "pre_edge_ratio_eV": "pre_edge_ratio",
    "n_v_rel": "n_v",
    "n_eff_ratio": "n_eff_ratio",
}


@dataclass(frozen=True)
class Score:
    """Errors of one particle.

    Attributes
    ----------
    errors : dict of str to float
        ``edge_energy_eV``, ``pre_edge_ratio_eV``, ``n_v_rel`` (a fraction), ``n_eff_ratio``: 1.4826 × the
        median absolute deviation of estimate − truth; ``cluster_ari``: adjusted Rand index.
    bias : dict of str to float
        Medians of estimate − truth; ``cluster_ari_with_borders``: the index over all pixels.
    pixels : int
        Pixels that were compared.
    """

    errors: dict[str, float]
    bias: dict[str, float]
    pixels: int


def score(result: Mapping[str, NDArray], truth: Truth) -> Score:
    """Compare maps with the truth, registered to it by one shift.

    Compared are pixels with a true edge jump above 0.05 more than 45 nm away from a border of domains; a
    pixel there that the result holds no value for counts as wrong in the adjusted Rand index.

    Parameters
    ----------
    result : mapping
        ``y``, ``x`` [m], ``absorbance``, ``maps/…`` and ``clusters/label`` under their names.
    truth : Truth
        On about the same pixel size.

    Returns
    -------
    Score
        NaN throughout if the result has no maps.
    """
    nothing = dict.fromkeys([*FEATURES, "cluster_ari"], float("nan"))
    if "maps/n_v" not in result:
        return Score(nothing, dict(nothing), 0)
    shift_m = _shift_to(result, truth)
    rows = _index(truth.y_m, result["y"] + shift_m[0])
    columns = _index(truth.x_m, result["x"] + shift_m[1])
    jump = _at(truth.edge_jump, rows, columns, order=1)
    border = _at(truth.border_m, rows, columns, order=0)
    bulk = (jump > LEAST_JUMP) & np.isfinite(border)
    inner = bulk & (border > max(BORDER_M, truth.pixel_m))
    errors, bias = {}, {}
    for key, name in FEATURES.items():
        true = _at(getattr(truth, name), rows, columns, order=1)
        difference = result[f"maps/{name}"] - true
        if key == "n_v_rel":
            difference = difference / true
        valid = difference[inner & np.isfinite(difference)]
        middle = np.median(valid) if valid.size else np.nan
        bias[key] = float(middle)
        errors[key] = float(1.4826 * np.median(np.abs(valid - middle))) if valid.size else float("nan")
    label = _at(truth.label.astype(float), rows, columns, order=0)
    errors["cluster_ari"] = _ari(result, label, inner)
    bias["cluster_ari_with_borders"] = _ari(result, label, bulk)
    return Score(errors, bias, int(inner.sum()))


def _ari(result: Mapping[str, NDArray], label: NDArray, where: NDArray[np.bool_]) -> float:
    if "clusters/label" not in result or not where.any():
        return float("nan")
    return float(adjusted_rand_score(label[where], result["clusters/label"][where]))


def _shift_to(result: Mapping[str, NDArray], truth: Truth) -> NDArray[np.float64]:
    """(y, x) to add to the result's coordinates so that they are the truth's, m."""
    shift = np.zeros(2)
    image = np.nanmean(result["absorbance"][-5:], axis=0)
    for _ in range(3):
        rows = _index(truth.y_m, result["y"] + shift[0])
        columns = _index(truth.x_m, result["x"] + shift[1])
        target = np.nan_to_num(_at(np.nan_to_num(truth.n_v), rows, columns, order=1))
        moved, _, _ = phase_cross_correlation(
            target, np.nan_to_num(image), upsample_factor=100, normalization=None
        )
        shift += moved * np.array([np.mean(np.diff(result["y"])), np.mean(np.diff(result["x"]))])
    return shift


def _index(axis_m: NDArray[np.float64], coordinates_m: NDArray[np.float64]) -> NDArray[np.float64]:
    return (coordinates_m - axis_m[0]) / np.mean(np.diff(axis_m))


def _at(image: NDArray, rows: NDArray, columns: NDArray, *, order: int) -> NDArray[np.float64]:
    """Values at fractional rows and columns; NaN outside and beside missing pixels."""
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(image, grid, order=order, cval=np.nan, prefilter=False)
