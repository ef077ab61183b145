"""Domains of chemical states: what of them is resolved, and the lengths of straight lines within (chords)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
RESOLUTION_M = 90e-9  # full period, as is usual: 80 to 120 nm in the paper


@dataclass(frozen=True)
class Chords:
    """All runs of one label along rows and columns.

    Attributes
    ----------
    length_m : (n,) float64, m
    label : (n,) int32
    ends : (n,) int32
        How many of its two ends are borders to another cluster; the others are where the particle, the fitted
        pixels or the field end, and there the chord may be cut.
    along_x : (n,) bool
        Along a row; otherwise along a column.
    """

    length_m: Float = field(repr=False)
    label: NDArray[np.int32] = field(repr=False)
    ends: NDArray[np.int32] = field(repr=False)
    along_x: NDArray[np.bool_] = field(repr=False)

    def whole(self, cluster: int) -> Float:
        """Lengths of one cluster's chords that end at other clusters on both sides, (m,) m, ascending.

        What is cut is left out, which long chords are more often: of domains not much smaller than the
        particle the distribution is too short. `mean_m` is free of that.
        """
        return np.sort(self.length_m[(self.label == cluster) & (self.ends == 2)])

    def mean_m(self, k: int, along_x: bool | None = None) -> Float:
        """Mean chord of each cluster: twice its length on all lines over the borders that these cross.

        Cut chords count with the length and the ends that are seen, so that neither the particle's outline
        nor its size biases the mean of a structure that goes on beyond it (as in stereology, where the mean
        chord is 4 V/S). For a disc of radius r it is π r/2.

        Parameters
        ----------
        k : int
            Number of clusters.
        along_x : bool, optional
            Rows or columns alone; default both.

        Returns
        -------
        (k,) float64, m
            NaN for a cluster that has no border with another.
        """
        used = np.ones(len(self.label), bool) if along_x is None else self.along_x == along_x
        length = np.bincount(self.label[used], self.length_m[used], minlength=k)
        ends = np.bincount(self.label[used], self.ends[used], minlength=k)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(ends > 0, 2 * length / ends, np.nan)[:k]


def resolved(label: ArrayLike, pixel_m: float, size_m: float = RESOLUTION_M) -> NDArray[np.integer]:
    """Labels without what is narrower than the resolution: it gets the label of the nearest pixel that stays.

    Between two states a pixel is a mixture, and can look like a third one: a seam about as wide as the
    resolution that is no state of its own. A true layer that thin cannot be told from it, and is lost here.

    Parameters
    ----------
    label : (ny, nx) int
        −1 where missing; that stays.
    pixel_m, size_m : float
        Pixel size, and the side of the square that must fit into a domain everywhere, m; at the outline half
        of it may lie outside.

    Returns
    -------
    (ny, nx) int
        The labels as they were if nothing is wide enough.
    """
    image, side = np.asarray(label), max(round(size_m / pixel_m), 1)
    missing, wide = image < 0, np.zeros(image.shape, dtype=bool)
    square, inner = np.ones((side, side), dtype=int), (slice(side, -side), slice(side, -side))
    padded = np.pad(image, side, constant_values=-1)
    for state in np.unique(image[~missing]):
        here = padded == state
        fits = ndimage.binary_erosion(here | (padded < 0), square, border_value=1)
        fits &= ndimage.correlate(here.astype(int), square, mode="constant") >= square.size / 2
        wide |= (ndimage.binary_dilation(fits, square) & here)[inner]
    if not wide.any():
        return image
    nearest = ndimage.distance_transform_edt(~wide, return_distances=False, return_indices=True)
    return np.where(missing, image, image[tuple(nearest)])


def chords(label: ArrayLike, pixel_m: float) -> Chords:
    """Cut a map of clusters along all its rows and columns.

    A single pixel with a wrong label cuts a chord in two: take the labels that `resolved` gives. Lengths
    below about twice the resolution say little.

    Parameters
    ----------
    label : (ny, nx) int
        −1 where missing.
    pixel_m : float
        Pixel size, m.

    Returns
    -------
    Chords

    Raises
    ------
    DataError
        If the map is not two-dimensional or the pixel size is not positive.
    """
    image = np.asarray(label)
    if image.ndim != 2 or not pixel_m > 0:
        raise DataError(
            f"chords: expected a map (ny, nx) and a pixel size above 0; got {image.shape} and {pixel_m} m"
        )
    parts = [_runs(image), _runs(image.T)]
    pixels, labels, ends = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    along_x = np.repeat([True, False], [len(part[0]) for part in parts])
    return Chords(pixels * pixel_m, labels.astype(np.int32), ends.astype(np.int32), along_x)


def _runs(image: NDArray[np.integer]) -> tuple[NDArray, NDArray, NDArray]:
    """Length in pixels, label and number of ends at other labels of all runs along rows."""
    line = np.pad(image, ((0, 0), (1, 1)), constant_values=-1).ravel()  # rows touch at missing pixels
    begin = np.flatnonzero(np.diff(line, prepend=line[0] - 1))
    length, label = np.diff(np.append(begin, line.size)), line[begin]
    inner = label >= 0
    border = inner[1:] & inner[:-1]
    ends = np.append(border, False).astype(int) + np.append(False, border)
    return length[inner], label[inner], ends[inner]
