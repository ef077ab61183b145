"""Figures of results: one page per particle, a table of maps for several, and a sink that keeps pages new.

Figures are objects of their own (no pyplot), so that any thread may draw. Maps show the detector's view:
rows and columns as stored, with arrows for the directions of x and y.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ptychrome.callbacks.files import write_atomically
from ptychrome.callbacks.panels import (
    Scale,
    View,
    direction_arrows,
    draw_clusters,
    draw_detector_residual,
    draw_error,
    draw_map,
    draw_probe,
    draw_ring_correlation,
    draw_scatter,
    draw_spectra,
    map_title,
    measured,
    robust_limits,
)
from ptychrome.callbacks.results import Revision
from ptychrome.schema import MAPS

DPI = 200
COLOUR_MAPS = {
    "edge_energy": "viridis",
    "edge_energy_sigma": "YlOrBr",
    "pre_edge_ratio": "plasma",
    "n_eff_ratio": "cividis",
    "n_v": "magma",
}
RATIO_LIMITS = (30.0, 50.0)  # the paper's 0 to 100 leaves little contrast between vanadium oxides
SIGMA_LIMITS = (0.0, 0.5)  # eV; the default mask lets no more pass
SUMMARY_MAPS = ("edge_energy", "pre_edge_ratio", "n_eff_ratio", "n_v")
CLUSTER_TITLE = "clusters, share of atoms"
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
DRAWING_SHARE = 0.1  # of the time that a live figure may take


CHECK_IN = 3.75  # height of the row of quality figures


def results_figure(revision: Revision, *, paper_scales: bool = False) -> Figure:
    """One page: the maps, the clusters and their spectra; of a single energy object, probe and convergence.

    Where the quality was checked, a row with what was found is at the bottom.

    Parameters
    ----------
    revision : Revision
        May be partial: what is not there yet leaves its place empty.
    paper_scales : bool
        Draw Re[N_eff]/N_V from 0 to 100 as in the paper instead of 30 to 50.

    Returns
    -------
    Figure
    """
    if len(revision.arrays["energy"]) == 1:
        return _single_energy_page(revision)
    return _spectro_page(revision, paper_scales)


def summary_figure(revisions: Sequence[Revision], *, paper_scales: bool = False) -> Figure:
    """Several particles: a row for each, a column for each map, one colour scale per column.

    Cluster colours compare across rows only if the particles were clustered together.

    Parameters
    ----------
    revisions : sequence of Revision
    paper_scales : bool
        See `results_figure`.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there are no revisions.
    """
    if not revisions:
        raise ValueError("no results to draw; expected at least one revision")
    return _summary_page(revisions, paper_scales)


def quality_figure(revision: Revision) -> Figure:
    """Ring correlation with its resolutions, residual on the detector and convergence in one row.

    Parameters
    ----------
    revision : Revision
        What is not there leaves its place empty.

    Returns
    -------
    Figure
    """
    figure = _page(14.9, CHECK_IN + 0.85, _heading(revision))
    _quality_row(figure, revision, 0.95)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of 200 dots per inch.

    Parameters
    ----------
    figure : Figure
    path : Path

    Raises
    ------
    ptychrome.callbacks.files.WriteError
        If it cannot be written; a picture that was there before stays.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_atomically(path, buffer.getbuffer())


class FigureSink:
    """Keeps one picture per run up to date; while a run goes on, drawing takes a tenth of the time at most.

    Parameters
    ----------
    path : callable
        From a revision to the file, ``.png``.
    paper_scales : bool
        See `results_figure`.
    """

    def __init__(self, path: Callable[[Revision], Path], *, paper_scales: bool = False) -> None:
        self._path = path
        self._paper_scales = paper_scales
        self._undrawn: dict[str, Revision] = {}
        self._next_s = 0.0

    def write(self, revision: Revision) -> None:
        """Draw one revision, or leave it to a later one when the last drawing was a moment ago.

        Raises
        ------
        ptychrome.callbacks.files.WriteError
            If the picture cannot be written.
        """
        self._undrawn[revision.raw_uid] = revision
        began_s = time.monotonic()
        if revision.final or began_s >= self._next_s:
            self._draw(revision)
            now_s = time.monotonic()
            self._next_s = now_s + (now_s - began_s) / DRAWING_SHARE

    def close(self) -> None:
        """Draw what was left out.

        Raises
        ------
        ptychrome.callbacks.files.WriteError
            See `write`.
        """
        for revision in list(self._undrawn.values()):
            self._draw(revision)

    def _draw(self, revision: Revision) -> None:
        save_figure(results_figure(revision, paper_scales=self._paper_scales), self._path(revision))
        del self._undrawn[revision.raw_uid]


def _spectro_page(revision: Revision, paper_scales: bool) -> Figure:
    checked = _is_checked(revision)
    figure = _page(14.9, 11.35 + CHECK_IN * checked, _heading(revision))
    arrays, view, done = revision.arrays, View.of(revision), measured(revision)
    for left, stack, place in ((0.3, "absorbance", -1), (3.9, "phase", 0)):
        image = arrays[stack][done[place]] if done.size else None
        at = f" at {arrays['energy'][done[place]]:.1f} eV" if done.size else ""
        draw_map(_square(figure, left, 0.95), image, view, _stack_scale(stack, image, view), stack + at)
    direction_arrows(figure.axes[0], view)
    for left, top, name in (
        (7.5, 0.95, "n_v"),
        (0.3, 4.45, "edge_energy"),
        (3.9, 4.45, "pre_edge_ratio"),
        (7.5, 4.45, "n_eff_ratio"),
        (11.1, 4.45, "edge_energy_sigma"),
    ):
        scale = _scale(name, [revision], paper_scales)
        draw_map(_square(figure, left, top), arrays.get(f"maps/{name}"), view, scale, map_title(name))
    draw_clusters(_square(figure, 11.1, 0.95), revision, view, CLUSTER_TITLE)
    draw_spectra(_place(figure, 0.8, 8.0, 5.2, 2.7), revision)
    for left, name in ((7.3, "pre_edge_ratio"), (11.3, "n_eff_ratio")):
        scales = _scale("edge_energy", [revision], paper_scales), _scale(name, [revision], paper_scales)
        draw_scatter(_place(figure, left, 8.0, 2.9, 2.7), revision, ("edge_energy", name), scales)
    if checked:
        _quality_row(figure, revision, 11.7)
    return figure


def _single_energy_page(revision: Revision) -> Figure:
    checked = _is_checked(revision)
    figure = _page(11.1, 10.6 + CHECK_IN * checked, _heading(revision))
    arrays, view = revision.arrays, View.of(revision)
    for left, stack in ((0.3, "absorbance"), (5.8, "phase")):
        image = arrays[stack][0] if measured(revision).size else None
        draw_map(_square(figure, left, 0.95, 4.2), image, view, _stack_scale(stack, image, view), stack)
    direction_arrows(figure.axes[0], view)
    if "probe" in arrays:
        probe = arrays["probe"][0]
        # one energy on square frames: its probe has the pixel of the common grid
        pixel_m = view.pixel_m if probe.shape[-2] == probe.shape[-1] else None
        draw_probe(_square(figure, 0.3, 5.85, 4.2), probe, pixel_m)
    if "quality/error" in arrays:
        draw_error(_place(figure, 6.2, 5.85, 4.2, 4.2), arrays["quality/error"], arrays["energy"])
    if checked:
        _quality_row(figure, revision, 10.95, convergence=False)
    return figure


def _is_checked(revision: Revision) -> bool:
    return "quality/detector_residual" in revision.arrays


def _quality_row(figure: Figure, revision: Revision, top: float, *, convergence: bool = True) -> None:
    if {"quality/frc", "quality/prtf"} & set(revision.tables):
        draw_ring_correlation(_place(figure, 0.8, top, 3.6, 2.7), revision)
    if _is_checked(revision):
        draw_detector_residual(_square(figure, 7.0, top, 2.7), revision)
    arrays = revision.arrays
    if convergence and "quality/error" in arrays:
        draw_error(_place(figure, 11.6, top, 2.9, 2.7), arrays["quality/error"], arrays["energy"])


def _summary_page(revisions: Sequence[Revision], paper_scales: bool) -> Figure:
    size, pitch = 2.3, (2.75, 2.45)
    bottom = 0.5 + pitch[0] * len(revisions)
    figure = _page(0.6 + pitch[1] * (len(SUMMARY_MAPS) + 1) + 1.0, bottom + 0.75)
    scales = [_scale(name, revisions, paper_scales) for name in SUMMARY_MAPS]
    for row, revision in enumerate(revisions):
        view, top = View.of(revision), 0.5 + pitch[0] * row
        places = [_square(figure, 0.6 + pitch[1] * column, top, size) for column in range(len(scales) + 1)]
        for ax, name, scale in zip(places, SUMMARY_MAPS, scales, strict=False):
            image, title = revision.arrays.get(f"maps/{name}"), "" if row else map_title(name)
            draw_map(ax, image, view, scale, title, colour_bar=False)
        draw_clusters(places[-1], revision, view, "" if row else CLUSTER_TITLE)
        places[0].set_ylabel(_label(revision), fontsize=14)
        if not row:
            direction_arrows(places[0], view)
    for column, (name, scale) in enumerate(zip(SUMMARY_MAPS, scales, strict=True)):
        bar_axes = _place(figure, 0.6 + pitch[1] * column + 0.05, bottom + 0.05, size - 0.1, 0.13)
        bar = figure.colorbar(places[column].images[0], cax=bar_axes, orientation="horizontal", extend="both")
        bar.set_label(scale.unit or map_title(name))
    return figure


def _page(width_in: float, height_in: float, heading: str = "") -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.3 / width_in, 1 - 0.38 / height_in, heading, fontsize=15, va="center")
    return figure


def _place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes by their distance from the upper left corner, inches: every revision has the same layout."""
    whole_width, whole_height = figure.get_size_inches()
    bottom = whole_height - top - height
    return figure.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    )


def _square(figure: Figure, left: float, top: float, size: float = 2.75) -> Axes:
    return _place(figure, left, top, size, size)


def _label(revision: Revision) -> str:
    return revision.sample_name or revision.raw_uid[:8]


def _heading(revision: Revision) -> str:
    attributes, energy = revision.attributes, revision.arrays["energy"]
    energies = f"{attributes.get('energies_done', '?')} of {len(energy)} energies"
    if len(energy) == 1:
        energies = f"{energy[0]:.1f} eV"
    running = "" if revision.final else ", not finished"
    return f"{_label(revision)}      recipe {attributes.get('recipe', '?')}, {energies}{running}"


def _stack_scale(name: str, image: np.ndarray | None, view: View) -> Scale:
    """White for vacuum, black for matter."""
    limits = (0.0, 1.0) if image is None else robust_limits(view.crop(image))
    return Scale("gray", limits, "rad") if name == "phase" else Scale("gray_r", limits, "μt")


def _scale(name: str, revisions: Sequence[Revision], paper_scales: bool) -> Scale:
    """Fixed limits, so that particles compare; of N_V, and at another edge, those of the data."""
    info, cmap, key = MAPS[name.removesuffix("_sigma")], COLOUR_MAPS[name], f"maps/{name}"
    if name.endswith("_sigma"):
        return Scale(cmap, SIGMA_LIMITS, info.unit)
    images = [revision.arrays[key].ravel() for revision in revisions if key in revision.arrays]
    low, high = robust_limits(np.concatenate(images)) if images else (0.0, 1.0)
    if name == "n_v":
        power = int(np.floor(np.log10(high))) if high > 0 else 0
        unit = f"10{str(power).translate(SUPERSCRIPTS)} {info.unit}"
        return Scale(cmap, (0.0, high / 10.0**power), unit, 10.0**power)
    limits = RATIO_LIMITS if name == "n_eff_ratio" and not paper_scales else info.limits
    if limits is None or (images and (high < limits[0] or low > limits[1])):
        limits = (low, high)
    return Scale(cmap, limits, "" if info.unit == "1" else info.unit)
