"""Clusters of several particles together, so that one label means one chemical state everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.clustering import cluster, cluster_fractions, cluster_spectra
from ptychrome.callbacks.results import Revision
from ptychrome.schema import FEATURES


def pool_clusters(results: Mapping[str, Revision], k: int) -> dict[str, Revision]:
    """The same results with clusters found over the pixels of all particles together.

    Parameters
    ----------
    results : mapping of str to Revision
        Results by particle; those without maps are left as they are.
    k : int
        Number of clusters.

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
    features = np.concatenate([_features(result) for result in mapped.values()])
    n_v = np.concatenate([result.arrays["maps/n_v"].ravel() for result in mapped.values()]).astype(float)
    clusters = cluster(features, n_v**2, k)
    ends = np.cumsum([result.arrays["maps/n_v"].size for result in mapped.values()])
    parts = np.split(clusters.labels, ends[:-1])
    pooled = {
        name: _with_clusters(result, labels, clusters.centers, sorted(mapped))
        for (name, result), labels in zip(mapped.items(), parts, strict=True)
    }
    return {name: pooled.get(name, result) for name, result in results.items()}


def _features(result: Revision) -> NDArray[np.float64]:
    return np.stack([result.arrays[f"maps/{name}"].ravel() for name in FEATURES], axis=1).astype(float)


def _with_clusters(result: Revision, labels: NDArray, centers: NDArray, names: list[str]) -> Revision:
    n_v = result.arrays["maps/n_v"]
    absorbance = result.arrays["absorbance"].reshape(-1, n_v.size)
    arrays = {
        "clusters/label": labels.reshape(n_v.shape),
        "clusters/centers": centers,
        "clusters/fractions": cluster_fractions(labels, n_v.ravel(), len(centers)),
        "clusters/spectra": cluster_spectra(labels, absorbance, n_v.ravel(), len(centers)),
    }
    return replace(
        result, arrays={**result.arrays, **arrays}, attributes={**result.attributes, "pooled_with": names}
    )
