"""Figures of results: one page per particle, a table of maps for several, and a sink that keeps pages new.

Maps show the detector's view:
rows and columns as stored, with arrows for the directions of x and y.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptychrome.callbacks.figures.clusters import draw_clusters, draw_scatter, draw_spectra
from ptychrome.callbacks.figures.images import (
    View,
    direction_arrows,
    draw_map,
    draw_probe,
    measured,
    stack_scale,
)
from ptychrome.callbacks.figures.layout import label_of, page, place, save_figure, square
from ptychrome.callbacks.figures.quality import draw_detector_residual, draw_error, draw_ring_correlation
from ptychrome.callbacks.figures.style import Scale, map_scale, map_title, robust_limits
from ptychrome.callbacks.figures.tables import Column, table_of_images
from ptychrome.callbacks.results import Revision

SUMMARY_MAPS = ("edge_energy", "pre_edge_ratio", "n_eff_ratio", "n_v")
CLUSTER_TITLE = "clusters, share of atoms"
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
    figure = page(14.9, CHECK_IN + 0.85, _heading(revision))
    _quality_row(figure, revision, 0.95)
    return figure


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
    figure = page(14.9, 11.35 + CHECK_IN * checked, _heading(revision))
    arrays, view, done = revision.arrays, View.of(revision), measured(revision)
    for left, stack, which in ((0.3, "absorbance", -1), (3.9, "phase", 0)):
        image = arrays[stack][done[which]] if done.size else None
        at = f" at {arrays['energy'][done[which]]:.1f} eV" if done.size else ""
        draw_map(square(figure, left, 0.95), image, view, _grey(stack, image, view), stack + at)
    direction_arrows(figure.axes[0], view)
    for left, top, name in (
        (7.5, 0.95, "n_v"),
        (0.3, 4.45, "edge_energy"),
        (3.9, 4.45, "pre_edge_ratio"),
        (7.5, 4.45, "n_eff_ratio"),
        (11.1, 4.45, "edge_energy_sigma"),
    ):
        scale = map_scale(name, [revision], paper_scales)
        draw_map(square(figure, left, top), arrays.get(f"maps/{name}"), view, scale, map_title(name))
    draw_clusters(square(figure, 11.1, 0.95), revision, view, CLUSTER_TITLE)
    draw_spectra(place(figure, 0.8, 8.0, 5.2, 2.7), revision)
    for left, name in ((7.3, "pre_edge_ratio"), (11.3, "n_eff_ratio")):
        scales = map_scale("edge_energy", [revision], paper_scales), map_scale(name, [revision], paper_scales)
        draw_scatter(place(figure, left, 8.0, 2.9, 2.7), revision, ("edge_energy", name), scales)
    if checked:
        _quality_row(figure, revision, 11.7)
    return figure


def _single_energy_page(revision: Revision) -> Figure:
    checked = _is_checked(revision)
    figure = page(11.1, 10.6 + CHECK_IN * checked, _heading(revision))
    arrays, view = revision.arrays, View.of(revision)
    for left, stack in ((0.3, "absorbance"), (5.8, "phase")):
        image = arrays[stack][0] if measured(revision).size else None
        draw_map(square(figure, left, 0.95, 4.2), image, view, _grey(stack, image, view), stack)
    direction_arrows(figure.axes[0], view)
    if "probe" in arrays:
        probe = arrays["probe"][0]
        # one energy on square frames: its probe has the pixel of the common grid
        pixel_m = view.pixel_m if probe.shape[-2] == probe.shape[-1] else None
        draw_probe(square(figure, 0.3, 5.85, 4.2), probe, pixel_m)
    if "quality/error" in arrays:
        draw_error(place(figure, 6.2, 5.85, 4.2, 4.2), arrays["quality/error"], arrays["energy"])
    if checked:
        _quality_row(figure, revision, 10.95, convergence=False)
    return figure


def _is_checked(revision: Revision) -> bool:
    return "quality/detector_residual" in revision.arrays


def _quality_row(figure: Figure, revision: Revision, top: float, *, convergence: bool = True) -> None:
    if {"quality/frc", "quality/prtf"} & set(revision.tables):
        draw_ring_correlation(place(figure, 0.8, top, 3.6, 2.7), revision)
    if _is_checked(revision):
        draw_detector_residual(square(figure, 7.0, top, 2.7), revision)
    arrays = revision.arrays
    if convergence and "quality/error" in arrays:
        draw_error(place(figure, 11.6, top, 2.9, 2.7), arrays["quality/error"], arrays["energy"])


def _summary_page(revisions: Sequence[Revision], paper_scales: bool) -> Figure:
    columns = [Column.of_map(name, map_scale(name, revisions, paper_scales)) for name in SUMMARY_MAPS]
    figure, rows = table_of_images(revisions, columns, size_in=2.3, spare=1, margin_in=1.15)
    for number, (revision, places) in enumerate(zip(revisions, rows, strict=True)):
        draw_clusters(places[-1], revision, View.of(revision), "" if number else CLUSTER_TITLE)
    return figure


def _grey(stack: str, image: NDArray | None, view: View) -> Scale:
    return stack_scale(stack, None if image is None else robust_limits(view.crop(image)))


def _heading(revision: Revision) -> str:
    attributes, energy = revision.attributes, revision.arrays["energy"]
    energies = f"{attributes.get('energies_done', '?')} of {len(energy)} energies"
    if len(energy) == 1:
        energies = f"{energy[0]:.1f} eV"
    running = "" if revision.final else ", not finished"
    return f"{label_of(revision)}      recipe {attributes.get('recipe', '?')}, {energies}{running}"
