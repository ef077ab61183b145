"""Spectra of small square regions of a particle with the fit of eq. (1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ptychrome.analysis.scan import DataError
from ptychrome.analysis.xanes import XanesModel, XanesOptions, evaluate, fit_xanes
from ptychrome.callbacks.results import Revision

REGION_M = 120e-9  # width of the paper's regions of interest
SHARES = 0.5, 0.9  # of a region's pixels that must, and should, be of the state that it stands for
CURVE_POINTS = 600
Float = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A square of pixels.

    Attributes
    ----------
    name : str
        A letter.
    row, column : int
        Of its first pixel.
    pixels : int
        Along each side.
    state : int
        Cluster of most of its pixels; −1: none.
    """

    name: str
    row: int
    column: int
    pixels: int
    state: int

    def cut(self, images: NDArray) -> NDArray:
        """Its part of images (..., ny, nx)."""
        return images[..., self.row : self.row + self.pixels, self.column : self.column + self.pixels]

    def centre_m(self, revision: Revision) -> tuple[float, float]:
        """(y, x) in the CXI frame, m."""
        y, x = revision.arrays["y"], revision.arrays["x"]
        rows, columns = (slice(first, first + self.pixels) for first in (self.row, self.column))
        return float(y[rows].mean()), float(x[columns].mean())


@dataclass(frozen=True)
class RegionSpectrum:
    """Mean spectrum of a region and its fit.

    Attributes
    ----------
    region : Region
    energy_eV, absorbance : (n,) float64
        Measured energies and the mean μt there.
    fitted : (n,) float64
        Eq. (1) there.
    curve_eV, curve : (m,) float64
        The same, finely.
    values : dict of str to (float, float)
        b2, Δμt, PE and PE/Δμt with their standard deviations, under the names of `schema.MAPS`.
    """

    region: Region
    energy_eV: Float = field(repr=False)
    absorbance: Float = field(repr=False)
    fitted: Float = field(repr=False)
    curve_eV: Float = field(repr=False)
    curve: Float = field(repr=False)
    values: dict[str, tuple[float, float]]


def representative_regions(revision: Revision, width_m: float = REGION_M) -> list[Region]:
    """For each cluster the square that holds most of its atoms: the thickest place of the state.

    Parameters
    ----------
    revision : Revision
    width_m : float

    Returns
    -------
    list of Region
        In the order of the clusters; those that fill no square by half are left out.
    """
    if "clusters/label" not in revision.arrays:
        return []
    label, n_v = revision.arrays["clusters/label"], np.nan_to_num(revision.arrays["maps/n_v"]).astype(float)
    size = _pixels(revision, width_m)
    regions: list[Region] = []
    if min(label.shape) < size:
        return []
    for state in range(len(revision.arrays["clusters/fractions"])):
        windows = [sliding_window_view(image, (size, size)) for image in (label == state, n_v)]
        share = windows[0].mean(axis=(2, 3))
        pure = share >= max(SHARES[0], min(SHARES[1], share.max()))
        amount = np.where(pure, np.sum(windows[0] * windows[1], axis=(2, 3)), 0.0)
        if amount.any():
            row, column = np.unravel_index(np.argmax(amount), amount.shape)
            regions.append(Region(_letter(len(regions)), int(row), int(column), size, state))
    return regions


def region_at(revision: Revision, x_m: float, y_m: float, name: str, width_m: float = REGION_M) -> Region:
    """The square around a place.

    Raises
    ------
    ptychrome.analysis.scan.DataError
        If it is not wholly in the field.
    """
    size = _pixels(revision, width_m)
    corner = []
    for axis, centre in (("y", y_m), ("x", x_m)):
        places = revision.arrays[axis]
        step = places[1] - places[0]
        first = round((centre - places[0]) / step - (size - 1) / 2)
        if not 0 <= first <= len(places) - size:
            low, high = sorted((places[0], places[-1]))
            raise DataError(
                f"region at {axis} = {centre:g} m is not in the field of {revision.sample_name}, "
                f"{low:.3g} to {high:.3g} m"
            )
        corner.append(first)
    region = Region(name, corner[0], corner[1], size, -1)
    labels = region.cut(revision.arrays.get("clusters/label", np.empty((0, 0), int))).ravel()
    known = labels[labels >= 0]
    state = int(np.bincount(known).argmax()) if known.size else -1
    return Region(name, corner[0], corner[1], size, state)


def region_spectra(
    revision: Revision, regions: Sequence[Region], element: str, edge: str
) -> list[RegionSpectrum]:
    """Mean spectra of regions, fitted with the options of the result's recipe.

    Parameters
    ----------
    revision : Revision
    regions : sequence of Region
    element, edge : str

    Returns
    -------
    list of RegionSpectrum

    Raises
    ------
    ptychrome.analysis.scan.DataError
        If the spectra cannot be fitted.
    """
    if not regions:
        return []
    absorbance = revision.arrays["absorbance"]
    spectra = np.array([region.cut(absorbance).mean(axis=(1, 2), dtype=float) for region in regions])
    known = np.isfinite(spectra).all(axis=0)
    energy, spectra = revision.arrays["energy"][known], spectra[:, known]
    options = XanesOptions.model_validate(revision.attributes.get("options", {}).get("xanes", {}))
    fit = fit_xanes(energy, spectra, model=XanesModel.for_edge(element, edge), options=options)
    fine = np.linspace(energy[0], energy[-1], CURVE_POINTS)
    fitted, curves = (evaluate(fit.model, fit.parameters, at) for at in (energy, fine))
    columns = {
        "edge_energy": (fit["b2"], fit.sigma("b2")),
        "edge_jump": (fit["b1"], fit.sigma("b1")),
        "pre_edge_area": fit.pre_edge_area(),
        "pre_edge_ratio": fit.pre_edge_ratio(),
    }
    return [
        RegionSpectrum(
            region,
            energy,
            spectra[number],
            fitted[number],
            fine,
            curves[number],
            {name: (float(v[number]), float(s[number])) for name, (v, s) in columns.items()},
        )
        for number, region in enumerate(regions)
    ]


def _pixels(revision: Revision, width_m: float) -> int:
    x = revision.arrays["x"]
    return max(1, round(width_m / abs(float(x[1] - x[0]))))


def _letter(number: int) -> str:
    return chr(ord("A") + number)
