"""Soft membership: how sure it is that a pixel belongs to its cluster, from a Gaussian mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychrome.analysis.clustering import FeatureSpace
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
NARROWEST = 1e-4  # of a feature's variance over all pixels: no state is narrower
ITERATIONS = 200
TOLERANCE = 1e-6  # rise of the mean log-likelihood per pixel that ends the iteration


@dataclass(frozen=True)
class Mixture:
    """Gaussian states with one covariance, which in each pixel goes as the inverse of the pixel's weight.

    One for all states, since it is the measurement that spreads them; with one each, a state may widen into a
    background under the others, which then no longer is the cluster it began as.

    Attributes
    ----------
    share : (k,) float64
        Of the pixels.
    centers : (k, d) float64
    covariance : (d, d) float64
        For a pixel of weight one.
    log_likelihood : float
        Of all pixels together.
    """

    share: Float
    centers: Float
    covariance: Float
    log_likelihood: float

    @property
    def parameters(self) -> int:
        """Count of free parameters."""
        k, d = self.centers.shape
        return k - 1 + k * d + d * (d + 1) // 2


def fit_mixture(values: Float, weight: Float, labels: NDArray[np.integer], k: int) -> Mixture:
    """Expectation maximisation from given clusters.

    Pixel i of state j is drawn from N(μ_j, Σ/w_i): what a weight that is an inverse variance means
    (Gebru et al., IEEE TPAMI 38, 2402 (2016), with fixed weights). Replicating pixels in proportion to their
    weight instead would make thin ones as sure as thick ones.

    Parameters
    ----------
    values : (n, d) float64
        Scaled features, see `FeatureSpace`.
    weight : (n,) float64
        Positive, of mean one.
    labels : (n,) int
        Clusters to start from, 0 to k − 1.
    k : int

    Returns
    -------
    Mixture
    """
    mean = weight @ values / weight.sum()
    floor = np.diag(np.maximum(NARROWEST * (weight @ (values - mean) ** 2) / len(values), 1e-12))
    belongs = (np.asarray(labels)[:, None] == np.arange(k)).astype(float)
    last = -np.inf
    for _ in range(ITERATIONS):
        model = _maximise(values, weight, belongs, floor)
        joint = _log_joint(values, weight, *model)
        top = joint.max(axis=1)
        total = top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
        belongs = np.exp(joint - total[:, None])
        likelihood = float(total.sum())
        if likelihood - last < TOLERANCE * len(values):
            break
        last = likelihood
    return Mixture(*model, likelihood)


def _maximise(values: Float, weight: Float, belongs: Float, floor: Float) -> tuple[Float, Float, Float]:
    """Share and centre of each state, and the common covariance; a state without pixels has no share."""
    count, mass = belongs.sum(axis=0), weight @ belongs
    centers = (belongs * weight[:, None]).T @ values / np.maximum(mass, 1e-300)[:, None]
    covariance = floor.copy()
    for state, center in enumerate(centers):
        away = values - center
        covariance += (away * (belongs[:, state] * weight)[:, None]).T @ away / len(values)
    return count / count.sum(), centers, covariance


def _log_joint(values: Float, weight: Float, share: Float, centers: Float, covariance: Float) -> Float:
    """ln(share_j N(x_i; μ_j, Σ/w_i)), (n, k)."""
    d = values.shape[1]
    root = np.linalg.cholesky(covariance)
    white, white_centers = np.linalg.solve(root, values.T).T, np.linalg.solve(root, centers.T).T
    distance = np.sum((white[:, None] - white_centers) ** 2, axis=2)
    norm = d * np.log(2 * np.pi) + 2 * np.log(np.diag(root)).sum() - d * np.log(weight)
    with np.errstate(divide="ignore"):
        return np.log(share) - 0.5 * (norm[:, None] + weight[:, None] * distance)


def membership(
    features: ArrayLike,
    weights: ArrayLike,
    labels: ArrayLike,
    k: int,
    scaling: Literal["robust", "none"] = "robust",
) -> Float:
    """Probability of each pixel to belong to each cluster.

    It covers noise that goes as 1/√weight and overlap of the clusters; a pixel on a border between two
    domains is no state of its own, it looks like one or the other or something between.

    Parameters
    ----------
    features : (n, d) float
        As for `clustering.cluster`.
    weights : (n,) float
    labels : (n,) int
        What `clustering.cluster` found for these; −1 missing.
    k : int
    scaling : str

    Returns
    -------
    (n, k) float64
        Rows add up to one; NaN where the label is missing.

    Raises
    ------
    DataError
        If shapes do not fit together, or a pixel with features has no label.
    """
    space, label = FeatureSpace.of(features, weights, scaling), np.asarray(labels)
    if label.shape != space.valid.shape or np.any(label[space.valid] < 0):
        raise DataError(
            f"labels {label.shape}: expected one for each of {space.valid.size} pixels, as `cluster` gives"
        )
    mixture = fit_mixture(space.values, space.weight, label[space.valid], k)
    joint = _log_joint(space.values, space.weight, mixture.share, mixture.centers, mixture.covariance)
    odds = np.exp(joint - joint.max(axis=1, keepdims=True))
    probability = np.full((len(label), k), np.nan)
    probability[space.valid] = odds / odds.sum(axis=1, keepdims=True)
    return probability
