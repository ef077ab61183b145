"""One grid for all energies: the free-running pixel changes by 2.2 % over a V K-edge scan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychrome.analysis.scan import Orientation, ScanGeometry


@dataclass(frozen=True)
class CommonGrid:
    """The square-pixel grid on which all energies meet.

    Attributes
    ----------
    pixel_m : float
        Pixel size, m.
    shape : (int, int)
        Rows and columns.
    center_m : (float, float)
        (y, x) of the central pixel ``shape // 2``, CXI frame, m.
    orientation : Orientation
        Sense of rows and columns, that of the detector.
    """

    pixel_m: float
    shape: tuple[int, int]
    center_m: tuple[float, float]
    orientation: Orientation = Orientation()

    @classmethod
    def covering(
        cls,
        stage_extent_m: tuple[tuple[float, float], tuple[float, float]],
        geometries: list[ScanGeometry],
        margin_m: float,
    ) -> CommonGrid:
        """Grid over the planned field of a scan, with the coarsest free-running pixel of its energies.

        Parameters
        ----------
        stage_extent_m : ((y_min, y_max), (x_min, x_max)), m
            Planned translations of the sample.
        geometries : list of ScanGeometry
            One for each planned energy.
        margin_m : float
            Added on all sides, m: what the probe still lights up.
        """
        pixel = max(max(geometry.pixel_m) for geometry in geometries)
        center = [-(low + high) / 2 for low, high in stage_extent_m]
        half = [int(np.ceil(((high - low) / 2 + margin_m) / pixel)) for low, high in stage_extent_m]
        shape = (2 * half[0] + 1, 2 * half[1] + 1)
        return cls(pixel, shape, (center[0], center[1]), geometries[0].orientation)

    @cached_property
    def y_m(self) -> NDArray[np.float64]:
        """Coordinate of each row, CXI frame, m."""
        return self._axis(0, self.orientation.row_sign)

    @cached_property
    def x_m(self) -> NDArray[np.float64]:
        """Coordinate of each column, CXI frame, m."""
        return self._axis(1, self.orientation.column_sign)

    def _axis(self, axis: int, sign: int) -> NDArray[np.float64]:
        count = self.shape[axis]
        return self.center_m[axis] + sign * self.pixel_m * np.arange(
            -(count // 2), count - count // 2, dtype=float
        )

    def resample(
        self,
        image: NDArray,
        geometry: ScanGeometry,
        shift_m: tuple[float, float] = (0.0, 0.0),
        *,
        order: int = 5,
        outside: float = 1.0,
    ) -> NDArray:
        """Bring an image from the free-running grid of one energy to this grid, in one interpolation.

        Parameters
        ----------
        image : (my, mx) real or complex
            Array whose central pixel ``shape // 2`` lies at ``geometry.center_m``.
        geometry : ScanGeometry
        shift_m : (float, float)
            Displacement added to the image's content along rows and columns, m (registration).
        order : int
            Order of the spline (scipy.ndimage).
        outside : float
            Value beyond the image.

        Returns
        -------
        (ny, nx) of the same dtype
        """
        pixel = np.asarray(geometry.pixel_m)
        centre = self.displacement_m(geometry, shift_m) / pixel + np.asarray(image.shape) // 2
        scale = self.pixel_m / pixel
        offset = centre - scale * (np.asarray(self.shape) // 2)
        return ndimage.affine_transform(
            image, scale, offset, output_shape=self.shape, order=order, mode="constant", cval=outside
        ).astype(image.dtype, copy=False)

    def restore(
        self,
        image: NDArray,
        geometry: ScanGeometry,
        shape: tuple[int, int],
        shift_m: tuple[float, float] = (0.0, 0.0),
        *,
        order: int = 3,
    ) -> NDArray:
        """The way back of `resample`: an image on this grid to the free-running grid of one energy.

        Parameters
        ----------
        image : (ny, nx) real or complex
        geometry : ScanGeometry
        shape : (int, int)
            Of the free-running object.
        shift_m : (float, float)
            The displacement that `resample` was given, m.
        order : int
            Order of the spline (scipy.ndimage).

        Returns
        -------
        `shape` of the same dtype; 0 beyond the grid.
        """
        pixel = np.asarray(geometry.pixel_m)
        centre = np.asarray(self.shape) // 2 - self.displacement_m(geometry, shift_m) / self.pixel_m
        scale = pixel / self.pixel_m
        offset = centre - scale * (np.asarray(shape) // 2)
        return ndimage.affine_transform(
            image, scale, offset, output_shape=shape, order=order, mode="constant"
        ).astype(image.dtype, copy=False)

    def displacement_m(self, geometry: ScanGeometry, shift_m: tuple[float, float]) -> NDArray[np.float64]:
        """From the middle of an energy's object to that of this grid, (row, column) float64, m."""
        signs = np.array([self.orientation.row_sign, self.orientation.column_sign])
        return (np.asarray(self.center_m) - np.asarray(geometry.center_m)) * signs - np.asarray(shift_m)


def pixel_average(obj: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
    """Mean transmission over the area of each pixel, of an object that is sampled at the pixels' centres.

    A reconstruction is sharp up to half a period per pixel, and rings at the outline of a particle; areal
    densities of a pixel are means over its area. Multiplies the spectrum by sinc(q_y) sinc(q_x).

    Parameters
    ----------
    obj : (ny, nx) complex
        Transmission.

    Returns
    -------
    (ny, nx) complex64
    """
    rows, columns = (np.sinc(np.fft.fftfreq(n)) for n in obj.shape)
    return np.fft.ifft2(np.fft.fft2(obj) * rows[:, None] * columns[None, :]).astype(np.complex64)
