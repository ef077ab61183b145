"""What the demo's results are worth: compared with the truth of the simulation, and shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.dispatch import Report
from ptychrome.callbacks.figures.layout import save_figure
from ptychrome.callbacks.figures.live import results_figure, summary_figure
from ptychrome.callbacks.progress import Status
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import load_result, write_nexus
from ptychrome.callbacks.sinks.tiled import TiledSink
from ptychrome.devices.twin import TwinBeamline
from ptychrome.profiles.live import safe_name
from ptychrome.profiles.pooled import pool_clusters
from ptychrome.profiles.scoring import Score, score
from ptychrome.profiles.session import Session
from ptychrome.profiles.tiled_server import results_container
from ptychrome.schema import FEATURES


def compare(
    session: Session, twins: Mapping[str, TwinBeamline], recipe: Recipe, report: Report
) -> dict[str, Score]:
    """Scores of all particles; those without a result or without maps are reported and left out."""
    found = {name: _mapped(session, name, report) for name in twins}
    mapped = {name: result for name, result in found.items() if result is not None}
    if not mapped:
        return {}
    try:
        results = _pooled(session, mapped, recipe)
    except (OSError, ValueError) as error:
        report(f"{', '.join(mapped)} not compared with the truth: {error}")
        return {}
    return {name: _score(result, twins[name]) for name, result in results.items()}


def _mapped(session: Session, name: str, report: Report) -> Revision | None:
    """The result of a particle, if it can be compared; else what it lacks is reported."""
    try:
        result = load_result(_file(session, name))
    except (OSError, ValueError) as error:
        report(f"{name} not compared with the truth: {error}")
        return None
    nowhere = np.full(1, np.nan)
    empty = [key for key in FEATURES if not np.isfinite(result.arrays.get(f"maps/{key}", nowhere)).any()]
    if empty:
        energies = result.arrays["energy"]
        report(
            f"{name} not compared with the truth: no pixel has {', '.join(empty)} "
            f"({len(energies)} energies from {energies[0]:.0f} to {energies[-1]:.0f} eV)"
        )
        return None
    return result


def _file(session: Session, name: str) -> Path:
    return session.directory / f"{safe_name(name)}.nxs"


def _pooled(session: Session, mapped: Mapping[str, Revision], recipe: Recipe) -> dict[str, Revision]:
    """Results of all particles with their common clusters, written everywhere."""
    results = pool_clusters(mapped, recipe.n_clusters, recipe.clusters)
    for name, result in results.items():
        file = _file(session, name)
        write_nexus(file, result)
        save_figure(results_figure(result), file.with_suffix(".png"))
    save_figure(summary_figure(list(results.values())), session.directory / "summary.png")
    clusters = {
        result.raw_uid: {key: array for key, array in result.arrays.items() if key.startswith("clusters/")}
        for result in results.values()
    }
    TiledSink(results_container(session.server.client())).write_pooled("demo", clusters)
    return results


def _score(result: Revision, twin: TwinBeamline) -> Score:
    pixel_m = abs(float(result.arrays["x"][1] - result.arrays["x"][0]))
    return score(result.arrays, twin.truth(pixel_m, result.arrays["energy"]))


def summary(latest: Mapping[str, Status], scores: Mapping[str, Score]) -> dict[str, Any]:
    """Content of ``--json``; null where there is no number."""
    frames = ("frames_written", "frames_reconstructed", "frames_lost")
    particles = {}
    for name, result in scores.items():
        status = asdict(latest[name])
        particles[name] = {
            field: status[field] for field in ("energies_done", *frames, "lag_s_max", "elapsed_s")
        }
        for title, values in (("errors", result.errors), ("bias", result.bias)):
            particles[name][title] = {key: v if math.isfinite(v) else None for key, v in values.items()}
    return {"particles": particles}


def show(console: Console, latest: Mapping[str, Status], scores: Mapping[str, Score]) -> None:
    table = Table(title="result − truth, over the pixels")
    table.add_column("particle")
    table.add_column("")
    columns = {
        "b2 (eV)": ("edge_energy_eV", 1, ".3f"),
        "PE/Δμt (eV)": ("pre_edge_ratio_eV", 1, ".3f"),
        "N_V (%)": ("n_v_rel", 100, ".1f"),
        "Re N_eff/N_V": ("n_eff_ratio", 1, ".2f"),
        "ARI": ("cluster_ari", 1, ".2f"),
    }
    for title in columns:
        table.add_column(title, justify="right")
    for name, result in scores.items():
        for label, values, sign in (("error", result.errors, ""), ("bias", result.bias, "+")):
            cells = [
                format(scale * values[key], sign + form) if key in values else ""
                for key, scale, form in columns.values()
            ]
            table.add_row(name if label == "error" else "", label, *cells, end_section=label == "bias")
    console.print(table)
    for status in latest.values():
        console.print(
            f"{status.sample_name}: {status.frames_reconstructed} of {status.frames_written} frames in "
            f"{status.elapsed_s:.0f} s, {status.frames_lost} lost, lag at most {status.lag_s_max:.0f} s"
        )
