"""Time and error of whole 40-energy stacks: ``python tests/benchmarks/bench_recipes.py --help``.

Scans a simulated particle over the V K-edge with all nuisances, records its documents and frames, sends them
through the pipeline once for each recipe, and prints seconds, errors and biases against the truth of the twin
(`ptychrome.profiles.scoring`), and the largest memory of any one process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from rich.console import Console
from rich.table import Table

from ptychrome.callbacks.executors import WorkerProcesses
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.memory import MemorySink
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import spectro_ptycho, square, v_k_edge
from ptychrome.profiles.scoring import Score, score
from ptychrome.profiles.settings import load_recipe

N_STATES = 4
Documents = list[tuple[str, dict[str, Any]]]


def record(twin: TwinBeamline, directory: Path, width_m: float) -> Documents:
    """Documents of one scan; the frames lie in the directory."""
    beamline = simulated_beamline(twin, directory)
    documents: Documents = []
    RE = RunEngine()
    RE.subscribe(lambda name, doc: documents.append((name, doc)))
    RE(
        spectro_ptycho(
            [beamline.eiger],
            beamline.dcm,
            beamline.stage,
            energies=v_k_edge(),
            trajectory=square(width_m, 150e-9),
            exposure_s=1.0,
            sample_name=twin.sample,
        )
    )
    return documents


def analyse(documents: Documents, recipe: str, workers: int) -> tuple[float, Revision]:
    """Wall seconds of the analysis and its last revision."""
    sink = MemorySink()
    pipeline = Pipeline(
        load_recipe(recipe, n_clusters=N_STATES), WorkerProcesses(workers), [sink], in_flight=workers
    )
    begin = time.perf_counter()
    for name, doc in documents:
        pipeline(name, doc)
    pipeline.close()
    seconds = time.perf_counter() - begin
    (revision,) = sink.latest.values()
    return seconds, revision


def judge(revision: Revision, twin: TwinBeamline) -> Score:
    """Score of a revision against the truth on its pixels."""
    pixel_m = abs(float(revision.arrays["x"][1] - revision.arrays["x"][0]))
    return score(revision.arrays, twin.truth(pixel_m, revision.arrays["energy"]))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["live", "best"])
    parser.add_argument("--photons", nargs="+", type=float, default=[1e8], help="per frame")
    parser.add_argument("--samples", nargs="+", default=["P1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--width", type=float, default=1.65e-6, help="of the scanned square, m")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def row(label: Sequence[str], seconds: float, result: Score) -> list[str]:
    """One line of the table: error, and its bias in brackets."""
    cells = []
    for key, factor, digits in (
        ("edge_energy_eV", 1, 3),
        ("pre_edge_ratio_eV", 1, 3),
        ("n_v_rel", 100, 2),
        ("n_eff_ratio", 1, 2),
    ):
        error, bias = factor * result.errors[key], factor * result.bias[key]
        cells.append(f"{error:.{digits}f} ({bias:+.{digits}f})")
    return [*label, f"{seconds:.0f}", *cells, f"{result.errors['cluster_ari']:.3f}"]


def main() -> None:
    """Run everything that the command line asks for."""
    chosen, console = arguments(), Console(width=150)
    table = Table(title="error (bias) against the truth, 40 energies")
    for column in ("sample", "seed", "photons", "recipe", "s", "b2 eV", "PE/Δμt eV", "N_V %", "ratio", "ARI"):
        table.add_column(column, justify="right")
    for sample in chosen.samples:
        for seed in chosen.seeds:
            for photons in chosen.photons:
                with tempfile.TemporaryDirectory() as scratch:
                    twin = TwinBeamline(sample, seed=seed, frame_pixels=128, flux=photons)
                    documents = record(twin, Path(scratch), chosen.width)
                    for recipe in chosen.recipes:
                        seconds, revision = analyse(documents, recipe, chosen.workers)
                        label = [sample, str(seed), f"{photons:.0e}", recipe]
                        cells = row(label, seconds, judge(revision, twin))
                        console.print(*cells)
                        table.add_row(*cells)
    console.print(table)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    console.print(f"largest process: {peak / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
