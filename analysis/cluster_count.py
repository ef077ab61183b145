"""How many chemical states? Five criteria over k side by side; none is reliable alone, the user decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from ptychrome.analysis.clustering import FeatureSpace, kmeans
from ptychrome.analysis.membership import fit_mixture
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
MOST_PIXELS = 4_000  # more tell nothing new, since neighbours are alike
SILHOUETTE_PIXELS = 2_000  # all pairs are needed
REFERENCES = 6  # uniform data sets for the gap statistic
SPLITS = 5
STABLE = 0.9  # mean adjusted Rand index of halves above which a partition counts as repeatable
STARTS = 3


@dataclass(frozen=True)
class StateCount:
    """Criteria for the number of clusters, an entry for each k tried.

    Attributes
    ----------
    ks : (m,) int64
    inertia : (m,) float64
        Weighted mean square distance to the own centre, in scaled units: look for an elbow.
    silhouette : (m,) float64
        Rousseeuw 1987, between −1 and 1: high is well apart; NaN at k = 1.
    bic : (m,) float64
        Bayesian information criterion of a Gaussian mixture, per pixel: low is good. Pixels are taken as
        independent, which favours more states than there are.
    gap, gap_sigma : (m,) float64
        Gap statistic of Tibshirani, Walther & Hastie 2001 with its standard error: the smallest k that is
        within one standard error of the next one's gap is good.
    stability : (m,) float64
        Mean adjusted Rand index between the partitions by the centres of two random halves; 1 at k = 1.
    proposed : int
        See `count_states`.
    """

    ks: NDArray[np.int64]
    inertia: Float
    silhouette: Float
    bic: Float
    gap: Float
    gap_sigma: Float
    stability: Float
    proposed: int


def count_states(
    features: ArrayLike,
    weights: ArrayLike,
    ks: Sequence[int] = range(1, 11),
    *,
    scaling: Literal["robust", "none"] = "robust",
    seed: int = 0,
) -> StateCount:
    """Criteria for the number of clusters on the same features and weights as `clustering.cluster`.

    Proposed is, of the numbers above one whose partition repeats (stability of at least 0.9), that with the
    highest silhouette; one where none repeats.

    Parameters
    ----------
    features : (n, d) float
        NaN where missing.
    weights : (n,) float
    ks : sequence of int
        Ascending.
    scaling : str
        See `clustering.ClusterOptions`.
    seed : int
        Of the random choice of pixels (4000 at most), of halves and references.

    Returns
    -------
    StateCount

    Raises
    ------
    DataError
        If shapes do not fit together, ks do not ascend from one or more, or there are too few pixels.
    """
    tried = np.asarray(ks, dtype=np.int64)
    if tried.ndim != 1 or not tried.size or tried[0] < 1 or np.any(np.diff(tried) < 1):
        raise DataError(f"ks: expected ascending numbers of clusters from 1 on, got {list(ks)}")
    space, rng = FeatureSpace.of(features, weights, scaling), np.random.default_rng(seed)
    values, weight = space.values, space.weight
    if len(values) < 2 * tried[-1]:
        raise DataError(
            f"{tried[-1]} clusters of two halves need {2 * tried[-1]} valid pixels, got {len(values)}"
        )
    if len(values) > MOST_PIXELS:
        chosen = rng.choice(len(values), MOST_PIXELS, replace=False)
        values, weight = values[chosen], weight[chosen]
    found = [kmeans(values, weight, int(k), seed, starts=STARTS) for k in tried]
    inertia = np.array([model.inertia_ for model in found]) / weight.sum()
    heavy = _heavy_sample(weight, rng)
    silhouette = np.array([_silhouette(values[heavy], model.labels_[heavy]) for model in found])
    bic = np.array([_bic(values, weight, model) for model in found])
    gap, gap_sigma = _gap(values, weight, tried, inertia, rng)
    stability = np.mean([_agreement(values, weight, tried, rng) for _ in range(SPLITS)], axis=0)
    proposed = _proposed(tried, silhouette, stability)
    return StateCount(tried, inertia, silhouette, bic, gap, gap_sigma, stability, proposed)


def _heavy_sample(weight: Float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Pixels drawn in proportion to their weight, for what knows no weights."""
    size = min(SILHOUETTE_PIXELS, len(weight))
    return rng.choice(len(weight), size, replace=False, p=weight / weight.sum())


def _silhouette(values: Float, labels: NDArray[np.int32]) -> float:
    if not 1 < len(np.unique(labels)) < len(labels):
        return float("nan")
    return float(silhouette_samples(values, labels).mean())


def _bic(values: Float, weight: Float, model: KMeans) -> float:
    n = len(values)
    mixture = fit_mixture(values, weight, model.labels_, model.n_clusters)
    return float(mixture.parameters * np.log(n) - 2 * mixture.log_likelihood) / n


def _gap(
    values: Float, weight: Float, ks: NDArray[np.int64], inertia: Float, rng: np.random.Generator
) -> tuple[Float, Float]:
    """Mean ln inertia of uniform data in the box of the principal axes less that of the data, and its error.

    Each reference has the weights of the data in another order.
    """
    middle = weight @ values / weight.sum()
    _, _, axes = np.linalg.svd(np.sqrt(weight)[:, None] * (values - middle), full_matrices=False)
    turned = (values - middle) @ axes.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    logs = np.empty((REFERENCES, len(ks)))
    for row in logs:
        uniform, shuffled = rng.uniform(low, high, values.shape), rng.permutation(weight)
        seed = int(rng.integers(2**31))
        row[:] = [
            np.log(kmeans(uniform, shuffled, int(k), seed, starts=STARTS).inertia_ / weight.sum()) for k in ks
        ]
    with np.errstate(divide="ignore"):
        gap = logs.mean(axis=0) - np.log(inertia)
    return gap, logs.std(axis=0) * np.sqrt(1 + 1 / REFERENCES)


def _agreement(values: Float, weight: Float, ks: NDArray[np.int64], rng: np.random.Generator) -> Float:
    """Adjusted Rand index between partitions of all pixels by the centres of two halves, for each k."""
    order, half, seed = rng.permutation(len(values)), len(values) // 2, int(rng.integers(2**31))
    scores = []
    for k in ks:
        first, second = (
            kmeans(values[part], weight[part], int(k), seed, starts=STARTS).predict(values)
            for part in (order[:half], order[half:])
        )
        scores.append(adjusted_rand_score(first, second))
    return np.array(scores)


def _proposed(ks: NDArray[np.int64], silhouette: Float, stability: Float) -> int:
    good = (ks > 1) & (stability >= STABLE) & np.isfinite(silhouette)
    return int(ks[np.argmax(np.where(good, silhouette, -np.inf))]) if good.any() else 1
