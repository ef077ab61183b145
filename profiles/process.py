"""``ptychrome process``: stored measurements through the same pipeline as a live scan."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ptychrome.analysis.recipe import Recipe
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.executors import InlineExecutor, WorkerProcesses
from ptychrome.callbacks.figures.live import FigureSink
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.progress import ProgressDisplay, Status
from ptychrome.callbacks.raw import SUFFIX, replay
from ptychrome.callbacks.sinks.nexus import NexusSink
from ptychrome.callbacks.sources.cxi import CxiError, documents, read_cxi_set
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.settings import default_workers, load_recipe
from ptychrome.schema import ProbeModel, scan_metadata

Document = tuple[str, Mapping[str, Any]]


def process(
    files: Sequence[Path],
    out: Path,
    *,
    recipe: str = "live",
    probe_fwhm_m: float = 300e-9,
    defocus_m: float = 0.0,
    clusters: int | None = None,
) -> int:
    """Reconstruct and map stored data.

    Parameters
    ----------
    files : sequence of Path
        CXI files and folders of them, or one documents file (``.jsonl``).
    out : Path
        Result, ``.nxs``; a figure of the same name is written beside it.
    recipe : str
        Name of a recipe or path of a TOML file.
    probe_fwhm_m, defocus_m : float
        Calculated start probe, where the files hold none, m.
    clusters : int, optional
        Number of clusters instead of the recipe's.

    Returns
    -------
    int
        Exit status: 0, or 1 if some energies could not be reconstructed.

    Raises
    ------
    UserError
        If the input cannot be used or nothing could be reconstructed; then nothing is written.
    """
    options = load_recipe(recipe, n_clusters=clusters)
    probe = _probe(probe_fwhm_m, defocus_m)
    _check_writable(out)
    energies, source = _source(files, probe)
    problems, status = run_offline(source, out, options, min(default_workers(), energies))
    if status is None or not status.energies_done:
        raise UserError(problems[0] if problems else f"{files[0]}: no complete energy found")
    console = Console(stderr=True)
    console.print(
        f"{status.energies_done} of {status.energies_planned} energies, {status.frames_reconstructed} frames "
        f"in {status.elapsed_s:.0f} s: {out}, {out.with_suffix('.png')}"
    )
    return 1 if problems else 0


def run_offline(
    source: Iterable[Document], out: Path, recipe: Recipe, workers: int
) -> tuple[list[str], Status | None]:
    """Feed documents to the pipeline and wait; what failed, and the last status."""
    problems: list[str] = []
    latest: list[Status] = []
    with ProgressDisplay() as display:

        def report(text: str) -> None:
            problems.append(text)
            display.warn(text)

        def on_status(status: Status) -> None:
            latest[:] = [status]
            display.show(status)

        pipeline = Pipeline(
            recipe,
            WorkerProcesses(workers, report) if workers > 1 else InlineExecutor(),
            [NexusSink(lambda revision: out), FigureSink(lambda revision: out.with_suffix(".png"))],
            in_flight=workers,
            report=report,
            on_status=on_status,
        )
        for name, doc in source:
            pipeline(name, doc)
        pipeline.close()
    return problems, latest[0] if latest else None


def _probe(fwhm_m: float, defocus_m: float) -> ProbeModel:
    if not (fwhm_m > 0 and math.isfinite(fwhm_m)):
        raise UserError(f"--probe-fwhm-m is {fwhm_m}; expected a positive width in metres")
    if not math.isfinite(defocus_m):
        raise UserError(f"--defocus-m is {defocus_m}; expected a distance in metres")
    return ProbeModel(fwhm_m=fwhm_m, defocus_m=defocus_m)


def _check_writable(out: Path) -> None:
    if out.suffix != ".nxs" or out.is_dir():
        raise UserError(f"--out is {out}; expected the name of a file that ends in .nxs")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f"cannot write {out}: {out.parent} is not a writable folder")


def _source(files: Sequence[Path], probe: ProbeModel) -> tuple[int, Iterable[Document]]:
    """Number of energies and the documents of what the user named."""
    try:
        if len(files) == 1 and files[0].suffix == SUFFIX:
            return _stored_documents(files[0])
        cxi_set = read_cxi_set(files)
        return len(cxi_set.files), documents(cxi_set, probe=probe)
    except (CxiError, DataError) as error:
        raise UserError(str(error)) from None


def _stored_documents(path: Path) -> tuple[int, list[Document]]:
    """Number of energies and all documents of a file, read to its end before anything is started."""
    try:
        stored: list[Document] = list(replay(path))
        if not stored or stored[0][0] != "start":
            raise UserError(f"{path} does not begin with a start document; expected a file of one run")
        return len(scan_metadata(stored[0][1]).energies_eV), stored
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a documents file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text; expected one document in JSON per line") from None
    except ValueError as error:  # no document, or a SchemaError
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
