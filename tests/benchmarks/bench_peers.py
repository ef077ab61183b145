"""Speed and error beside other packages: ``python tests/benchmarks/bench_peers.py [--quick]``.

Prints one table: wall seconds per sweep and the relative rms error of the object over the well-lit field
after 5, 20 and 50 sweeps. All start from the same probe and an object of unity, with the same simulated
frames. The others use two threads (--threads), this project one. Each lives in an environment of its own,
PEERS/NAME (default /tmp/peers), and is skipped where that is missing. Only packages of a permissive licence:
pty-chi (Apache with additions), cdtools (MIT). tike needs CUDA.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

PACKAGES = {"ptychi": "ptychi", "cdtools": "cdtools-py"}
RUNS = {  # label: environment, method
    "pty-chi ePIE, batches of 1": ("ptychi", "epie"),
    "pty-chi LSQ-ML, batches of 20": ("ptychi", "lsqml"),
    "cdtools Adam, batches of 15": ("cdtools", "adam"),
}


def of_ptychi(given: Any, method: str) -> Iterator[Callable[[], np.ndarray]]:
    """Run inside the environment of pty-chi: after each sweep, how to get the object (ny, nx)."""
    _without_torchvision()
    import ptychi.api as api
    from ptychi.api.task import PtychographyTask

    options = api.EPIEOptions() if method == "epie" else api.LSQMLOptions()
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.num_epochs = 50
    options.reconstructor_options.batch_size = 1 if method == "epie" else 20
    options.reconstructor_options.displayed_loss_function = None
    options.data_options.fft_shift = False  # zero frequency at [0, 0] already
    pixel = float(given["pixel_m"])
    options.object_options.pixel_size_m = pixel
    middle = np.array(given["guess"].shape) / 2 - np.array(given["probe"].shape) / 2
    y, x = (given["positions"] - middle).T
    task = PtychographyTask(
        options,
        diffraction_data=given["amplitude"] ** 2,
        object_data=given["guess"][None],
        probe_data=given["probe"][None, None],
        probe_position_x_px=x,
        probe_position_y_px=y,
    )
    while True:
        task.run(1)
        yield lambda: task.get_data_to_cpu("object", as_numpy=True)[0]


def _without_torchvision() -> None:
    """Builds of torchvision for CUDA do not load beside a CPU build of torch; its blur is not needed here."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        vision, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
        transforms.GaussianBlur = object  # type: ignore[attr-defined]
        sys.modules.update({"torchvision": vision, "torchvision.transforms": transforms})


def of_cdtools(given: Any, method: str) -> Iterator[Callable[[], np.ndarray]]:
    """Run inside the environment of cdtools: after each sweep, how to get the object (ny, nx)."""
    import torch
    from cdtools.datasets import Ptycho2DDataset
    from cdtools.models import FancyPtycho

    n, pixel, distance, wavelength = len(given["probe"]), float(given["pixel_m"]), 1.0, 1e-10
    pitch = wavelength * distance / (n * pixel)
    y, x = given["positions"].T * pixel
    dataset = Ptycho2DDataset(
        -np.stack([x, y, 0 * x], axis=1),
        np.fft.fftshift(given["amplitude"] ** 2, axes=(1, 2)),
        wavelength=wavelength,
        detector_geometry={
            "distance": distance,
            "basis": np.array([[0, -pitch], [-pitch, 0], [0, 0]]),
            "corner": np.array([n * pitch / 2, n * pitch / 2, distance]),
        },
    )
    model = FancyPtycho.from_dataset(dataset, n_modes=1, obj_padding=2, probe_support_radius=n)
    probe = torch.tensor(given["probe"][None] / abs(complex(model.probe_norm)))
    model.probe.data = probe.to(model.probe.dtype)
    model.obj.data = torch.ones_like(model.obj.data)
    for _ in model.Adam_optimize(50, dataset, lr=0.02, batch_size=15, thread=False):
        yield lambda: np.squeeze(model.obj.detach().numpy())


def work(source: Path, target: Path, environment: str, method: str, marks: list[int]) -> None:
    """What the process of another package does: the objects at `marks` and the seconds until then."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sweeps = {"ptychi": of_ptychi, "cdtools": of_cdtools}[environment](np.load(source), method)
    seconds, objects, begin = [], [], time.perf_counter()
    for sweep, get in enumerate(sweeps, 1):
        if sweep in marks:
            paused = time.perf_counter()
            seconds.append(paused - begin)
            objects.append(np.array(get()))
            begin += time.perf_counter() - paused
        if sweep == marks[-1]:
            break
    np.savez(target, seconds=seconds, objects=objects)


def peers(case: Any, marks: list[int], folder: Path, root: Path, threads: int) -> Iterator[tuple[str, Any]]:
    """Results of every package that is installed, or what to do to install it."""
    source = folder / "data.npz"
    data = case.data
    np.savez(
        source,
        amplitude=data.amplitude,
        positions=data.corner + data.fraction,
        probe=case.guess.probe[0],
        guess=case.guess.object,
        pixel_m=data.pixel_m[0],
    )
    for label, (environment, method) in RUNS.items():
        python = root / environment / "bin" / "python"
        if not python.exists():
            yield label, f"not installed: python -m venv {root / environment}, then in it "
            f"pip install torch (a CPU build) and {PACKAGES[environment]}"
            continue
        target = folder / f"{environment}-{method}.npz"
        arguments = [str(source), str(target), environment, method, *map(str, marks)]
        done = subprocess.run(
            [str(python), __file__, "--work", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
        yield label, np.load(target) if done.returncode == 0 else (done.stderr.strip() or "failed")[-300:]


def ours(case: Any, marks: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results of this project's engines."""
    from ptychrome.analysis.engines import run
    from ptychrome.analysis.options import EpieOptions, MlOptions, RpieOptions

    stages = {
        "ptychrome ePIE": (EpieOptions(sweeps=marks[-1], probe_start=0),),
        "ptychrome rPIE": (RpieOptions(sweeps=marks[-1], probe_start=0),),
        "ptychrome 5 ePIE, then ML": (
            EpieOptions(sweeps=5, probe_start=0),
            MlOptions(sweeps=marks[-1], pixel_points=1),
        ),
    }
    for label, recipe in stages.items():
        for _ in run(case.data, case.guess, tuple(s.model_copy(update={"sweeps": 1}) for s in recipe)):
            pass  # compiled, or read from the cache, before the clock starts
        seconds, objects, begin = [], [], time.perf_counter()
        for sweep, result in enumerate(run(case.data, case.guess, recipe), 1):
            if sweep in marks:
                seconds.append(time.perf_counter() - begin)
                objects.append(result.object)
            if sweep == marks[-1]:
                break
        yield label, {"seconds": seconds, "objects": objects}


def lit_field(case: Any) -> np.ndarray:
    """Object pixels that get a third or more of the brightest one's light."""
    light = np.zeros(case.data.object_shape)
    n = case.guess.probe.shape[-1]
    for row, column in case.data.corner:
        light[row : row + n, column : column + n] += np.abs(case.guess.probe[0]) ** 2
    return light > light.max() / 3


def fitted(obj: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An object of another size, centre on centre."""
    out = np.ones(shape, complex)
    for_out, for_obj = [], []
    for want, have in zip(shape, obj.shape, strict=True):
        count = min(want, have)
        for_out.append(slice((want - count) // 2, (want - count) // 2 + count))
        for_obj.append(slice((have - count) // 2, (have - count) // 2 + count))
    out[tuple(for_out)] = obj[tuple(for_obj)]
    return out


def compare(quick: bool, root: Path, threads: int) -> None:
    """Print the table."""
    from rich.console import Console
    from simulation import object_error, plain, table
    from threadpoolctl import threadpool_limits

    marks = [2, 10] if quick else [5, 20, 50]
    case = plain(128, 8) if quick else plain(256, 14)
    lit = lit_field(case)
    frames, n = case.data.amplitude.shape[:2]
    made = table(f"{frames} frames of {n}²", "package", "s / sweep", *(f"error, {m} sweeps" for m in marks))
    with tempfile.TemporaryDirectory() as folder:
        with threadpool_limits(1):
            found = list(ours(case, marks))
        for label, result in (*found, *peers(case, marks, Path(folder), root, threads)):
            if isinstance(result, str):
                made.add_row(label, result)
                continue
            objects = [fitted(obj, case.data.object_shape) for obj in result["objects"]]
            errors = [f"{object_error(case, obj, lit):.4f}" for obj in objects]
            # between the first and the last mark: what comes before is setting up
            seconds = (result["seconds"][-1] - result["seconds"][0]) / (marks[-1] - marks[0])
            made.add_row(label, f"{seconds:.3f}", *errors)
    Console(width=118).print(made)


def main() -> None:
    """Compare, or do the work of one package where called from its environment."""
    if sys.argv[1:2] == ["--work"]:
        source, target, environment, method, *marks = sys.argv[2:]
        work(Path(source), Path(target), environment, method, [int(m) for m in marks])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 frames of 128², 10 sweeps")
    parser.add_argument("--peers", type=Path, default=Path("/tmp/peers"), help="folder of environments")
    parser.add_argument("--threads", type=int, default=2, help="of the other packages")
    arguments = parser.parse_args()
    compare(arguments.quick, arguments.peers, arguments.threads)


if __name__ == "__main__":
    main()
