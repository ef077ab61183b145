"""Chemical states in figures: their maps, mean spectra and scatter."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ptychrome.callbacks.figures.images import (
    View,
    draw_map,
    frame_image,
    frame_plot,
    percent,
    say_missing,
    scale_bar,
)
from ptychrome.callbacks.figures.style import MISSING, Scale, axis_label, cluster_colours
from ptychrome.callbacks.results import Revision

PRE_EDGE_POINTS = 4  # an energy list has at least as many below the edge


def draw_clusters(ax: Axes, revision: Revision, view: View, title: str, *, legend: bool = True) -> None:
    """The map of clusters with the share of each in a legend."""
    labels = revision.arrays.get("clusters/label")
    if labels is None:
        draw_map(ax, None, view, Scale("Greys", (0, 1), ""), title)
        return
    fractions = revision.arrays["clusters/fractions"]
    colours = cluster_colours(len(fractions))
    ax.imshow(
        np.ma.masked_less(view.crop(labels), 0),
        cmap=ListedColormap(colours).with_extremes(bad=MISSING),
        norm=BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours)),
        interpolation="nearest",
    )
    frame_image(ax, title)
    scale_bar(ax, view.pixel_m)
    if legend:
        patches = [
            Patch(facecolor=colour, label=f"{number}:  {percent(fraction)}")
            for number, (colour, fraction) in enumerate(zip(colours, fractions, strict=True))
        ]
        ax.legend(
            handles=patches,
            loc="upper left",
            bbox_to_anchor=(1.02, 1.02),
            frameon=False,
            handlelength=0.9,
            handleheight=0.9,
            borderaxespad=0.0,
        )


def draw_spectra(ax: Axes, revision: Revision) -> None:
    """Mean spectrum of each cluster, normalised by its mean edge jump."""
    energy = revision.arrays["energy"]
    spectra = normalised_spectra(revision)
    if not np.isfinite(spectra).any():
        say_missing(ax)
    for spectrum, colour in zip(spectra, cluster_colours(len(spectra)), strict=True):
        known = np.isfinite(spectrum)
        ax.plot(energy[known], spectrum[known], ".-", color=colour, linewidth=1.1, markersize=3.0)
    ax.set(
        xlabel="photon energy (eV)",
        ylabel="normalised absorbance",
        xlim=(energy[0], energy[-1]),
    )
    frame_plot(ax, "mean XANES of the clusters")


def normalised_spectra(revision: Revision) -> NDArray[np.float64]:
    """(k, n_energy) float64: mean μt less its value below the edge, over the cluster's mean edge jump."""
    arrays = revision.arrays
    if "clusters/spectra" not in arrays:
        return np.empty((0, len(arrays["energy"])))
    spectra = np.asarray(arrays["clusters/spectra"], dtype=float)
    labels, weight = arrays["clusters/label"], np.nan_to_num(arrays["maps/n_v"])
    jump = np.nan_to_num(arrays["maps/edge_jump"])
    normalised = np.full(spectra.shape, np.nan)
    for k, spectrum in enumerate(spectra):
        known, amount = np.flatnonzero(np.isfinite(spectrum)), weight * (labels == k)
        if known.size and amount.sum() > 0:
            mean_jump = np.sum(jump * amount) / amount.sum()
            normalised[k] = (spectrum - spectrum[known[:PRE_EDGE_POINTS]].mean()) / mean_jump
    return normalised


def draw_scatter(ax: Axes, revision: Revision, names: tuple[str, str], scales: tuple[Scale, Scale]) -> None:
    """Each pixel by two of its chemical maps, in the colour of its cluster.

    Parameters
    ----------
    ax : Axes
    revision : Revision
    names : (str, str)
        Maps along x and y.
    scales : (Scale, Scale)
        Their limits.
    """
    arrays = revision.arrays
    x_name, y_name = names
    if "clusters/label" in arrays:
        labels = arrays["clusters/label"]
        for k, colour in enumerate(cluster_colours(len(arrays["clusters/fractions"]))):
            ax.plot(
                arrays[f"maps/{x_name}"][labels == k],
                arrays[f"maps/{y_name}"][labels == k],
                ".",
                color=colour,
                markersize=3.0,
                markeredgewidth=0,
                alpha=0.5,
                rasterized=True,
            )
    else:
        say_missing(ax)
    ax.set(
        xlim=scales[0].limits,
        ylim=scales[1].limits,
        xlabel=axis_label(x_name),
        ylabel=axis_label(y_name),
    )
    frame_plot(ax, "pixels by cluster")
