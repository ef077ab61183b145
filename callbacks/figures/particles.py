"""What was reconstructed: phase and absorbance of each particle, and how absorbance changes over the edge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptychrome.callbacks.figures.images import (
    View,
    direction_arrows,
    draw_map,
    measured,
    out_of_range,
    shown_values,
    stack_scale,
)
from ptychrome.callbacks.figures.layout import page, place, square
from ptychrome.callbacks.figures.style import Scale, robust_limits
from ptychrome.callbacks.figures.tables import Column, image_size, table_of_images
from ptychrome.callbacks.results import Revision

LARGEST_IN = 3.0
BAR_LABELS = {"phase": "phase (rad)", "absorbance": "absorbance μt"}


def images_figure(
    revisions: Sequence[Revision],
    energy_eV: float,
    scales: Sequence[Scale],
    *,
    labels: Sequence[str],
    width_in: float,
) -> Figure:
    """Phase above absorbance, a column for each particle.

    Parameters
    ----------
    revisions : sequence of Revision
    energy_eV : float
        The nearest measured one of each is shown.
    scales : (Scale, Scale)
        Of phase and absorbance, see `image_scales`.
    labels : sequence of str
    width_in : float
        Of the figure, at most, inches.
    """
    size = min(LARGEST_IN, (width_in - 1.5) / len(revisions) - 0.2)
    figure = page(1.5 + (size + 0.2) * len(revisions), 0.4 + 2 * (size + 0.6))
    for row, (stack, scale) in enumerate(zip(BAR_LABELS, scales, strict=True)):
        top, drawn = 0.5 + row * (size + 0.6), []
        for column, (revision, label) in enumerate(zip(revisions, labels, strict=True)):
            energy, image = image_at(revision, stack, energy_eV)
            title = f"{label}" if not row else f"{energy:.1f} eV"
            ax = square(figure, 0.5 + column * (size + 0.2), top, size)
            drawn.append(draw_map(ax, image, View.of(revision), scale, title, colour_bar=False))
            if not row and not column:
                direction_arrows(ax, View.of(revision))
            if not column:
                ax.set_ylabel(stack, fontsize=12)
        bar_axes = place(figure, 0.5 + len(revisions) * (size + 0.2), top, 0.15, size)
        shown = shown_values(drawn)
        bar = figure.colorbar(drawn[0], cax=bar_axes, extend=out_of_range(shown, scale.limits))
        bar.set_label(BAR_LABELS[stack])
        bar.outline.set_linewidth(0.5)
    return figure


def image_scales(revisions: Sequence[Revision], energy_eV: float) -> tuple[Scale, Scale]:
    """Grey scales of phase and absorbance that all particles share."""
    phase, absorbance = (_grey(stack, revisions, [energy_eV]) for stack in BAR_LABELS)
    return phase, absorbance


def series_figure(
    revisions: Sequence[Revision], energies_eV: Sequence[float], *, row_labels: Sequence[str], width_in: float
) -> Figure:
    """Absorbance at several energies on one grey scale, a row for each particle.

    Parameters
    ----------
    revisions : sequence of Revision
    energies_eV : sequence of float
        The nearest measured ones are shown.
    row_labels : sequence of str
    width_in : float
        Of the figure, inches.
    """
    scale = _grey("absorbance", revisions, energies_eV)
    columns = [
        Column(
            f"{energy:.1f} eV",
            partial(_absorbance_at, energy),
            scale,
            BAR_LABELS["absorbance"],
        )
        for energy in energies_eV
    ]
    size = min(LARGEST_IN, image_size(len(columns), width_in))
    return table_of_images(revisions, columns, size_in=size, row_labels=row_labels)[0]


def _grey(stack: str, revisions: Sequence[Revision], energies_eV: Sequence[float]) -> Scale:
    parts = [
        View.of(each).crop(image).ravel()
        for each in revisions
        for energy in energies_eV
        if (image := image_at(each, stack, energy)[1]) is not None
    ]
    return stack_scale(stack, robust_limits(np.concatenate(parts)) if parts else None)


def _absorbance_at(energy_eV: float, revision: Revision) -> NDArray | None:
    return image_at(revision, "absorbance", energy_eV)[1]


def image_at(revision: Revision, stack: str, energy_eV: float) -> tuple[float, NDArray | None]:
    """The measured energy that is nearest to one, and its image (ny, nx); None where nothing is measured."""
    done = measured(revision)
    if not done.size:
        return energy_eV, None
    energies = revision.arrays["energy"]
    nearest = done[np.argmin(np.abs(energies[done] - energy_eV))]
    return float(energies[nearest]), revision.arrays[stack][nearest]
