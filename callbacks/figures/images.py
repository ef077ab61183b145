"""Images and maps: the part of the field with the particle, scale bar, colour bar and directions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from ptychrome.callbacks.figures.style import INK, MISSING, Scale
from ptychrome.callbacks.results import Revision


@dataclass(frozen=True)
class View:
    """The part of the field that holds the particle.

    Attributes
    ----------
    rows, columns : slice
        Square where the field allows.
    pixel_m : float
        Pixel size, m.
    y_up, x_left : bool
        Whether y rises towards the top of the drawing and x towards its left, as by default.
    """

    rows: slice
    columns: slice
    pixel_m: float
    y_up: bool
    x_left: bool

    @classmethod
    def of(cls, revision: Revision, margin: float = 0.12) -> View:
        """The bounding box of the particle with a margin, as a fraction of its size, on all sides."""
        y, x = revision.arrays["y"], revision.arrays["x"]
        mask = particle_mask(revision)
        if not mask.any():
            mask[...] = True
        spans = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
        half = max(int(high - low) for low, high in spans) / 2 * (1 + 2 * margin)
        rows, columns = (
            slice(max(0, int((low + high) / 2 - half)), min(size, int((low + high) / 2 + half) + 2))
            for (low, high), size in zip(spans, mask.shape, strict=True)
        )
        return cls(rows, columns, float(abs(x[1] - x[0])), bool(y[0] > y[-1]), bool(x[0] > x[-1]))

    def crop(self, image: NDArray) -> NDArray:
        """The particle's part of an image (ny, nx)."""
        return image[self.rows, self.columns]


def measured(revision: Revision) -> NDArray[np.intp]:
    """Places on the energy axis that hold images, ascending."""
    return np.flatnonzero(np.isfinite(revision.arrays["phase"]).any(axis=(1, 2)))


def particle_mask(revision: Revision) -> NDArray[np.bool_]:
    """Where there is matter, (ny, nx) bool: the fitted pixels, or while there are none the dense ones."""
    fitted = revision.arrays.get("maps/fitted")
    if fitted is not None and fitted.any():
        mask = fitted.astype(bool)
    elif (done := measured(revision)).size:
        depth = -np.nan_to_num(revision.arrays["phase"][done[0]])
        mask = depth > 0.3 * np.percentile(depth, 99)
    else:
        mask = np.zeros(revision.arrays["phase"].shape[1:], bool)
    opened = ndimage.binary_opening(mask, iterations=2)  # lone pixels must not widen the view
    return opened if opened.any() else mask


def draw_map(
    ax: Axes, image: NDArray | None, view: View, scale: Scale, title: str, *, colour_bar: bool = True
) -> AxesImage:
    """One map with its scale bar and colour bar; None draws an empty place.

    Parameters
    ----------
    ax : Axes
    image : (ny, nx) float or None
        Whole field, NaN where missing.
    view : View
    scale : Scale
    title : str
    colour_bar : bool
    """
    shown = np.full((2, 2), np.nan) if image is None else view.crop(image) / scale.factor
    drawn = ax.imshow(
        shown,
        cmap=colormaps[scale.cmap].with_extremes(bad=MISSING),
        vmin=scale.limits[0],
        vmax=scale.limits[1],
        interpolation="nearest",
    )
    frame_image(ax, title)
    if image is None:
        say_missing(ax)
    else:
        scale_bar(ax, view.pixel_m)
    if colour_bar and image is not None:
        add_colour_bar(ax, drawn, out_of_range(shown, scale.limits), scale.unit)
    return drawn


def draw_probe(ax: Axes, probe: NDArray[np.complex64], pixel_m: float | None) -> None:
    """Strongest mode: brightness for the amplitude, hue for the phase.

    Parameters
    ----------
    ax : Axes
    probe : (modes, n, n) complex64
    pixel_m : float or None
        Pixel size for a scale bar, m.
    """
    power = np.sum(np.abs(probe) ** 2, axis=(1, 2))
    mode = probe[power.argmax()]
    amplitude = np.abs(mode) / np.abs(mode).max()
    hue = np.angle(mode) / (2 * np.pi) % 1.0
    ax.imshow(hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.9), amplitude], axis=-1)))
    share = f", {percent(power.max() / power.sum())} of the power" if len(probe) > 1 else ""
    frame_image(ax, f"probe{share} (brightness: amplitude, hue: phase)")
    if pixel_m is not None:
        scale_bar(ax, pixel_m)


def scale_bar(ax: Axes, pixel_m: float) -> None:
    """A bar of a round length under the image, about a quarter of its width."""
    width_m = (ax.get_xlim()[1] - ax.get_xlim()[0]) * pixel_m
    length_m = round_length(width_m / 3)
    label = f"{length_m * 1e6:g} µm" if length_m >= 1e-6 else f"{length_m * 1e9:g} nm"
    fraction = length_m / width_m
    ax.plot([0, fraction], [-0.045, -0.045], color=INK, linewidth=2.2, transform=ax.transAxes,
            clip_on=False, solid_capstyle="butt")  # fmt: skip
    ax.text(fraction + 0.03, -0.045, label, ha="left", va="center", color=INK, transform=ax.transAxes)


def round_length(longest: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    decade = 10.0 ** np.floor(np.log10(longest))
    return float(decade * max(step for step in (1, 2, 5) if step * decade <= longest * (1 + 1e-9)))


def direction_arrows(ax: Axes, view: View) -> None:
    """Arrows along x and y of the CXI frame in the lower corner to which x does not point."""
    corner = (0.93, 0.07) if view.x_left else (0.07, 0.07)
    if not view.y_up:
        corner = (corner[0], 0.93)
    tips = {
        "x": (corner[0] + (-0.17 if view.x_left else 0.17), corner[1]),
        "y": (corner[0], corner[1] + (0.17 if view.y_up else -0.17)),
    }
    for name, tip in tips.items():
        ax.annotate(
            name,
            xy=corner,
            xytext=tip,
            xycoords="axes fraction",
            textcoords="axes fraction",
            ha="center",
            va="center",
            color=INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops={
                "arrowstyle": "<-",
                "color": INK,
                "shrinkA": 2,
                "shrinkB": 0,
                "path_effects": [withStroke(linewidth=3, foreground="white")],
            },
        )


def add_colour_bar(ax: Axes, drawn: AxesImage, extend: Any, unit: str) -> None:
    bar_axes = ax.inset_axes((1.035, 0.0, 0.05, 1.0))
    bar = ax.figure.colorbar(drawn, cax=bar_axes, extend=extend, extendfrac=0.03)
    bar.ax.set_title(unit, fontsize="medium", loc="left", pad=7)
    bar.outline.set_linewidth(0.5)


def shown_values(images: Iterable[AxesImage]) -> NDArray[np.float64]:
    """What images show, in the units of their scale, flat; NaN where missing."""
    return np.concatenate([np.ma.filled(np.ma.asarray(each.get_array()), np.nan).ravel() for each in images])


def out_of_range(shown: NDArray, limits: tuple[float, float]) -> Any:
    with np.errstate(invalid="ignore"):
        below, above = bool((shown < limits[0]).any()), bool((shown > limits[1]).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if np.isfinite(fraction) else "–"


def say_missing(ax: Axes) -> None:
    ax.text(0.5, 0.5, "needs more\nenergies", ha="center", va="center", color="0.45", transform=ax.transAxes)


def frame_image(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=11.5)
    ax.set(xticks=[], yticks=[], anchor="NW")
    ax.spines[:].set_linewidth(0.5)


def frame_plot(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=11.5)
    ax.spines[["top", "right"]].set_visible(False)


def stack_scale(name: str, limits: tuple[float, float] | None) -> Scale:
    """White for vacuum, black for matter."""
    limits = limits or (0.0, 1.0)
    return Scale("gray", limits, "rad") if name == "phase" else Scale("gray_r", limits, "μt")
