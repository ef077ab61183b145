"""Soft membership: how surely a pixel belongs to its cluster, and what that means for the fractions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychrome.analysis.clustering import FeatureSpace, amount_per_cluster, cluster_fractions
from ptychrome.analysis.domains import RESOLUTION_M, resolved
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
NARROWEST = 1e-4  # of a feature's variance over all pixels: no state is narrower
ITERATIONS = 100
TOLERANCE = 1e-5  # rise of the mean log-likelihood per pixel that ends the iteration


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


def assigned(probability: ArrayLike, labels: ArrayLike) -> NDArray[np.float32]:
    """Probability of the cluster that each pixel was given.

    Parameters
    ----------
    probability : (..., k) float
        See `membership`.
    labels : (...) int, −1 missing

    Returns
    -------
    (...) float32
        NaN where missing.
    """
    label = np.asarray(labels)
    chosen = np.take_along_axis(np.asarray(probability), np.maximum(label, 0)[..., None], axis=-1)[..., 0]
    return np.where(label >= 0, chosen, np.nan).astype(np.float32)


def shares(
    probability: ArrayLike,
    label: ArrayLike,
    n_v: ArrayLike,
    pixel_m: float,
    narrowest_m: float = RESOLUTION_M,
) -> tuple[Float, Float]:
    """Share of the edge's atoms in each cluster and its standard deviation, for this very particle.

    Three errors of the labels add up in quadrature: chance, Σ N² p (1 − p) with all pixels of a resolution
    element wrong together; that doubtful pixels are counted whole, which differs from Σ N p; and that seams
    between domains look like states, by what `domains.resolved` changes. How another particle of the same
    material would differ is not in it: for that take several.

    Parameters
    ----------
    probability : (ny, nx, k) float
        See `membership`.
    label : (ny, nx) int, −1 missing
    n_v : (ny, nx) float, m⁻²
    pixel_m : float
    narrowest_m : float
        See `clustering.ClusterOptions`.

    Returns
    -------
    fractions, sigma : (k,) float64
        NaN if no pixel is labelled.
    """
    labels, density, k = np.asarray(label), np.ravel(n_v), np.shape(probability)[-1]
    chance = np.nan_to_num(np.asarray(probability, dtype=float)).reshape(-1, k)
    whole = amount_per_cluster(labels.ravel(), density, k)
    amount, total = whole.sum(axis=0), whole.sum()
    if not total > 0:
        return np.full(k, np.nan), np.full(k, np.nan)
    element = _elements(labels.shape, pixel_m).ravel()
    deviation = amount[:, None] * np.sqrt(chance * (1 - chance))
    variance = np.array([np.sum(np.bincount(element, column) ** 2) for column in deviation.T])
    doubt = whole.sum(axis=1) - amount @ chance
    seams = whole.sum(axis=1) / total - cluster_fractions(resolved(labels, pixel_m).ravel(), density, k)
    fractions = cluster_fractions(resolved(labels, pixel_m, narrowest_m).ravel(), density, k)
    return fractions, np.sqrt((variance + doubt**2) / total**2 + seams**2)


def _elements(shape: tuple[int, ...], pixel_m: float) -> NDArray[np.int64]:
    """Number of the resolution element that each pixel of a map lies in, (ny, nx)."""
    side = max(round(RESOLUTION_M / pixel_m), 1)
    row, column = (np.arange(size) // side for size in shape)
    return row[:, None] * (column[-1] + 1) + column
