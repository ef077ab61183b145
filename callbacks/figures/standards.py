"""One page of what the spectra of a result are made of: standards, components, and bulk spectra beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ptychrome.analysis.bulk import BulkSpectrum
from ptychrome.callbacks.figures.bulk import draw_bulk
from ptychrome.callbacks.figures.clusters import draw_spectra
from ptychrome.callbacks.figures.images import View, draw_map
from ptychrome.callbacks.figures.style import CLUSTER_COLOURS, Scale, robust_limits
from ptychrome.callbacks.results import Revision

SIZE_IN, GAP_IN = 2.6, 0.95
SHARES = Scale("viridis", (0.0, 1.0), "")


def spectra_figure(revision: Revision, bulk: Sequence[BulkSpectrum] = ()) -> Figure:
    """Maps of the shares of standards and of the components, their spectra, and bulk over cluster spectra.

    Parameters
    ----------
    revision : Revision
        With ``components/…``, and ``lcf/…`` if standards were fitted.
    bulk : sequence of BulkSpectrum
        Drawn over the mean spectra of the clusters.

    Returns
    -------
    Figure
    """
    rows = [_component_row(revision), _principal_row(revision)]
    if "lcf/fractions" in revision.arrays:
        rows.insert(0, _standard_row(revision))
    columns = max(4, *(len(maps) for maps in rows))  # the spectra below take as much as four maps
    pitch = SIZE_IN + GAP_IN
    figure = Figure(figsize=(0.7 + columns * pitch, 0.6 + (len(rows) + 1) * pitch), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.35 / figure.get_figheight(), _heading(revision), fontsize=13, va="center")
    view = View.of(revision)
    for row, maps in enumerate(rows):
        for column, (title, image, scale) in enumerate(maps):
            ax = _place(figure, 0.7 + column * pitch, 0.75 + row * pitch, SIZE_IN)
            draw_map(ax, image, view, scale, title)
    top = 0.75 + len(rows) * pitch
    components, principal, clusters = (
        _place(figure, 0.9 + column * (1.5 * SIZE_IN + 1.0), top, 1.5 * SIZE_IN, SIZE_IN)
        for column in range(3)
    )
    draw_components(components, revision, "spectra", "spectra of the components")
    draw_components(principal, revision, "principal_spectra", "principal components")
    draw_spectra(clusters, revision)
    draw_bulk(clusters, bulk)
    if bulk:
        clusters.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def draw_components(ax: Axes, revision: Revision, name: str, title: str) -> None:
    """Spectra of the components, each with a largest modulus of 1.

    Parameters
    ----------
    ax : Axes
    revision : Revision
    name : str
        Of the array below ``components/``.
    title : str
    """
    energy = revision.arrays["energy"]
    for number, spectrum in enumerate(revision.arrays[f"components/{name}"]):
        known = np.isfinite(spectrum)
        colour = CLUSTER_COLOURS[number % len(CLUSTER_COLOURS)]
        ax.plot(energy[known], spectrum[known], ".-", color=colour, linewidth=1.1, markersize=3.0,
                label=str(number + 1))  # fmt: skip
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    ax.set(xlabel="photon energy (eV)", ylabel="absorbance, largest = 1", xlim=(energy[0], energy[-1]))
    ax.set_title(title, loc="left", fontsize=11.5)
    ax.spines[["top", "right"]].set_visible(False)


def _standard_row(revision: Revision) -> list[tuple[str, np.ndarray, Scale]]:
    fractions, misfit = revision.arrays["lcf/fractions"], revision.arrays["lcf/residual"]
    maps = [
        (name, image, SHARES)
        for name, image in zip(revision.attributes["lcf_standards"], fractions, strict=True)
    ]
    return [*maps, ("misfit / edge jump", misfit, Scale("YlOrBr", (0.0, robust_limits(misfit)[1]), ""))]


def _component_row(revision: Revision) -> list[tuple[str, np.ndarray, Scale]]:
    return [
        (f"component {number}", image, Scale("magma", (0.0, robust_limits(image)[1]), ""))
        for number, image in enumerate(revision.arrays["components/maps"], 1)
    ]


def _principal_row(revision: Revision) -> list[tuple[str, np.ndarray, Scale]]:
    images = revision.arrays["components/principal_maps"]
    limits = [float(np.nanmax(np.abs(robust_limits(image)))) for image in images]
    return [
        (f"principal component {number}", image, Scale("RdBu_r", (-limit, limit), ""))
        for number, (image, limit) in enumerate(zip(images, limits, strict=True), 1)
    ]


def _heading(revision: Revision) -> str:
    attributes = revision.attributes
    name, rank = revision.sample_name or revision.raw_uid[:8], attributes["components_above_noise"]
    text = f"{name}      {rank} component{'s' * (rank > 1)} above the noise"
    shift_eV = attributes.get("lcf_shift_eV", 0.0) + attributes.get("lcf_foil_offset_eV", 0.0)
    return text + (f", standards shifted by {shift_eV:+.2f} eV" if shift_eV else "")


def _place(figure: Figure, left: float, top: float, width: float, height: float | None = None) -> Axes:
    whole_width, whole_height = figure.get_size_inches()
    height = width if height is None else height
    return figure.add_axes(
        (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    )
