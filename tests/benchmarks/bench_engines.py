"""Speed and noise of the engines: ``python tests/benchmarks/bench_engines.py [--quick]``.

Prints four sets of tables.

(a) Seconds per sweep beside those of its Fourier transforms alone (`scipy.fft`, the same batch, in place, one
    thread, in turns with the sweep), their ratio (expected at most 1.6), and peak memory beyond the data.
(b) Error and bias of −ln|O| and phase in the twin's particle after some seconds of each engine.
(c) Noise at 1e8 photons per frame over the shot-noise reference 1/(2√n), n photons per object pixel: the
    difference of two draws of the photons over √2 tells noise, their mean what is left of the truth in
    both; periods above a quarter of the field apart (the mean's, in brackets). Without bias neither
    absorption nor phase alone can be below 1, nor both together below √2. Then the ring correlation with
    the truth.
(d) Error and bias in the particle where a part of the detector was not measured: frequencies that one side
    alone saw as the engine left them, and filled after each stage (`fill_unseen_sidebands`).

CPU seconds of the thread are printed, which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import fft, ndimage
from simulation import Case, difference, plain, robust, table, twin
from threadpoolctl import threadpool_limits

from ptychrome.analysis.engines import ENGINES, Reconstruction, run, start
from ptychrome.analysis.engines.backend import backend_of
from ptychrome.analysis.options import EngineOptions, EpieOptions, MlOptions, RaarOptions, RpieOptions, Stage
from ptychrome.analysis.quality import noise_vs_shot_limit
from ptychrome.analysis.resolution import fourier_ring_correlation
from ptychrome.analysis.sidebands import fill_unseen_sidebands

CONSOLE = Console(width=118)
SIDES = {128: 14, 256: 10, 512: 10}  # positions per axis for each frame size
QUICK_SIDES = {128: 8, 256: 5, 512: 3}
SWEEPS: dict[str, tuple[EngineOptions, int, int]] = {  # options, transforms per position, waves per position
    "epie": (EpieOptions(probe_start=0, backend="numba"), 4, 1),
    "ml, 1 point": (MlOptions(pixel_points=1, backend="numba"), 4, 1),
    "ml, 1 point, positions": (MlOptions(pixel_points=1, position_error_m=4e-9, backend="numba"), 4, 1),
    "ml, 2 × 2 points": (MlOptions(pixel_points=2, backend="numba"), 10, 4),
}


def transforms_s(n: int, waves: int, count: int) -> float:
    """Seconds of `count` transforms of n² in batches of `waves`, forth and back."""
    batch = np.zeros((waves, n, n), np.complex64)
    begin = time.thread_time()
    for _ in range(max(1, round(count / waves / 2))):
        batch = fft.fft2(batch, norm="ortho", overwrite_x=True)
        batch = fft.ifft2(batch, norm="ortho", overwrite_x=True)
    return time.thread_time() - begin


def sweep_s(sweeps: Iterator[Reconstruction]) -> float:
    """Seconds of the next sweep."""
    begin = time.thread_time()
    next(sweeps)
    return time.thread_time() - begin


def peak_mb(case: Case, options: EngineOptions) -> float:
    """Largest memory of two sweeps beyond data and guess, MB."""
    tracemalloc.start()
    for _ in ENGINES[options.engine](case.data, case.guess, options.model_copy(update={"sweeps": 2})):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def speed(quick: bool) -> None:
    """Table (a)."""
    repeats = 3 if quick else 7
    made = table("(a) CPU ms per sweep, median", "frame", "engine", "sweep", "transforms", "ratio", "peak MB")
    for n, side in (QUICK_SIDES if quick else SIDES).items():
        case = plain(n, side)
        for name, (options, transforms, waves) in SWEEPS.items():
            batch = 1 if options.engine == "epie" else backend_of("numba").batch(8 * waves * n * n)
            batch = min(batch, side**2) * waves
            forever = options.model_copy(update={"sweeps": repeats + 1})
            sweeps = ENGINES[options.engine](case.data, case.guess, forever)
            next(sweeps)
            floors, whole = [], []
            for _ in range(repeats):
                floors.append(transforms_s(n, batch, transforms * side**2))
                whole.append(sweep_s(sweeps))
            sweep, floor = statistics.median(whole), statistics.median(floors)
            ratio = statistics.median(a / b for a, b in zip(whole, floors, strict=True))
            cells = (f"{n}² × {side**2}", name, f"{sweep * 1e3:.0f}", f"{floor * 1e3:.0f}", f"{ratio:.2f}")
            made.add_row(*cells, f"{peak_mb(case, options):.0f}")
    CONSOLE.print(made)


def paths(points: int) -> dict[str, tuple[Stage, ...]]:
    """Recipes whose errors are followed over time."""
    many = 10_000
    start = EpieOptions(sweeps=5)
    found: dict[str, tuple[Stage, ...]] = {
        "epie": (EpieOptions(sweeps=many),),
        "rpie": (RpieOptions(sweeps=many),),
        "raar": (RaarOptions(sweeps=many),),
        "epie 5, ml": (start, MlOptions(sweeps=many, pixel_points=points)),
        "epie 5, ml poisson": (start, MlOptions(sweeps=many, pixel_points=points, likelihood="poisson")),
    }
    return {name: stages for name, stages in found.items() if all(s.engine in ENGINES for s in stages)}


def error_over_time(integration: bool, times_s: tuple[float, ...]) -> None:
    """Table (b)."""
    case = twin(integration)
    kind = "integrating" if integration else "point"
    made = table(
        f"(b) error (bias) in the particle, 10⁻³, {kind} pixels, {len(case.data.amplitude)} frames",
        "engine",
        *(f"{what} {t:g} s" for t in times_s for what in ("−ln|O|", "φ")),
    )
    for name, stages in paths(2 if integration else 1).items():
        cells, begin, due = [], time.thread_time(), list(times_s)
        for result in run(case.data, case.guess, stages):
            if time.thread_time() - begin < due[0]:
                continue
            paused = time.thread_time()
            found = difference(case, result)
            for values in (found.absorbance, found.phase):
                error, bias = robust(values[found.particle])
                cells.append(f"{error * 1e3:.2f} ({bias * 1e3:+.2f})")
            due.pop(0)
            begin += time.thread_time() - paused
            if not due:
                break
        made.add_row(name, *cells)
    CONSOLE.print(made)


def noise_recipes(points: int, sweeps: int) -> dict[str, tuple[Stage, ...]]:
    """Recipes whose noise is compared."""
    start = EpieOptions(sweeps=5)
    gaussian = MlOptions(sweeps=sweeps, pixel_points=points)
    poisson = MlOptions(sweeps=2 * sweeps, pixel_points=points, likelihood="poisson")
    return {
        "epie": (EpieOptions(sweeps=2 * sweeps),),
        "ml": (start, gaussian),
        "ml poisson": (start, poisson),
        "ml, ml poisson": (start, gaussian, poisson),
    }


def noise(integration: bool, raster: bool, sweeps: int) -> None:
    """Tables (c) of one kind of pixel and scan."""
    cases = [twin(integration, raster, draw=draw) for draw in range(2)]
    kind = ("integrating" if integration else "point") + (" pixels, raster" if raster else " pixels, spiral")
    made = table(
        f"(c) noise / shot noise, {kind}: noise, rest (long periods)",
        "engine",
        *(f"{what} {where}" for where in ("vacuum", "flat") for what in ("−ln|O|", "φ")),
    )
    rings = table(
        f"(c) ring correlation of the phase with the truth, {kind}", "engine", "½ bit, nm", "at 200 nm",
        "at 120 nm", "at 80 nm",
    )  # fmt: skip
    for name, stages in noise_recipes(2 if integration else 1, sweeps).items():
        results = [list(run(case.data, case.guess, stages))[-1] for case in cases]
        made.add_row(name, *noise_cells(cases, results))
        rings.add_row(name, *ring_cells(cases[0], results[0]))
    CONSOLE.print(made)
    CONSOLE.print(rings)


def noise_cells(cases: list[Case], results: list[Reconstruction]) -> list[str]:
    """Ratio to the local shot noise of absorbance and phase, in vacuum and in flat matter."""
    one, other = (difference(*each) for each in zip(cases, results, strict=True))
    photons, pixel_m = results[0].illumination.astype(np.float64), cases[0].data.pixel_m
    field = (photons > 0.1 * photons.max()).any(axis=1).sum() * pixel_m[0]
    cells = []
    for region in (one.vacuum & other.vacuum, one.flat & other.flat):
        for a, b in ((one.absorbance, other.absorbance), (one.phase, other.phase)):
            apart, common = (
                noise_vs_shot_limit(values, region, pixel_m, photons, longest_period_m=field / 4)
                for values in ((a - b) / np.sqrt(2), (a + b) / 2)
            )
            rest = np.sqrt(max(common.ratio**2 - apart.ratio**2 / 2, 0))
            cells.append(f"{apart.ratio:.2f}, {rest:.2f} ({common.low_ratio:.2f})")
    return cells


def ring_cells(case: Case, result: Reconstruction) -> list[str]:
    """Resolution by the half-bit criterion and the correlation at some periods."""
    found = difference(case, result)
    region = ndimage.binary_dilation(found.particle, iterations=6) & (
        result.illumination > 0.1 * result.illumination.max()
    )
    rings = fourier_ring_correlation(np.angle(case.truth), np.angle(found.object), case.data.pixel_m, region)
    at = [np.interp(1 / period, rings.frequency, rings.correlation) for period in (200e-9, 120e-9, 80e-9)]
    return [f"{rings.resolution_m() * 1e9:.0f}", *(f"{value:.4f}" for value in at)]


def unmeasured(amplitude: NDArray[np.float32]) -> dict[str, NDArray[np.bool_]]:
    """Pixels that are taken away, of all frames or of each; zero frequency at [0, 0]."""
    rng, nothing = np.random.default_rng(0), np.zeros(amplitude.shape[1:], np.bool_)
    gap = {first: nothing.copy() for first in (48, 20)}
    for first, rows in gap.items():
        rows[first : min(first + 37, len(rows) // 2)] = True
    counts = amplitude**2
    return {
        "nothing": nothing,
        "5 % dead pixels": rng.random(nothing.shape) < 0.05,
        "half of the light, saturated": counts > 0.6 * counts.max(),
        **{f"37 rows from {first} on": rows for first, rows in gap.items()},
    }


def incomplete(sweeps: int) -> None:
    """Table (d)."""
    whole = twin(True)
    stages = EpieOptions(sweeps=5), MlOptions(sweeps=sweeps, groups=4), MlOptions(sweeps=sweeps)
    columns = [f"{what}, {how}" for how in ("as it is", "filled") for what in ("−ln|O|", "φ")]
    made = table("(d) error (bias) in the particle, 10⁻³, integrating pixels", "not measured", *columns)
    for name, pixels in unmeasured(whole.data.amplitude).items():
        light = whole.data.amplitude**2
        seen = float(np.sum(light, where=~pixels) / np.sum(light))  # as `prepare` counts
        data = replace(
            whole.data,
            amplitude=np.where(pixels, np.float32(-1), whole.data.amplitude),
            photons=whole.data.photons * seen,
        )
        case, cells = replace(whole, data=data), []
        for filled in (False, True):
            result = start(data, whole.guess.probe)
            for stage in stages:
                *_, result = run(data, result, (stage,))
                result = fill_unseen_sidebands(data, result) if filled else result
            found = difference(case, result)
            for values in (found.absorbance, found.phase):
                error, bias = robust(values[found.particle])
                cells.append(f"{error * 1e3:.2f} ({bias * 1e3:+.2f})")
        made.add_row(name, *cells)
    CONSOLE.print(made)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer positions, repeats and sweeps")
    parser.add_argument("--only", choices=("a", "b", "c", "d"), help="one set of tables")
    arguments = parser.parse_args()
    quick, wanted = arguments.quick, arguments.only or "abcd"
    with threadpool_limits(1):
        if "a" in wanted:
            speed(quick)
        if "b" in wanted:
            for integration in (False,) if quick else (False, True):
                error_over_time(integration, (1.0, 4.0) if quick else (1.0, 4.0, 16.0))
        if "c" in wanted:
            for integration in (False, True):
                for raster in (False,) if quick else (False, True):
                    noise(integration, raster, 15 if quick else 60)
        if "d" in wanted:
            incomplete(8 if quick else 20)


if __name__ == "__main__":
    main()
