"""Figures that tell how many chemical states there are and how far apart they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ptychrome.analysis.cluster_count import STABLE, StateCount
from ptychrome.analysis.densities import density
from ptychrome.callbacks.panels import CLUSTER_COLOURS, INK, axis_label, cluster_colours, robust_limits
from ptychrome.callbacks.results import Revision
from ptychrome.schema import FEATURES, MAPS

MOST_POINTS = 4_000  # in the 3-D scatter: more only cover each other
CONTOUR = 0.5  # of a state's highest density
WIDTH_IN = 10.0
Float = NDArray[np.float64]


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
    def of(cls, revisions: Sequence[Revision]) -> _Pixels:
        clustered = [each.arrays for each in revisions if "clusters/label" in each.arrays]
        if not clustered:
            raise ValueError("no clusters to draw; expected at least one result with maps and clusters")
        label = np.concatenate([arrays["clusters/label"].ravel() for arrays in clustered])
        found = label >= 0
        maps = {
            name: np.concatenate([arrays[f"maps/{name}"].ravel() for arrays in clustered])[found].astype(
                float
            )
            for name in (*FEATURES, "n_v")
        }
        limits = []
        for name in FEATURES:
            low, high = robust_limits(maps[name])
            limits.append((low - 0.15 * (high - low), high + 0.15 * (high - low)))
        features = np.stack([maps[name] for name in FEATURES], axis=1)
        k = len(clustered[0]["clusters/fractions"])
        return cls(features, maps["n_v"], label[found], k, tuple(limits))

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
    figure = _figure(5.6)
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
        ax.set_title(title, loc="left", fontsize=11.5)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[4].axhline(STABLE, color=INK, linestyle=":", linewidth=1)
    figure.axes[0].set_ylim(bottom=0)
    rule = f"(stability of at least {STABLE:g},\ndotted) the highest silhouette"
    text = f"grey: k = {count.proposed} is proposed,\nof those that repeat\n{rule}"
    figure.text(0.70, 0.40, text, va="top", linespacing=1.35)
    return figure


def densities_figure(revisions: Sequence[Revision]) -> Figure:
    """Densities of the three features, and of each two of them, over the atoms of all particles.

    Above the sum of all states, black, on the states stacked in their colours; below the sum in grey with
    each state's contour at half of its height.

    Parameters
    ----------
    revisions : sequence of Revision
        Clustered together; those without clusters are left out.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If none has clusters.
    """
    pixels, figure = _Pixels.of(revisions), _figure(6.6)
    grid = figure.add_gridspec(2, 3, left=0.075, right=0.985, top=0.92, bottom=0.085, hspace=0.3, wspace=0.32)
    for axis in range(3):
        _draw_density(figure.add_subplot(grid[0, axis]), pixels, axis)
    for place, axes in enumerate(combinations(range(3), 2)):
        _draw_contours(figure.add_subplot(grid[1, place]), pixels, axes)
    _legend(figure, pixels.k)
    return figure


def scatter_figure(revisions: Sequence[Revision]) -> Figure:
    """Each pixel by its three features, in the colour of its state; paler where N_V is low.

    Parameters
    ----------
    revisions : sequence of Revision
        As for `densities_figure`.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        See `densities_figure`.
    """
    pixels, figure = _Pixels.of(revisions), _figure(6.6)
    ax: Any = figure.add_axes((0.1, 0.02, 0.78, 0.93), projection="3d", computed_zorder=False)
    low, high = np.array(pixels.limits).T
    shown = np.flatnonzero(((pixels.features > low) & (pixels.features < high)).all(axis=1))
    if shown.size > MOST_POINTS:
        shown = np.random.default_rng(0).choice(shown, MOST_POINTS, replace=False)
    colours = np.array([to_rgba(colour) for colour in cluster_colours(pixels.k)])[pixels.label[shown]]
    colours[:, 3] = np.clip(pixels.n_v[shown] / np.percentile(pixels.n_v, 90), 0.15, 0.9)
    ax.scatter(*pixels.features[shown].T, c=colours, s=9, linewidths=0, depthshade=False, rasterized=True)
    for name, axis, limits in zip(FEATURES, "xyz", pixels.limits, strict=True):
        ax.set(**{f"{axis}label": axis_label(name), f"{axis}lim": limits})
        getattr(ax, f"{axis}axis").labelpad = 8
        getattr(ax, f"{axis}axis").set_major_locator(MaxNLocator(5))
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
    ax.spines[["top", "right"]].set_visible(False)


def _draw_contours(ax: Axes, pixels: _Pixels, axes: tuple[int, int]) -> None:
    found = {state: pixels.state_density(state, axes) for state in range(pixels.k)}
    densities = {state: each for state, each in found.items() if each is not None}
    (x, y), _ = next(iter(densities.values()))
    total = np.sum([values for _, values in densities.values()], axis=0)
    # the root brings out what is rare
    ax.pcolormesh(x, y, np.sqrt(total.T), cmap="Greys", rasterized=True, shading="nearest")
    colours = cluster_colours(pixels.k)
    for state, (_, values) in densities.items():
        ax.contour(x, y, values.T, [CONTOUR * values.max()], colors=[colours[state]], linewidths=1.8)
    ax.set(xlabel=axis_label(FEATURES[axes[0]]), ylabel=axis_label(FEATURES[axes[1]]))
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _legend(figure: Figure, k: int) -> None:
    handles = [
        Line2D([], [], marker="s", linestyle="", color=colour, markersize=8, label=f"state {state}")
        for state, colour in enumerate(cluster_colours(k))
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.06, 0.995), ncols=min(k, 8), frameon=False
    )


def _figure(height_in: float) -> Figure:
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    return figure
