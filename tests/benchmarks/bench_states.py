"""Chemical states of six particles against the truth: ``python tests/benchmarks/bench_states.py --help``.

Scans P1–P3 (as prepared) and D1–D3 (delithiated), reconstructs them with one recipe, clusters their pixels
together and prints the share of V in each state beside the true one, the adjusted Rand index, and the number
of states that would be proposed. With --results, stored ``<sample>.nxs`` files (such as those of
``ptychrome demo --particles P1,P2,P3,D1,D2,D3``) are taken instead: seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from bench_recipes import N_STATES, analyse, judge, simulate
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ptychrome.analysis.cluster_count import StateCount, count_states
from ptychrome.analysis.clustering import cluster_fractions
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import load_result, write_nexus
from ptychrome.devices.twin import Truth, TwinBeamline
from ptychrome.profiles.pooled import pixel_features, pool_clusters
from ptychrome.profiles.settings import load_recipe

PARTICLES = ("P1", "P2", "P3", "D1", "D2", "D3")


def reconstructed(sample: str, chosen: argparse.Namespace) -> Revision:
    """A stored result, or a new one, written to --keep if that is given."""
    if chosen.results is not None:
        return load_result(chosen.results / f"{sample}.nxs")
    with tempfile.TemporaryDirectory() as scratch:
        folder, recipe = Path(scratch), load_recipe(chosen.recipe, n_clusters=N_STATES)
        probe = simulate(sample, chosen.seed, chosen.photons, 128, 1.65e-6, folder)
        _, revision = analyse(folder, probe, recipe, chosen.workers)
    if chosen.keep is not None:
        write_nexus(chosen.keep / f"{sample}.nxs", revision)
    return revision


def true_fractions(truth: Truth) -> NDArray[np.float64]:
    """By the state with the majority in each pixel, in the order of the clusters: by edge energy."""
    middle = [np.nanmedian(truth.edge_energy[truth.label == state]) for state in range(N_STATES)]
    return cluster_fractions(truth.label.ravel(), truth.n_v.ravel(), N_STATES)[np.argsort(middle)]


def proposal(results: dict[str, Revision], recipe: str) -> StateCount:
    """The criteria for the number of states over all pixels."""
    options = load_recipe(recipe).clusters
    n_v = np.concatenate([result.arrays["maps/n_v"].ravel() for result in results.values()])
    features = np.concatenate([pixel_features(result) for result in results.values()])
    return count_states(features, options.pixel_weights(n_v), scaling=options.scaling)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, metavar="DIR", help="of stored results")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where new results are written")
    parser.add_argument("--recipe", default="live")
    parser.add_argument("--photons", type=float, default=1e8, help="per frame")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", nargs="+", default=list(PARTICLES))
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Reconstruct or load, cluster, compare."""
    chosen, console = arguments(), Console(width=150)
    results = {sample: reconstructed(sample, chosen) for sample in chosen.samples}
    pooled = pool_clusters(results, N_STATES, load_recipe(chosen.recipe).clusters)
    table = Table(title="share of V, % ± σ (true)")
    for column in ("sample", *(f"state {state}" for state in range(N_STATES)), "largest error", "ARI"):
        table.add_column(column, justify="right")
    for sample, result in pooled.items():
        twin = TwinBeamline(sample, seed=chosen.seed, frame_pixels=128, flux=chosen.photons)
        pixel_m = abs(float(result.arrays["x"][1] - result.arrays["x"][0]))
        true = true_fractions(twin.truth(pixel_m, result.arrays["energy"]))
        value, sigma = result.arrays["clusters/fractions"], result.arrays["clusters/fractions_sigma"]
        cells = [
            f"{100 * v:.1f} ± {100 * s:.1f} ({100 * t:.1f})"
            for v, s, t in zip(value, sigma, true, strict=True)
        ]
        ari = judge(result, twin).errors["cluster_ari"]
        table.add_row(sample, *cells, f"{100 * np.abs(value - true).max():.1f}", f"{ari:.3f}")
    console.print(table)
    count = proposal(pooled, chosen.recipe)
    console.print(f"{N_STATES} states are true, {count.proposed} would be proposed")


if __name__ == "__main__":
    main()
