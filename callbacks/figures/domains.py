"""Sizes of the domains of each state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ptychrome.analysis.domains import Chords, chords, resolved
from ptychrome.callbacks.figures.images import View, frame_plot
from ptychrome.callbacks.figures.layout import page, place
from ptychrome.callbacks.figures.states import draw_bars
from ptychrome.callbacks.figures.style import LINES, cluster_colours
from ptychrome.callbacks.results import Revision


def chords_of(revisions: Sequence[Revision]) -> Chords:
    """Chords of the domains of several particles together, without seams that are not resolved."""
    labels = [(each.arrays["clusters/label"], View.of(each).pixel_m) for each in revisions]
    parts = [chords(resolved(label, pixel_m), pixel_m) for label, pixel_m in labels]
    return Chords(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("length_m", "label", "ends", "along_x")
        )
    )


def domains_figure(groups: Mapping[str, Sequence[Revision]]) -> Figure:
    """Distribution of chord lengths of each state, and their means by preparation.

    Parameters
    ----------
    groups : mapping of str to sequence of Revision
        Particles of each state of preparation, clustered together.
    """
    figure = page(10.0, 4.0)
    first = next(iter(groups.values()))[0]
    k = len(first.arrays["clusters/fractions"])
    colours = cluster_colours(k)
    ax, means, errors = place(figure, 0.75, 0.5, 4.7, 2.9), {}, {}
    for (group, revisions), line in zip(groups.items(), LINES * len(groups), strict=False):
        found = chords_of(revisions)
        means[group] = 1e9 * found.mean_m(k)
        each = np.array([chords_of([revision]).mean_m(k) for revision in revisions])
        known = np.isfinite(each).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = np.nansum(each, axis=0) / known
            spread = np.sqrt(np.nansum((each - centre) ** 2, axis=0) / (known - 1.0) / known)
        errors[group] = np.where(known > 1, 1e9 * spread, np.nan)
        for state, colour in enumerate(colours):
            length = found.whole(state)
            if length.size:
                percent = 100 * np.arange(1, length.size + 1) / length.size
                ax.step(1e9 * length, percent, line, where="post", color=colour, linewidth=1.2)
        ax.plot([], [], line, color="0.4", label=group)
    for state, colour in enumerate(colours):
        ax.plot([], [], "-", color=colour, linewidth=3, label=f"state {state}")
    ax.set(xlabel="chord length (nm)", ylabel="chords not longer (%)", ylim=(0, 102))
    ax.set_xlim(left=0)
    ax.legend(loc="lower right", frameon=False)
    frame_plot(ax, "chords between two other states")
    bars = place(figure, 6.3, 0.5, 3.4, 2.9)
    draw_bars(bars, means, errors, colours, "mean chord (nm)")
    return figure
