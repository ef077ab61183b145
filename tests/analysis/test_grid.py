"""Resampling to the common grid: coordinates, the free-running pixel, and the sign of a shift."""

import numpy as np
import pytest

from ptychrome.analysis.grid import CommonGrid
from ptychrome.analysis.scan import Orientation, ScanGeometry

EXTENT = ((-0.5e-6, 0.7e-6), (2.0e-6, 3.0e-6))  # of the stage: the sample's field is minus that
CENTRE = (-0.1e-6, -2.5e-6)
SIGNS = [(-1, -1), (1, -1), (-1, 1), (1, 1)]


def geometries(orientation=Orientation(), detector_pixel_m=(75e-6, 75e-6)):
    return [
        ScanGeometry(energy, (96, 96), detector_pixel_m, 1.27, orientation, CENTRE)
        for energy in (5420.0, 5480.0, 5540.0)
    ]


def function(y_m, x_m):
    """Smooth on the scale of three pixels of 38 nm, complex, without symmetry."""
    a = np.exp(-((y_m + 0.2e-6) ** 2 + (x_m + 2.7e-6) ** 2) / 0.2e-6**2)
    b = np.exp(-((y_m - 0.1e-6) ** 2 / 0.15e-6**2 + (x_m + 2.4e-6) ** 2 / 0.3e-6**2))
    return 1 + (0.3 - 0.5j) * a - (0.1 + 0.4j) * b


def drawn(geometry, shape=(150, 140)):
    """The function on the free-running grid of one energy."""
    signs = (geometry.orientation.row_sign, geometry.orientation.column_sign)
    y, x = (
        geometry.center_m[i] + signs[i] * geometry.pixel_m[i] * (np.arange(shape[i]) - shape[i] // 2)
        for i in (0, 1)
    )
    return function(y[:, None], x).astype(np.complex64)


def test_grid_covers_the_field_with_the_coarsest_pixel():
    grid = CommonGrid.covering(EXTENT, geometries(), margin_m=0.3e-6)
    assert grid.pixel_m == max(max(g.pixel_m) for g in geometries()) == geometries()[0].pixel_m[0]
    assert grid.center_m == pytest.approx(CENTRE)
    assert grid.y_m.min() <= -0.7e-6 - 0.3e-6 < grid.y_m.min() + grid.pixel_m
    assert grid.x_m.max() >= -2.0e-6 + 0.3e-6 > grid.x_m.max() - grid.pixel_m
    assert grid.shape == (len(grid.y_m), len(grid.x_m))


@pytest.mark.parametrize("signs", SIGNS)
def test_coordinates_run_as_the_detector(signs):
    grid = CommonGrid.covering(EXTENT, geometries(Orientation(False, *signs)), 0.0)
    assert np.diff(grid.y_m) == pytest.approx(signs[0] * grid.pixel_m)
    assert np.diff(grid.x_m) == pytest.approx(signs[1] * grid.pixel_m)
    assert grid.y_m[grid.shape[0] // 2] == pytest.approx(CENTRE[0])


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("detector_pixel_m", [(75e-6, 75e-6), (75e-6, 60e-6)])
def test_every_energy_comes_to_the_same_points(signs, detector_pixel_m):
    """2e-4: the spline's error for a Gaussian of σ = 2.8 to 4 pixels (measured 1e-4); the contrast is 0.5."""
    all_of_them = geometries(Orientation(False, *signs), detector_pixel_m)
    grid = CommonGrid.covering(EXTENT, all_of_them, 0.2e-6)
    truth = function(grid.y_m[:, None], grid.x_m)
    for geometry in all_of_them:
        assert np.abs(grid.resample(drawn(geometry), geometry) - truth).max() < 2e-4


@pytest.mark.parametrize("signs", SIGNS)
def test_a_shift_moves_the_content_along_rows_and_columns(signs):
    """Content moved by one row appears one index further on, whichever way the row runs."""
    geometry = geometries(Orientation(False, *signs))[1]
    grid = CommonGrid.covering(EXTENT, [geometry], 0.2e-6)
    image = drawn(geometry)
    still = grid.resample(image, geometry)
    moved = grid.resample(image, geometry, (2 * grid.pixel_m, -1 * grid.pixel_m))
    assert np.abs(moved[2:, :-1] - still[:-2, 1:]).max() < 1e-5


def test_another_centre_does_not_move_the_sample():
    """Geometries drawn around other points still land on the same coordinates."""
    grid = CommonGrid.covering(EXTENT, geometries(), 0.2e-6)
    elsewhere = ScanGeometry(5480.0, (96, 96), (75e-6, 75e-6), 1.27, center_m=(0.05e-6, -2.6e-6))
    truth = function(grid.y_m[:, None], grid.x_m)
    assert np.abs(grid.resample(drawn(elsewhere), elsewhere) - truth).max() < 2e-4


def test_what_lies_outside_is_vacuum():
    grid = CommonGrid.covering(EXTENT, geometries(), 0.2e-6)
    small = np.full((5, 5), 0.5 + 0j, np.complex64)
    corner = grid.resample(small, geometries()[0])[0, 0]
    assert corner == 1.0
    assert grid.resample(np.ones((5, 5), np.float32), geometries()[0], outside=0.0)[0, 0] == 0.0
