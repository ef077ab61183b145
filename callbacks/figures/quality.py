"""Quality in figures: convergence, ring correlation and transfer function, residual on the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from ptychrome.callbacks.figures.images import add_colour_bar, frame_image, frame_plot, out_of_range
from ptychrome.callbacks.figures.layout import page, place
from ptychrome.callbacks.figures.style import CLUSTER_COLOURS
from ptychrome.callbacks.results import Revision

PRTF_LEVEL = float(np.exp(-1))
RESIDUAL_CONTRAST = 3.0  # times photon noise, at least; both ways


def draw_error(ax: Axes, error: NDArray, energy_eV: NDArray) -> None:
    """How the error fell, a line for each energy.

    Parameters
    ----------
    ax : Axes
    error : (n_energy, sweeps) float
    energy_eV : (n_energy,) float, eV
    """
    for energy, row in zip(energy_eV, error, strict=True):
        if np.isfinite(row).any():
            ax.semilogy(np.arange(1, len(row) + 1), row, color=CLUSTER_COLOURS[0], label=f"{energy:.1f} eV")
    ax.set(xlabel="sweep", ylabel="R-factor")
    ax.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))
    ax.yaxis.set_minor_formatter("{x:.2g}")
    ax.yaxis.set_major_formatter("{x:.2g}")
    frame_plot(ax, "convergence")


def draw_ring_correlation(ax: Axes, revision: Revision) -> None:
    """Ring correlation of two halves with its thresholds, transfer function (PRTF), resolutions in nm."""
    frc, prtf = (revision.tables.get(f"quality/{name}") for name in ("frc", "prtf"))
    if frc is not None:
        frequency = _per_micrometre(frc)
        ax.plot(frequency, frc["correlation"], ".-", color=CLUSTER_COLOURS[0], label="two halves")
        for place, (name, title) in enumerate((("half_bit", "½ bit"), ("one_bit", "1 bit")), 1):
            reached = bool(np.all(frc["correlation"] >= frc[name]))
            label = title + _resolution(ax, revision, name, CLUSTER_COLOURS[place], reached=reached)
            ax.plot(frequency, frc[name], "--", color=CLUSTER_COLOURS[place], label=label)
    if prtf is not None:
        reached = bool(np.all(prtf["prtf"] >= PRTF_LEVEL))
        label = "PRTF" + _resolution(ax, revision, "prtf", CLUSTER_COLOURS[3], reached=reached)
        ax.plot(_per_micrometre(prtf), prtf["prtf"], "-", color=CLUSTER_COLOURS[3], label=label)
        if "resolution_prtf_m" in revision.attributes:
            ax.axhline(PRTF_LEVEL, color=CLUSTER_COLOURS[3], linestyle=":", linewidth=0.8)
    ax.set(xlabel="spatial frequency (1/µm)", ylabel="correlation", ylim=(-0.15, 1.1))
    ax.set_xlim(left=0)
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0, handlelength=1.4
    )
    title = "transfer function" if frc is None else "Fourier ring correlation"
    frame_plot(ax, title + _at_energy(revision))


def draw_detector_residual(ax: Axes, revision: Revision) -> None:
    """Where on the detector the model fails: red above photon noise, blue where there are few photons."""
    residual = revision.arrays["quality/detector_residual"]
    found = residual[np.isfinite(residual) & (residual > 0)]
    most = max(RESIDUAL_CONTRAST, float(np.percentile(found, 99.5))) if found.size else RESIDUAL_CONTRAST
    limits = 1 / most, most
    drawn = ax.imshow(
        np.ma.masked_invalid(residual),
        cmap=colormaps["RdBu_r"].with_extremes(bad="0.4"),
        norm=LogNorm(*limits, clip=False),
        interpolation="nearest",
    )
    frame_image(ax, "detector residual (photon noise: 1)")
    add_colour_bar(ax, drawn, out_of_range(residual, limits), "")


def resolution_figure(revisions: Sequence[Revision], *, labels: Sequence[str]) -> Figure:
    """Ring correlation and transfer function of each particle, two in a line.

    Parameters
    ----------
    revisions : sequence of Revision
        With at least one of the two curves.
    labels : sequence of str
    """
    lines = -(-len(revisions) // 2)
    figure = page(10.0, 0.1 + 3.35 * lines)
    for number, (revision, label) in enumerate(zip(revisions, labels, strict=True)):
        line, column = divmod(number, 2)
        ax = place(figure, 0.75 + 4.9 * column, 0.45 + 3.35 * line, 2.75, 2.35)
        draw_ring_correlation(ax, revision)
        ax.set_title(label + _at_energy(revision), loc="left", fontsize=11.5)
    return figure


def _per_micrometre(curve: Mapping[str, np.ndarray]) -> NDArray[np.float64]:
    return np.asarray(curve["frequency"], dtype=float) / 1e6


def _resolution(ax: Axes, revision: Revision, name: str, colour: str, *, reached: bool) -> str:
    """Mark a resolution and say it; empty where it could not be told."""
    resolution_m = revision.attributes.get(f"resolution_{name}_m")
    if resolution_m is None:
        return ""
    ax.axvline(1e-6 / resolution_m, color=colour, linestyle=":", linewidth=0.8)
    return f": {'≤ ' if reached else ''}{1e9 * resolution_m:.0f} nm"  # reached: the pixels set the limit


def _at_energy(revision: Revision) -> str:
    energy_eV = revision.attributes.get("quality_energy_eV")
    return "" if energy_eV is None else f" at {energy_eV:.1f} eV"
