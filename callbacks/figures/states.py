"""Chemical states of several particles clustered together: maps, mean spectra, shares, domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from ptychrome.analysis.bulk import BulkSpectrum
from ptychrome.callbacks.figures.bulk import draw_bulk
from ptychrome.callbacks.figures.clusters import PRE_EDGE_POINTS, draw_clusters
from ptychrome.callbacks.figures.images import View, direction_arrows, frame_plot
from ptychrome.callbacks.figures.layout import page, place, square
from ptychrome.callbacks.figures.style import INK, cluster_colours, cluster_markers
from ptychrome.callbacks.results import Revision

HATCHES = ("", "////", "....", "xxxx")
PER_LINE = 3
Float = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Share of the edge's atoms in each state.

    Attributes
    ----------
    value, sigma : (k,) float64
        NaN where unknown.
    """

    value: Float
    sigma: Float


def cluster_maps_figure(revisions: Sequence[Revision], *, labels: Sequence[str]) -> Figure:
    """The map of states of each particle with its shares, three in a line."""
    lines = -(-len(revisions) // PER_LINE)
    figure = page(10.0, 0.25 + 2.75 * lines)
    for number, (revision, label) in enumerate(zip(revisions, labels, strict=True)):
        line, column = divmod(number, PER_LINE)
        ax = square(figure, 0.2 + 3.25 * column, 0.45 + 2.75 * line, 2.15)
        view = View.of(revision)
        draw_clusters(ax, revision, view, label)
        _number_states(ax, view, revision)
        if not number:
            direction_arrows(ax, view)
    return figure


def _number_states(ax: Axes, view: View, revision: Revision) -> None:
    """Write the number of each state into the middle of its widest domain."""
    if "clusters/label" not in revision.arrays:
        return
    shown = view.crop(revision.arrays["clusters/label"])
    for state in range(len(revision.arrays["clusters/fractions"])):
        depth = ndimage.distance_transform_edt(np.pad(shown == state, 1))[1:-1, 1:-1]
        if depth.max() >= 2.0:  # pixels: there is room for a number
            row, column = np.unravel_index(np.argmax(depth), depth.shape)
            ax.text(float(column), float(row), str(state), ha="center", va="center", color=INK,
                    path_effects=[withStroke(linewidth=2.2, foreground="white")])  # fmt: skip


def state_spectra(revisions: Sequence[Revision]) -> tuple[Float, Float]:
    """Mean spectrum of each state over all particles, less its value below the edge, over its edge jump.

    Parameters
    ----------
    revisions : sequence of Revision
        Clustered together. Spectra at other energies than those of the first with most energies are
        interpolated.

    Returns
    -------
    energy_eV : (n,) float64
    spectra : (k, n) float64
        NaN where missing.
    """
    energy = max((each.arrays["energy"] for each in revisions), key=len)
    k = len(revisions[0].arrays["clusters/fractions"])
    total, amount, jumps = np.zeros((k, len(energy))), np.zeros((k, len(energy))), np.zeros((k, 2))
    for revision in revisions:
        arrays = revision.arrays
        n_v, jump = (np.nan_to_num(arrays[f"maps/{name}"]).astype(float) for name in ("n_v", "edge_jump"))
        for state in range(k):
            inside = arrays["clusters/label"] == state
            weight = float(n_v[inside].sum())
            spectrum = _at(energy, arrays["energy"], np.asarray(arrays["clusters/spectra"][state], float))
            known = np.isfinite(spectrum)
            total[state, known] += weight * spectrum[known]
            amount[state, known] += weight
            jumps[state] += float(np.sum((n_v * jump)[inside])), weight
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, jump = total / amount, jumps[:, 0] / jumps[:, 1]
        for spectrum, scale in zip(mean, jump, strict=True):
            known = np.flatnonzero(np.isfinite(spectrum))
            spectrum -= spectrum[known[:PRE_EDGE_POINTS]].mean() if known.size else 0.0
            spectrum /= scale
    return energy, mean


def _at(energy_eV: Float, measured_eV: Float, spectrum: Float) -> Float:
    known = np.isfinite(spectrum)
    if known.sum() < 2:
        return np.full(len(energy_eV), np.nan)
    return np.interp(energy_eV, measured_eV[known], spectrum[known], left=np.nan, right=np.nan)


def states_figure(
    revisions: Sequence[Revision], shares: Mapping[str, Shares], bulk: Sequence[BulkSpectrum] = ()
) -> Figure:
    """Mean spectra of the states, and their shares in each group of particles.

    Parameters
    ----------
    revisions : sequence of Revision
        Clustered together.
    shares : mapping of str to Shares
        Of each group.
    bulk : sequence of BulkSpectrum
        Drawn over the spectra of the states.
    """
    figure = page(10.0, 4.0)
    energy, spectra = state_spectra(revisions)
    ax = place(figure, 0.75, 0.5, 4.7, 2.9)
    colours, markers = cluster_colours(len(spectra)), cluster_markers(len(spectra))
    for state, (spectrum, colour, marker) in enumerate(zip(spectra, colours, markers, strict=True)):
        known = np.isfinite(spectrum)
        ax.plot(energy[known], spectrum[known], "-", color=colour, linewidth=1.1, marker=marker,
                markersize=3.5, label=f"state {state}")  # fmt: skip
    draw_bulk(ax, bulk)
    ax.set(xlabel="photon energy (eV)", ylabel="normalised absorbance")
    ax.legend(loc="lower right", frameon=False)
    frame_plot(ax, "mean XANES of the states")
    values, sigmas = (
        {group: 100 * getattr(share, name) for group, share in shares.items()} for name in ("value", "sigma")
    )
    draw_bars(place(figure, 6.3, 0.5, 3.4, 2.9), values, sigmas, colours, "share of atoms (%)")
    return figure


def draw_bars(
    ax: Axes, values: Mapping[str, Float], sigmas: Mapping[str, Float], colours: Sequence[str], label: str
) -> None:
    """Bars of each group side by side for every state, with one standard deviation.

    Parameters
    ----------
    ax : Axes
    values, sigmas : mapping of str to (k,) float64
        Of each group; NaN where unknown.
    colours : sequence of k colours
    label : str
        Quantity and unit.
    """
    width, k = 0.8 / len(values), len(colours)
    for number, group in enumerate(values):
        at = np.arange(k) + (number - (len(values) - 1) / 2) * width
        ax.bar(at, values[group], 0.92 * width, yerr=sigmas[group], color=colours, edgecolor="white",
               hatch=HATCHES[number % len(HATCHES)], linewidth=0, capsize=3,
               error_kw={"elinewidth": 1.0, "ecolor": INK})  # fmt: skip
    handles = [
        Patch(facecolor="0.6", edgecolor="white", hatch=HATCHES[number % len(HATCHES)], label=group)
        for number, group in enumerate(values)
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.99), frameon=False, ncols=2,
              borderaxespad=0.0, handlelength=1.6, columnspacing=1.2)  # fmt: skip
    ax.set(xlabel="state", ylabel=label, xticks=range(k))
    ax.set_ylim(bottom=0)
    frame_plot(ax, "")
