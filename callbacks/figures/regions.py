"""Spectra of regions of interest with their fits, and where on the particle they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ptychrome.analysis.bulk import BulkSpectrum
from ptychrome.callbacks.figures.bulk import draw_bulk
from ptychrome.callbacks.figures.clusters import PRE_EDGE_POINTS
from ptychrome.callbacks.figures.images import View, draw_map, frame_plot
from ptychrome.callbacks.figures.layout import page, place, square
from ptychrome.callbacks.figures.particles import image_at
from ptychrome.callbacks.figures.style import INK, Scale, cluster_colours, cluster_markers
from ptychrome.callbacks.regions import RegionSpectrum
from ptychrome.callbacks.results import Revision

ROW_IN, ENTRY_IN, LINE_IN = 3.1, 0.4, 0.2


def regions_figure(
    revisions: Sequence[Revision],
    spectra: Sequence[Sequence[RegionSpectrum]],
    energy_eV: float,
    scale: Scale,
    *,
    labels: Sequence[str],
    bulk: Sequence[BulkSpectrum] = (),
) -> Figure:
    """A row for each particle: the regions on its absorbance, and their spectra one above the other.

    Parameters
    ----------
    revisions : sequence of Revision
    spectra : sequence of sequence of RegionSpectrum
        Of each particle, at least one.
    energy_eV : float
        Of the absorbance.
    scale : Scale
        Of the absorbance.
    labels : sequence of str
    bulk : sequence of BulkSpectrum
        Drawn behind each spectrum, with its edge jump.
    """
    row_in = max(ROW_IN, ENTRY_IN * max(map(len, spectra)) + LINE_IN * len(bulk) + 0.4)
    figure = page(10.0, 0.3 + row_in * len(revisions))
    for row, (revision, found, label) in enumerate(zip(revisions, spectra, labels, strict=True)):
        top, view = 0.45 + row_in * row, View.of(revision)
        energy, image = image_at(revision, "absorbance", energy_eV)
        ax = square(figure, 0.2, top, 2.3)
        draw_map(ax, image, view, scale, f"{label}, {energy:.1f} eV", colour_bar=False)
        k = len(revision.arrays.get("clusters/fractions", ()))
        colours = [*cluster_colours(k), INK]  # of state −1: none
        markers = [*cluster_markers(k), "o"]
        for each in found:
            _mark(ax, view, each, colours[each.region.state])
        plot = place(figure, 3.3, top, 3.8, 2.3)
        _draw_spectra(plot, found, colours, markers, bulk)
        plot.set_title("μt of the regions and fits of eq. (1)", loc="left", fontsize=11.5)
    return figure


def _mark(ax: Axes, view: View, spectrum: RegionSpectrum, colour: str) -> None:
    region = spectrum.region
    left, top = region.column - view.columns.start - 0.5, region.row - view.rows.start - 0.5
    outline = [withStroke(linewidth=3.2, foreground="white")]
    ax.add_patch(
        Rectangle(
            (left, top), region.pixels, region.pixels, fill=False, edgecolor=colour, linewidth=1.8,
            path_effects=outline,
        )
    )  # fmt: skip
    middle = left + region.pixels / 2, top + region.pixels / 2
    ax.text(*middle, region.name, ha="center", va="center", color=INK, path_effects=outline)


def _draw_spectra(
    ax: Axes,
    spectra: Sequence[RegionSpectrum],
    colours: Sequence[str],
    markers: Sequence[str],
    bulk: Sequence[BulkSpectrum],
) -> None:
    step = 0.45 * max(float(np.ptp(each.absorbance)) for each in spectra)
    step = float(f"{step:.1g}")
    for number, each in enumerate(spectra):
        colour, offset = colours[each.region.state], step * (len(spectra) - 1 - number)
        ax.plot(each.curve_eV, each.curve + offset, "-", color=colour, linewidth=1.1)
        ax.plot(
            each.energy_eV, each.absorbance + offset, linestyle="none", color=colour, markersize=3.4,
            marker=markers[each.region.state], markerfacecolor="white", markeredgewidth=0.8,
            label=_legend(each),
        )  # fmt: skip
    ax.margins(x=0.02)
    for number, each in enumerate(spectra):
        base = each.absorbance[:PRE_EDGE_POINTS].mean() + step * (len(spectra) - 1 - number)
        draw_bulk(ax, bulk, jump=each.values["edge_jump"][0], offset=base, named=not number)
    label = "absorbance μt" + (f" (shifted by {step:g})" if len(spectra) > 1 else "")
    ax.set(xlabel="photon energy (eV)", ylabel=label)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), frameon=False, borderaxespad=0.0,
              handletextpad=0.3, labelspacing=0.45)  # fmt: skip
    frame_plot(ax, "")


def _legend(spectrum: RegionSpectrum) -> str:
    edge, ratio = (spectrum.values[name] for name in ("edge_energy", "pre_edge_ratio"))
    region = spectrum.region
    state = f", state {region.state}" if region.state >= 0 else ""
    return (
        f"{region.name}{state}: $b_2$ {edge[0]:.2f} ± {edge[1]:.2f} eV\n"
        f"PE/Δμt {ratio[0]:.2f} ± {ratio[1]:.2f} eV"
    )
