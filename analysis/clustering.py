"""Chemical states: clusters of (edge energy, pre-edge ratio, Re[N_eff]/N_V), steady while data stream in."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ptychrome.analysis.domains import RESOLUTION_M
from ptychrome.analysis.options import Options
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
WINSOR = 3.0  # robust standard deviations beyond which a feature is drawn in: thin edges have wild ratios
COLD_BETTER = 0.9  # relative cost at which a cold start replaces a warm one


class ClusterOptions(Options):
    """How pixels are compared with each other.

    Attributes
    ----------
    scaling : str
        ``robust``: each feature in units of its weighted spread, outliers drawn in to three of them;
        ``none``: in physical units, the paper's way: the ratio Re[N_eff]/N_V then decides nearly alone.
    weights : str
        ``n_v2``: N_V², the inverse variance of the features, since their noise goes as 1/N_V; ``none``: all
        pixels alike, the paper's way.
    narrowest_m : float
        What is narrower than this counts in the fractions with the domain beside it, see `domains.resolved`;
        0: as it is labelled, the paper's way. The map of labels shows what was found in any case.
    """

    scaling: Literal["robust", "none"] = "robust"
    weights: Literal["n_v2", "none"] = "n_v2"
    narrowest_m: Annotated[float, Field(ge=0)] = RESOLUTION_M

    def pixel_weights(self, n_v: ArrayLike) -> Float:
        """Weight of each pixel from its areal density (any shape); NaN or not positive where missing."""
        amount = np.asarray(n_v, dtype=float)
        return amount * np.abs(amount) if self.weights == "n_v2" else np.sign(amount)


@dataclass(frozen=True)
class FeatureSpace:
    """The valid pixels, their features in units of distance.

    Attributes
    ----------
    valid : (n,) bool
        Pixels with all features and a positive weight; the arrays below run over these.
    values : (m, d) float64
        Scaled features.
    weight : (m,) float64
        Of mean one.
    middle, scale : (d,) float64
        A feature is `middle` + `scale` × value, unless it was drawn in.
    """

    valid: NDArray[np.bool_] = field(repr=False)
    values: Float = field(repr=False)
    weight: Float = field(repr=False)
    middle: Float
    scale: Float

    @classmethod
    def of(
        cls, features: ArrayLike, weights: ArrayLike, scaling: Literal["robust", "none"] = "robust"
    ) -> FeatureSpace:
        """Leave out what is missing and scale the rest.

        Parameters
        ----------
        features : (n, d) float
        weights : (n,) float
        scaling : str
            See `ClusterOptions`.

        Raises
        ------
        DataError
            If shapes do not fit together or no pixel is valid.
        """
        every, weight = np.asarray(features, dtype=float), np.asarray(weights, dtype=float)
        if every.ndim != 2 or weight.shape != every.shape[:1]:
            raise DataError(f"features {every.shape} and weights {weight.shape}: expected (n, d) and (n,)")
        valid = np.isfinite(every).all(axis=1) & np.isfinite(weight) & (weight > 0)
        if not valid.any():
            raise DataError("clusters need pixels with all features and a positive weight; got none")
        values, weight = every[valid], weight[valid] / weight[valid].mean()
        if scaling == "none":
            d = values.shape[1]
            return cls(valid, values, weight, np.zeros(d), np.ones(d))
        middle, scale = _robust_scale(values, weight)
        scaled = np.clip((values - middle) / scale, -WINSOR, WINSOR)
        return cls(valid, scaled, weight, middle, scale)


@dataclass(frozen=True)
class Clusters:
    """Labels and centres of k chemical states.

    Attributes
    ----------
    labels : (n,) int32
        0-based; −1 where a feature is missing or the weight is not positive.
    centers : (k, 3) float64
        Weighted means of the (winsorised) features, physical units; NaN for a cluster without pixels.
    scale : (3,) float64
        What one unit of distance is in each feature.
    """

    labels: NDArray[np.int32] = field(repr=False)
    centers: Float
    scale: Float


def cluster(
    features: ArrayLike,
    weights: ArrayLike,
    k: int,
    *,
    previous: ArrayLike | None = None,
    scaling: Literal["robust", "none"] = "robust",
    seed: int = 0,
) -> Clusters:
    """k-means on robustly scaled features, heavy pixels counting more.

    Parameters
    ----------
    features : (n, d) float
        Edge energy (eV), pre-edge ratio (eV), Re[N_eff]/N_V; NaN where missing. Several particles are
        clustered together by concatenating them.
    weights : (n,) float
        Such as `ClusterOptions.pixel_weights`, in any unit.
    k : int
        Number of clusters.
    previous : (k, d) float, optional
        Centres of the revision before, physical units: a warm start that keeps labels steady.
        Without it, labels ascend with the first feature.
    scaling : str
        See `ClusterOptions`.
    seed : int

    Returns
    -------
    Clusters

    Raises
    ------
    DataError
        If shapes do not fit together or fewer than k pixels are valid.
    """
    space = FeatureSpace.of(features, weights, scaling)
    values, weight = space.values, space.weight
    if not 1 <= k <= len(values):
        raise DataError(f"k = {k} clusters need as many pixels; got {len(values)} valid ones")
    old = _previous(previous, k, values.shape[1])
    start = None if old is None else (old - space.middle) / space.scale
    found = _steady(values, weight, k, start, seed)
    means = np.array([_mean(values, weight * (found == i)) for i in range(k)])
    centers = means * space.scale + space.middle
    order = np.argsort(centers[:, 0]) if start is None else _matched(means, start)
    labels = np.full(len(space.valid), -1, dtype=np.int32)
    labels[space.valid] = np.argsort(order)[found]
    return Clusters(labels, centers[order], space.scale)


def _previous(previous: ArrayLike | None, k: int, d: int) -> Float | None:
    if previous is None:
        return None
    centers = np.asarray(previous, dtype=float)
    if centers.shape != (k, d):
        raise DataError(f"previous centres: expected shape ({k}, {d}), got {centers.shape}")
    return centers if np.isfinite(centers).all() else None


def _robust_scale(values: Float, weight: Float) -> tuple[Float, Float]:
    """Weighted median and spread (half the 10–90 % range over 1.28) of each feature, (d,) each."""
    low, middle, high = (_quantile(values, weight, q) for q in (0.1, 0.5, 0.9))
    spread = (high - low) / 2.563
    return middle, np.where(spread > 0, spread, 1.0)


def _quantile(values: Float, weight: Float, q: float) -> Float:
    order = np.argsort(values, axis=0)
    below = np.cumsum(weight[order], axis=0) / weight.sum()
    rank = np.argmax(below >= q, axis=0)
    columns = np.arange(values.shape[1])
    return values[order[rank, columns], columns]


def kmeans(
    values: Float, weight: Float, k: int, seed: int, *, starts: int = 1, centers: Float | None = None
) -> KMeans:
    """The best of several runs, on one thread: with so few features more of them only wait for each other.

    Parameters
    ----------
    values : (n, d) float64
        Scaled features.
    weight : (n,) float64
    k : int
    seed : int
    starts : int
    centers : (k, d) float64, optional
        Where to start; default k-means++.
    """
    model = KMeans(k, init="k-means++" if centers is None else centers, n_init=starts, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct pixels than k: some stay empty
        return model.fit(values, sample_weight=weight)


def _steady(values: Float, weight: Float, k: int, start: Float | None, seed: int) -> NDArray[np.int32]:
    """Labels from a warm start, unless a cold one is clearly better: early centres may have been poor."""
    if start is None:
        return kmeans(values, weight, k, seed, starts=10).labels_
    warm, cold = kmeans(values, weight, k, seed, centers=start), kmeans(values, weight, k, seed, starts=3)
    return cold.labels_ if cold.inertia_ < COLD_BETTER * warm.inertia_ else warm.labels_


def _mean(values: Float, weight: Float) -> Float:
    total = weight.sum()
    return weight @ values / total if total > 0 else np.full(values.shape[1], np.nan)


def _matched(centers: Float, previous: Float) -> NDArray[np.intp]:
    """Which new centre carries on each previous one: the assignment of least total squared distance."""
    cost = np.sum((previous[:, None] - centers) ** 2, axis=2)
    return linear_sum_assignment(np.nan_to_num(cost, nan=1e12))[1]


def cluster_fractions(labels: ArrayLike, n_v: ArrayLike, k: int) -> Float:
    """Share of the edge's atoms in each cluster.

    Parameters
    ----------
    labels : (n,) int, −1 missing
    n_v : (n,) float, m⁻²
    k : int

    Returns
    -------
    (k,) float64
        Sums to one; NaN if no pixel is labelled.
    """
    amount = amount_per_cluster(labels, n_v, k).sum(axis=1)
    total = amount.sum()
    return amount / total if total > 0 else np.full(k, np.nan)


def cluster_spectra(labels: ArrayLike, absorbance: ArrayLike, n_v: ArrayLike, k: int) -> Float:
    """Mean XANES spectrum of each cluster, thick pixels counting more.

    Parameters
    ----------
    labels : (n,) int, −1 missing
    absorbance : (n_energy, n) float
        μt, NaN where an energy was not measured.
    n_v : (n,) float, m⁻²
    k : int

    Returns
    -------
    (k, n_energy) float64
        Mean μt of the cluster's pixels, weighted by N_V; NaN where missing.
    """
    weight = amount_per_cluster(labels, n_v, k)
    spectra = np.asarray(absorbance, dtype=float)
    finite = np.isfinite(spectra)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weight @ np.where(finite, spectra, 0.0).T) / (weight @ finite.T)


def amount_per_cluster(labels: ArrayLike, n_v: ArrayLike, k: int) -> Float:
    """N_V of each pixel in the row of its cluster, zero elsewhere and where unknown, (k, n) float64."""
    amount = np.nan_to_num(np.asarray(n_v, dtype=float), nan=0.0, posinf=0.0, neginf=0.0)
    return np.where(np.asarray(labels) == np.arange(k)[:, None], np.maximum(amount, 0.0), 0.0)
