"""Clusters of several particles together, so that one label means one chemical state everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.clustering import ClusterOptions, Clusters, cluster, cluster_spectra
from ptychrome.analysis.membership import assigned, membership, shares
from ptychrome.callbacks.results import Revision
from ptychrome.schema import FEATURES


def pool_clusters(
    results: Mapping[str, Revision], k: int, options: ClusterOptions | None = None
) -> dict[str, Revision]:
    """The same results with clusters found over the pixels of all particles together.

    Parameters
    ----------
    results : mapping of str to Revision
        Results by particle; those without maps are left as they are.
    k : int
        Number of clusters.
    options : ClusterOptions, optional

    Returns
    -------
    dict of str to Revision
        ``clusters/…`` replaced; the attribute ``pooled_with`` names the particles that shared the clustering.

    Raises
    ------
    ptychrome.analysis.scan.DataError
        If there are fewer fitted pixels than clusters.
    """
    mapped = {name: result for name, result in results.items() if "maps/n_v" in result.arrays}
    if not mapped:
        return dict(results)
    options = options or ClusterOptions()
    features = np.concatenate([pixel_features(result) for result in mapped.values()])
    n_v = np.concatenate([result.arrays["maps/n_v"].ravel() for result in mapped.values()])
    weights = options.pixel_weights(n_v)
    clusters = cluster(features, weights, k, scaling=options.scaling)
    chance = membership(features, weights, clusters.labels, k, options.scaling)
    ends = np.cumsum([result.arrays["maps/n_v"].size for result in mapped.values()])[:-1]
    parts = zip(np.split(clusters.labels, ends), np.split(chance, ends), strict=True)
    pooled = {
        name: _with_clusters(result, replace(clusters, labels=labels), chances, options, sorted(mapped))
        for (name, result), (labels, chances) in zip(mapped.items(), parts, strict=True)
    }
    return {name: pooled.get(name, result) for name, result in results.items()}


def pixel_features(result: Revision) -> NDArray[np.float64]:
    """What chemical states are told by, of all pixels of a result with maps, (n, 3) float64."""
    return np.stack([result.arrays[f"maps/{name}"].ravel() for name in FEATURES], axis=1).astype(float)


def _with_clusters(
    result: Revision, clusters: Clusters, chance: NDArray, options: ClusterOptions, names: list[str]
) -> Revision:
    """A result with its part of the common clusters."""
    n_v, k = result.arrays["maps/n_v"], len(clusters.centers)
    absorbance = result.arrays["absorbance"].reshape(-1, n_v.size)
    pixel_m = float(abs(result.arrays["x"][1] - result.arrays["x"][0]))
    label, chance = clusters.labels.reshape(n_v.shape), chance.reshape(*n_v.shape, k)
    fractions, sigma = shares(chance, label, n_v, pixel_m, options.narrowest_m)
    arrays: dict[str, NDArray] = {
        "clusters/label": label,
        "clusters/probability": assigned(chance, label),
        "clusters/centers": clusters.centers,
        "clusters/fractions": fractions,
        "clusters/fractions_sigma": sigma,
        "clusters/spectra": cluster_spectra(clusters.labels, absorbance, n_v.ravel(), k),
    }
    return replace(
        result, arrays={**result.arrays, **arrays}, attributes={**result.attributes, "pooled_with": names}
    )
