"""Probability densities of chemical maps, in one and two dimensions, pixels counting by their weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
LEAST_WIDTH = 0.75  # bins: a kernel must be wider than the histogram that it smooths


def density(
    values: ArrayLike,
    weights: ArrayLike,
    limits: Sequence[tuple[float, float]],
    bins: int = 200,
    bandwidth: Sequence[float] | None = None,
) -> tuple[tuple[Float, ...], Float]:
    """Gaussian kernel density estimate on a regular grid.

    Parameters
    ----------
    values : (n, d) float
        One or two features; pixels with one that is not finite are left out.
    weights : (n,) float
        Such as N_V, for the density of atoms; not finite or not positive: left out.
    limits : sequence of d pairs
        Range of each axis. What lies beyond counts in the total, so that a density over a part of the range
        integrates to the share of that part.
    bins : int
        Grid points per axis.
    bandwidth : sequence of d floats, optional
        Standard deviations of the kernel, units of the features; default: Scott's rule n^(−1/(d+4)) times the
        weighted standard deviation, n = (Σw)²/Σw², which is for one peak: treat clusters one by one.

    Returns
    -------
    axes : tuple of d (bins,) float64
        Centres of the grid.
    density : (bins,) or (bins, bins) float64
        Per unit of each feature; the first axis is the first feature.

    Raises
    ------
    DataError
        If shapes do not fit together or no pixel is left.
    """
    every, weight = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    if every.ndim != 2 or weight.shape != every.shape[:1] or len(limits) != every.shape[1]:
        raise DataError(
            f"density of values {every.shape} with weights {weight.shape} and {len(limits)} limits: expected "
            "(n, d), (n,) and d"
        )
    valid = np.isfinite(every).all(axis=1) & np.isfinite(weight) & (weight > 0)
    if not valid.any():
        raise DataError("density: expected pixels with finite values and a positive weight, got none")
    used, weight = every[valid], weight[valid] / weight[valid].sum()
    sigma = _scott(used, weight) if bandwidth is None else np.asarray(bandwidth, dtype=float)
    step = np.array([(high - low) / bins for low, high in limits])
    width = np.maximum(sigma / step, LEAST_WIDTH)
    margin = np.ceil(4 * width).astype(int)  # what lies just beyond reaches in
    ranges = [(low - m * s, high + m * s) for (low, high), m, s in zip(limits, margin, step, strict=True)]
    counts, edges = np.histogramdd(used, bins=list(bins + 2 * margin), range=ranges, weights=weight)
    smooth = gaussian_filter(counts, width, mode="constant") / step.prod()
    inside = tuple(slice(m, m + bins) for m in margin)
    centres = tuple(((edge[1:] + edge[:-1]) / 2)[part] for edge, part in zip(edges, inside, strict=True))
    return centres, smooth[inside]


def _scott(values: Float, weight: Float) -> Float:
    spread = np.sqrt(weight @ (values - weight @ values) ** 2)
    return spread * np.sum(weight**2) ** (1 / (values.shape[1] + 4))
