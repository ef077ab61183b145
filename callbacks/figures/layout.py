"""Pages of figures: sizes in inches, so that every revision has the same layout."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ptychrome.callbacks.files import write_atomically
from ptychrome.callbacks.results import Revision

DPI = 200


def page(width_in: float, height_in: float, heading: str = "") -> Figure:
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    if heading:
        figure.text(0.3 / width_in, 1 - 0.38 / height_in, heading, fontsize=15, va="center")
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes by their distance from the upper left corner, inches: every revision has the same layout."""
    whole_width, whole_height = figure.get_size_inches()
    bottom = whole_height - top - height
    return figure.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    )


def square(figure: Figure, left: float, top: float, size: float = 2.75) -> Axes:
    return place(figure, left, top, size, size)


def label_of(revision: Revision) -> str:
    return revision.sample_name or revision.raw_uid[:8]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of 200 dots per inch.

    Parameters
    ----------
    figure : Figure
    path : Path

    Raises
    ------
    ptychrome.callbacks.files.WriteError
        If it cannot be written; a picture that was there before stays.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_atomically(path, buffer.getbuffer())
