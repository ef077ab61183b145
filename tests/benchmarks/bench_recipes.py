"""Time and error of whole 40-energy stacks: ``python tests/benchmarks/bench_recipes.py --help``.

Simulates a particle over the V K-edge with all nuisances, one CXI file for each energy, sends the set
through the pipeline once for each recipe and backend, and prints seconds, errors and biases against the truth
of the twin (`ptychrome.profiles.scoring`), and the largest memory of any one process.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.constants import electron_volt
from threadpoolctl import threadpool_limits

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.executors import WorkerProcesses
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.memory import MemorySink
from ptychrome.callbacks.sources.cxi import documents, read_cxi_set
from ptychrome.devices.twin import TwinBeamline
from ptychrome.devices.twin.nuisances import Disturbances
from ptychrome.plans import positions, square, v_k_edge
from ptychrome.profiles.scoring import Score, score
from ptychrome.profiles.settings import load_recipe
from ptychrome.schema import ProbeModel

N_STATES = 4
EXPOSURE_S = 1.0
STEP_M = 150e-9
DETECTOR = "/entry_1/instrument_1/detector_1"


def simulate(sample: str, seed: int, photons: float, pixels: int, width_m: float, folder: Path) -> ProbeModel:
    """Write a CXI set, all processors at work; returns what is known of the probe."""
    energies = list(v_k_edge())
    scan = partial(_simulate_energy, sample, seed, photons, pixels, width_m, folder)
    with ProcessPoolExecutor(
        os.cpu_count(), get_context("spawn"), initializer=threadpool_limits, initargs=(1,)
    ) as pool:
        list(pool.map(scan, range(len(energies)), energies))
    probe = TwinBeamline(sample, seed=seed, frame_pixels=pixels).nominal_probe
    return ProbeModel(fwhm_m=probe.fwhm_m, fwhm_energy_eV=probe.fwhm_energy_eV, defocus_m=probe.defocus_m)


def _simulate_energy(
    sample: str,
    seed: int,
    photons: float,
    pixels: int,
    width_m: float,
    folder: Path,
    place: int,
    energy_eV: float,
) -> None:
    """One energy, with disturbances of its own: no process needs to know what the others draw."""
    twin = TwinBeamline(sample, seed=seed, frame_pixels=pixels, flux=photons / EXPOSURE_S)
    twin._disturbances = Disturbances(twin.nuisances, 1000 * (seed + 1) + place, sample)
    twin.energy_eV = energy_eV
    stage = positions(square(width_m, STEP_M))
    twin.clock_s = place * len(stage) * EXPOSURE_S
    frames, i0 = np.empty((len(stage), pixels, pixels), np.uint32), np.empty(len(stage))
    for number, (x, y) in enumerate(stage):
        twin.stage_m = (float(x), float(y))
        exposure = twin.expose(EXPOSURE_S)
        frames[number], i0[number] = exposure.counts, exposure.i0
    fields = {
        "/entry_1/instrument_1/source_1/energy": energy_eV * electron_volt,
        f"{DETECTOR}/data": frames,
        f"{DETECTOR}/mask": twin.detector.mask.astype(np.uint32),
        f"{DETECTOR}/distance": twin.detector.distance_m,
        f"{DETECTOR}/x_pixel_size": twin.detector.pixel_size_m[1],
        f"{DETECTOR}/y_pixel_size": twin.detector.pixel_size_m[0],
        "/entry_1/sample_1/geometry_1/translation": np.column_stack([stage, np.zeros(len(stage))]),
        "/entry_1/sample_1/name": sample,
        "/entry_1/instrument_1/monitor_1/data": i0,
    }
    with h5py.File(folder / f"{place:02d}.cxi", "w") as file:
        for name, value in fields.items():
            file[name] = value


def on_backend(recipe: Recipe, backend: str) -> Recipe:
    """The recipe with another backend in all its stages."""
    options: dict[str, Any] = recipe.model_dump()
    joint = options["joint"] or {"refine": []}
    for stage in (*options["reconstruct"], *options["warm"], *joint["refine"]):
        stage["backend"] = backend
    return Recipe.model_validate(options)


def analyse(folder: Path, probe: ProbeModel, recipe: Recipe, workers: int) -> tuple[float, Revision]:
    """Wall seconds of the analysis and its last revision."""
    sink = MemorySink()
    begin = time.perf_counter()
    pipeline = Pipeline(recipe, WorkerProcesses(workers), [sink], in_flight=workers)
    for name, doc in documents(read_cxi_set([folder]), probe=probe):
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
    parser.add_argument("--pixels", type=int, default=128, help="rows and columns of a frame")
    parser.add_argument("--width", type=float, default=1.65e-6, help="of the scanned square, m")
    parser.add_argument("--backends", nargs="+", default=["auto"])
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
    chosen, console = arguments(), Console(width=160)
    table = Table(title="error (bias) against the truth, 40 energies")
    columns = ("sample", "seed", "photons", "recipe", "backend", "s")
    for column in (*columns, "b2 eV", "PE/Δμt eV", "N_V %", "ratio", "ARI"):
        table.add_column(column, justify="right")
    for sample, seed, photons in product(chosen.samples, chosen.seeds, chosen.photons):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            probe = simulate(sample, seed, photons, chosen.pixels, chosen.width, folder)
            twin = TwinBeamline(sample, seed=seed, frame_pixels=chosen.pixels)
            for name, backend in product(chosen.recipes, chosen.backends):
                recipe = on_backend(load_recipe(name, n_clusters=N_STATES), backend)
                seconds, revision = analyse(folder, probe, recipe, chosen.workers)
                label = [sample, str(seed), f"{photons:.0e}", recipe.name, backend]
                cells = row(label, seconds, judge(revision, twin))
                console.print(*cells)
                table.add_row(*cells)
    console.print(table)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    console.print(f"largest process: {peak / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
