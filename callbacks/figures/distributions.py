"""How the chemical quantities are distributed over the atoms of each particle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ptychrome.callbacks.figures.images import frame_plot
from ptychrome.callbacks.figures.layout import page, place
from ptychrome.callbacks.figures.style import axis_label, cluster_colours, robust_limits
from ptychrome.callbacks.results import Revision
from ptychrome.schema import FEATURES

BINS = 50
ROW_IN = 1.5
HEADROOM = 1.45  # above the highest bar: for the name of the particle
Float = NDArray[np.float64]


def histograms_figure(revisions: Sequence[Revision], *, labels: Sequence[str]) -> Figure:
    """Histograms of the three features in each particle, stacked by state, weighted by N_V.

    Parameters
    ----------
    revisions : sequence of Revision
        Clustered together.
    labels : sequence of str
    """
    figure = page(10.0, 1.2 + ROW_IN * len(revisions))
    k = len(revisions[0].arrays["clusters/fractions"])
    colours = cluster_colours(k)
    for column, name in enumerate(FEATURES):
        edges = np.linspace(*feature_limits(revisions, name), BINS + 1)
        counts = [_counts(revision, name, edges, k) for revision in revisions]
        highest = HEADROOM * max(float(each.sum(axis=0).max()) for each in counts)
        for row, (each, label) in enumerate(zip(counts, labels, strict=True)):
            ax = place(figure, 0.75 + 3.15 * column, 0.75 + ROW_IN * row, 2.75, ROW_IN - 0.3)
            _draw_stack(ax, edges, each, colours)
            ax.set(xlim=(edges[0], edges[-1]), ylim=(0, highest))
            ax.tick_params(labelbottom=row == len(labels) - 1)
            if row == len(labels) - 1:
                ax.set_xlabel(axis_label(name))
            if not column:
                ax.set_ylabel("atoms (%)")
            ax.text(0.03, 0.93, label, transform=ax.transAxes, ha="left", va="top")
    handles = [Patch(facecolor=colour, label=f"state {state}") for state, colour in enumerate(colours)]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.065, 1 - 0.2 / figure.get_figheight()),
                  ncols=min(k, 8), frameon=False, borderaxespad=0.0, handlelength=1.0)  # fmt: skip
    return figure


def feature_limits(revisions: Sequence[Revision], name: str) -> tuple[float, float]:
    """A range that holds nearly all pixels of all particles."""
    low, high = robust_limits(np.concatenate([each.arrays[f"maps/{name}"].ravel() for each in revisions]))
    return low - 0.1 * (high - low), high + 0.1 * (high - low)


def _counts(revision: Revision, name: str, edges: Float, k: int) -> Float:
    """Percent of the particle's atoms in each bin, (k, bins)."""
    arrays = revision.arrays
    n_v, label, values = arrays["maps/n_v"], arrays["clusters/label"], arrays[f"maps/{name}"]
    total = float(n_v[label >= 0].sum()) or 1.0
    rows = []
    for state in range(k):
        inside = label == state
        rows.append(np.histogram(values[inside], edges, weights=n_v[inside])[0])
    return 100 * np.array(rows) / total


def _draw_stack(ax: Axes, edges: Float, counts: Float, colours: Sequence[str]) -> None:
    base = np.zeros(counts.shape[1])
    for row, colour in zip(counts, colours, strict=True):
        ax.stairs(base + row, edges, baseline=base, fill=True, facecolor=colour, edgecolor="none")
        base = base + row
    frame_plot(ax, "")
