"""Tables of images: a row for each particle, a column for each quantity, one scale for a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptychrome.callbacks.figures.images import View, direction_arrows, draw_map, out_of_range, shown_values
from ptychrome.callbacks.figures.layout import label_of, page, place, square
from ptychrome.callbacks.figures.style import Scale, map_title
from ptychrome.callbacks.results import Revision

LEFT_IN, TOP_IN, GAP_IN = 0.6, 0.5, (0.45, 0.15)


@dataclass(frozen=True)
class Column:
    """What a column of a table shows.

    Attributes
    ----------
    title : str
    image : callable
        From a revision to its image (ny, nx), None where it has none.
    scale : Scale
        Neighbouring columns with the same scale share a colour bar.
    bar_label : str
        Quantity and unit, for the colour bar.
    """

    title: str
    image: Callable[[Revision], NDArray | None]
    scale: Scale
    bar_label: str

    @classmethod
    def of_map(cls, name: str, scale: Scale) -> Column:
        """A chemical map, or with "_sigma" its standard deviation."""
        title = map_title(name)
        return cls(
            title,
            lambda revision: revision.arrays.get(f"maps/{name}"),
            scale,
            scale.unit or title,
        )


def table_of_images(
    revisions: Sequence[Revision],
    columns: Sequence[Column],
    *,
    size_in: float,
    spare: int = 0,
    margin_in: float = 0.15,
    row_labels: Sequence[str] | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    """Draw a table.

    Parameters
    ----------
    revisions : sequence of Revision
    columns : sequence of Column
    size_in : float
        Width and height of an image, inches.
    spare : int
        Empty places at the end of every row, for the caller.
    margin_in : float
        Left free on the right.
    row_labels : sequence of str, optional
        Default: names of the samples.

    Returns
    -------
    figure : Figure
    places : list of list of Axes
        Of each row.
    """
    pitch = size_in + GAP_IN[1], size_in + GAP_IN[0]
    bottom = TOP_IN + pitch[1] * len(revisions)
    count = len(columns) + spare
    figure = page(LEFT_IN + pitch[0] * count - GAP_IN[1] + margin_in, bottom + 0.75)
    lefts = [LEFT_IN + pitch[0] * number for number in range(count)]
    rows = []
    for row, revision in enumerate(revisions):
        view = View.of(revision)
        places = [square(figure, left, TOP_IN + pitch[1] * row, size_in) for left in lefts]
        for ax, column in zip(places, columns, strict=False):
            title = "" if row else column.title
            draw_map(ax, column.image(revision), view, column.scale, title, colour_bar=False)
        places[0].set_ylabel(label_of(revision) if row_labels is None else row_labels[row], fontsize=12)
        if not row:
            direction_arrows(places[0], view)
        rows.append(places)
    for _, group in groupby(range(len(columns)), key=lambda number: columns[number].scale):
        numbers = list(group)
        width = lefts[numbers[-1]] - lefts[numbers[0]] + size_in
        _shared_bar(figure, (lefts[numbers[0]], bottom, width), [row[n] for row in rows for n in numbers],
                    columns[numbers[0]])  # fmt: skip
    return figure, rows


def _shared_bar(
    figure: Figure, where: tuple[float, float, float], places: Sequence[Axes], column: Column
) -> None:
    left, top, width = where
    bar_axes = place(figure, left + 0.08, top + 0.05, width - 0.16, 0.13)
    shown = shown_values(ax.images[0] for ax in places)
    extend = out_of_range(shown, column.scale.limits)
    bar = figure.colorbar(
        places[0].images[0], cax=bar_axes, orientation="horizontal", extend=extend, extendfrac=0.1 / width
    )
    bar.set_label(column.bar_label)
    bar.outline.set_linewidth(0.5)


def maps_figure(
    revisions: Sequence[Revision],
    maps: Sequence[tuple[str, Scale]],
    *,
    row_labels: Sequence[str],
    width_in: float,
) -> Figure:
    """Chemical maps of several particles on common scales.

    Parameters
    ----------
    revisions : sequence of Revision
    maps : sequence of (str, Scale)
        Of `schema.MAPS`, or the same with "_sigma"; see `style.map_scale`.
    row_labels : sequence of str
    width_in : float
        Of the figure, inches.
    """
    columns = [Column.of_map(name, scale) for name, scale in maps]
    size = image_size(len(maps), width_in)
    return table_of_images(revisions, columns, size_in=size, row_labels=row_labels)[0]


def image_size(count: int, width_in: float) -> float:
    """Size of each of `count` images in a row, so that the table is so wide."""
    return (width_in - LEFT_IN - GAP_IN[1] * count) / count
