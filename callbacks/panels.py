"""The pieces that figures of results are made of: a map, clusters, a probe, spectra, a scatter, quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, hsv_to_rgb
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray
from scipy import ndimage

from ptychrome.callbacks.results import Revision
from ptychrome.schema import MAPS

INK = "0.15"
MISSING = "0.88"
# Okabe and Ito: told apart by colour-blind readers; there is no such set beyond eight
CLUSTER_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SYMBOLS = {"b2": "$b_2$", "N_V": r"$N_\mathrm{V}$", "N_eff": r"$N_\mathrm{eff}$"}
PRTF_LEVEL = float(np.exp(-1))
RESIDUAL_CONTRAST = 3.0  # times photon noise, at least; both ways
PRE_EDGE_POINTS = 4  # an energy list has at least as many below the edge


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


@dataclass(frozen=True)
class Scale:
    """How numbers become colours.

    Attributes
    ----------
    cmap : str
        Name of a colour map of matplotlib.
    limits : (float, float)
        In `unit`.
    unit : str
        For the colour bar.
    factor : float
        What one `unit` is in the unit of the array.
    """

    cmap: str
    limits: tuple[float, float]
    unit: str
    factor: float = 1.0


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
    _frame(ax, title)
    if image is None:
        _say_missing(ax)
    else:
        scale_bar(ax, view.pixel_m)
    if colour_bar and image is not None:
        _colour_bar(ax, drawn, _extend(shown, scale.limits), scale.unit)
    return drawn


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
    _frame(ax, title)
    scale_bar(ax, view.pixel_m)
    if legend:
        patches = [
            Patch(facecolor=colour, label=f"{place}:  {_percent(fraction)}")
            for place, (colour, fraction) in enumerate(zip(colours, fractions, strict=True))
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
    share = f", {_percent(power.max() / power.sum())} of the power" if len(probe) > 1 else ""
    _frame(ax, f"probe{share} (brightness: amplitude, hue: phase)")
    if pixel_m is not None:
        scale_bar(ax, pixel_m)


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
    _open_frame(ax, "convergence")


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
    _open_frame(ax, title + _at_energy(revision))


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
    _frame(ax, "detector residual (photon noise: 1)")
    _colour_bar(ax, drawn, _extend(residual, limits), "")


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


def draw_spectra(ax: Axes, revision: Revision) -> None:
    """Mean spectrum of each cluster, normalised by its mean edge jump."""
    energy = revision.arrays["energy"]
    spectra = normalised_spectra(revision)
    if not np.isfinite(spectra).any():
        _say_missing(ax)
    for spectrum, colour in zip(spectra, cluster_colours(len(spectra)), strict=True):
        known = np.isfinite(spectrum)
        ax.plot(energy[known], spectrum[known], ".-", color=colour, linewidth=1.1, markersize=3.0)
    ax.set(
        xlabel="photon energy (eV)",
        ylabel="normalised absorbance",
        xlim=(energy[0], energy[-1]),
    )
    _open_frame(ax, "mean XANES of the clusters")


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
        _say_missing(ax)
    ax.set(
        xlim=scales[0].limits,
        ylim=scales[1].limits,
        xlabel=axis_label(x_name),
        ylabel=axis_label(y_name),
    )
    _open_frame(ax, "pixels by cluster")


def cluster_colours(count: int) -> list[Any]:
    """A colour for each of `count` clusters."""
    if count <= len(CLUSTER_COLOURS):
        return list(CLUSTER_COLOURS[:count])
    return [colormaps["turbo"](place) for place in np.linspace(0.02, 0.98, count)]


def map_title(name: str) -> str:
    """Name of a chemical map or of its standard deviation, typeset."""
    title = ("σ of " if name.endswith("_sigma") else "") + MAPS[name.removesuffix("_sigma")].label
    for plain, typeset in SYMBOLS.items():
        title = title.replace(plain, typeset)
    return title


def axis_label(name: str) -> str:
    """Name and unit of a chemical map, typeset."""
    unit = MAPS[name].unit
    return map_title(name) + ("" if unit == "1" else f" ({unit})")


def robust_limits(image: NDArray, low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    """Percentiles of what is finite; (0, 1) where nothing is."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    bottom, top = np.percentile(finite, (low, high))
    return float(bottom), float(top) if top > bottom else float(bottom) + 1.0


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


def _colour_bar(ax: Axes, drawn: AxesImage, extend: Any, unit: str) -> None:
    bar_axes = ax.inset_axes((1.035, 0.0, 0.05, 1.0))
    bar = ax.figure.colorbar(drawn, cax=bar_axes, extend=extend, extendfrac=0.03)
    bar.ax.set_title(unit, fontsize="medium", loc="left", pad=7)
    bar.outline.set_linewidth(0.5)


def _extend(shown: NDArray, limits: tuple[float, float]) -> Any:
    with np.errstate(invalid="ignore"):
        below, above = bool((shown < limits[0]).any()), bool((shown > limits[1]).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if np.isfinite(fraction) else "–"


def _say_missing(ax: Axes) -> None:
    ax.text(0.5, 0.5, "needs more\nenergies", ha="center", va="center", color="0.45", transform=ax.transAxes)


def _frame(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=11.5)
    ax.set(xticks=[], yticks=[], anchor="NW")
    ax.spines[:].set_linewidth(0.5)


def _open_frame(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=11.5)
    ax.spines[["top", "right"]].set_visible(False)
