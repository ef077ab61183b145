"""Figures that tell how many chemical states there are and how far apart they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ptychrome.analysis.cluster_count import STABLE, StateCount
from ptychrome.analysis.densities import density
from ptychrome.callbacks.figures.distributions import feature_limits
from ptychrome.callbacks.figures.images import frame_plot
from ptychrome.callbacks.figures.layout import page
from ptychrome.callbacks.figures.style import (
    CLUSTER_COLOURS,
    INK,
    LINES,
    axis_label,
    cluster_colours,
    cluster_markers,
)
from ptychrome.callbacks.results import Revision
from ptychrome.schema import FEATURES, MAPS

MOST_POINTS = 4_000  # in the 3-D scatter: more only cover each other
CONTOUR = 0.5  # of a state's highest density
WIDTH_IN = 10.0
Float = NDArray[np.float64]
Limits = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Pixels:
    """Clustered pixels of several particles.

    Attributes
    ----------
    features : (n, 3) float64
        See `schema.FEATURES`.
    n_v : (n,) float64
    label : (n,) int32
    k : int
    limits : tuple of 3 pairs
        Ranges that hold nearly all pixels.
    """

    features: Float
    n_v: Float
    label: NDArray[np.int32]
    k: int
    limits: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, revisions: Sequence[Revision], limits: Limits | None) -> _Pixels:
        clustered = [each for each in revisions if "clusters/label" in each.arrays]
        if not clustered:
            raise ValueError("no clusters to draw; expected at least one result with maps and clusters")
        names = ("clusters/label", *(f"maps/{name}" for name in (*FEATURES, "n_v")))
        label, *maps = (np.concatenate([each.arrays[name].ravel() for each in clustered]) for name in names)
        *features, n_v = (values[label >= 0].astype(float) for values in maps)
        return cls(
            np.stack(features, axis=1),
            n_v,
            label[label >= 0],
            len(clustered[0].arrays["clusters/fractions"]),
            tuple(limits or (feature_limits(clustered, name) for name in FEATURES)),
        )

    def state_density(self, state: int, axes: Sequence[int]) -> tuple[tuple[Float, ...], Float] | None:
        """Density of one state's atoms, which integrates to its share; None without pixels."""
        inside = self.label == state
        if not inside.any():
            return None
        share = self.n_v[inside].sum() / self.n_v.sum()
        limits = [self.limits[axis] for axis in axes]
        grid, values = density(self.features[inside][:, list(axes)], self.n_v[inside], limits)
        return grid, share * values


def state_count_figure(count: StateCount) -> Figure:
    """Elbow, silhouette, BIC, gap and stability against the number of states; the proposed one marked.

    Parameters
    ----------
    count : StateCount

    Returns
    -------
    Figure
    """
    figure = page(WIDTH_IN, 5.6)
    panels: Sequence[tuple[str, str, Float, Float | None]] = (
        ("elbow", "mean square distance", count.inertia, None),
        ("silhouette: high is good", "silhouette", count.silhouette, None),
        ("mixture: low is good", "BIC per pixel", count.bic, None),
        ("gap: good where it levels off", "gap statistic", count.gap, count.gap_sigma),
        ("halves: near 1 is good", "stability (ARI)", count.stability, None),
    )
    grid = figure.add_gridspec(2, 3, left=0.075, right=0.985, top=0.93, bottom=0.09, hspace=0.42, wspace=0.36)
    for place, (title, label, values, sigma) in enumerate(panels):
        ax = figure.add_subplot(grid[divmod(place, 3)])
        ax.axvline(count.proposed, color="0.75", linewidth=5, zorder=0)
        ax.errorbar(count.ks, values, sigma, color=CLUSTER_COLOURS[0], marker="o", markersize=4, capsize=3)
        ax.set(xlabel="number of states k", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        frame_plot(ax, title)
    figure.axes[4].axhline(STABLE, color=INK, linestyle=":", linewidth=1)
    figure.axes[0].set_ylim(bottom=0)
    rule = f"(stability of at least {STABLE:g},\ndotted) the highest silhouette"
    text = f"grey: k = {count.proposed} is proposed,\nof those that repeat\n{rule}"
    figure.text(0.70, 0.40, text, va="top", linespacing=1.35)
    return figure


def densities_figure(revisions: Sequence[Revision], limits: Limits | None = None) -> Figure:
    """Densities of the three features, and of each two of them, over the atoms of all particles.

    Above the sum of all states, black, on the states stacked in their colours; below the sum in grey with
    each state's contour at half of its height.

    Parameters
    ----------
    revisions : sequence of Revision
        Clustered together; those without clusters are left out.
    limits : sequence of 3 pairs, optional
        Range of each feature; default: what holds nearly all pixels.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If none has clusters.
    """
    pixels, figure = _Pixels.of(revisions, limits), page(WIDTH_IN, 6.6)
    grid = figure.add_gridspec(2, 3, left=0.075, right=0.985, top=0.92, bottom=0.085, hspace=0.3, wspace=0.32)
    for axis in range(3):
        _draw_density(figure.add_subplot(grid[0, axis]), pixels, axis)
    for place, axes in enumerate(combinations(range(3), 2)):
        _draw_contours(figure.add_subplot(grid[1, place]), pixels, axes)
    _legend(figure, pixels.k)
    return figure


def scatter_figure(revisions: Sequence[Revision], limits: Limits | None = None) -> Figure:
    """Each pixel by its three features, in the colour of its state; paler where N_V is low.

    Parameters
    ----------
    revisions, limits
        As for `densities_figure`.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        See `densities_figure`.
    """
    pixels, figure = _Pixels.of(revisions, limits), page(WIDTH_IN, 6.6)
    ax: Any = figure.add_axes((0.1, 0.02, 0.78, 0.93), projection="3d", computed_zorder=False)
    low, high = np.array(pixels.limits).T
    shown = np.flatnonzero(((pixels.features > low) & (pixels.features < high)).all(axis=1))
    if shown.size > MOST_POINTS:
        shown = np.random.default_rng(0).choice(shown, MOST_POINTS, replace=False)
    opacity = np.clip(pixels.n_v / np.percentile(pixels.n_v, 90), 0.15, 0.9)
    for state, (colour, marker) in enumerate(_styles(pixels.k)):
        own = shown[pixels.label[shown] == state]
        colours = np.tile(to_rgba(colour), (own.size, 1))
        colours[:, 3] = opacity[own]
        ax.scatter(*pixels.features[own].T, c=colours, s=11, marker=marker, linewidths=0, depthshade=False,
                   rasterized=True)  # fmt: skip
    for name, axis, bounds in zip(FEATURES, "xyz", pixels.limits, strict=True):
        ax.set(**{f"{axis}label": axis_label(name), f"{axis}lim": bounds})
        own_axis = getattr(ax, f"{axis}axis")
        own_axis.set_rotate_label(False)  # slanted labels would reach into those of the ticks
        own_axis.label.set_rotation(90 if axis == "z" else 0)
        own_axis.labelpad = {"x": 22, "y": 30, "z": 10}[axis]
        own_axis.set_major_locator(MaxNLocator(5))
    ax.view_init(elev=22, azim=-58)
    ax.set_box_aspect(None, zoom=1.0)
    _legend(figure, pixels.k)
    return figure


def _draw_density(ax: Axes, pixels: _Pixels, axis: int) -> None:
    base: Float | float = 0.0
    for state, colour in enumerate(cluster_colours(pixels.k)):
        found = pixels.state_density(state, (axis,))
        if found is not None:
            (grid,), values = found
            ax.fill_between(grid, base, base + values, color=colour, linewidth=0)
            base = base + values
    ax.plot(grid, base, color=INK, linewidth=1.2)
    unit = MAPS[FEATURES[axis]].unit
    ylabel = "density" if unit == "1" else f"density (1/{unit})"
    ax.set(xlabel=axis_label(FEATURES[axis]), ylabel=ylabel, xlim=pixels.limits[axis])
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    frame_plot(ax, "")


def _draw_contours(ax: Axes, pixels: _Pixels, axes: tuple[int, int]) -> None:
    found = {state: pixels.state_density(state, axes) for state in range(pixels.k)}
    densities = {state: each for state, each in found.items() if each is not None}
    (x, y), _ = next(iter(densities.values()))
    total = np.sum([values for _, values in densities.values()], axis=0)
    # the root brings out what is rare
    ax.pcolormesh(x, y, np.sqrt(total.T), cmap="Greys", rasterized=True, shading="nearest")
    colours = cluster_colours(pixels.k)
    for state, (_, values) in densities.items():
        ax.contour(x, y, values.T, [CONTOUR * values.max()], colors=[colours[state]], linewidths=1.8,
                   linestyles=LINES[state % len(LINES)])  # fmt: skip
    ax.set(xlabel=axis_label(FEATURES[axes[0]]), ylabel=axis_label(FEATURES[axes[1]]))
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _legend(figure: Figure, k: int) -> None:
    handles = [
        Line2D([], [], linestyle=LINES[state % len(LINES)], marker=marker, color=colour, markersize=6,
               linewidth=1.8, label=f"state {state}")
        for state, (colour, marker) in enumerate(_styles(k))
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.06, 0.995), ncols=min(k, 7), frameon=False,
        handlelength=2.4,
    )  # fmt: skip


def _styles(k: int) -> list[tuple[Any, str]]:
    """Colour and marker of each state."""
    return list(zip(cluster_colours(k), cluster_markers(k), strict=True))
