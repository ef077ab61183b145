"""Resampling to the common grid and back: coordinates, the free-running pixel, shifts, pixel averages."""

import numpy as np
import pytest

from ptychrome.analysis.grid import CommonGrid, pixel_average
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


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("detector_pixel_m", [(75e-6, 75e-6), (75e-6, 60e-6)])
@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (0.4, -1.3)])
def test_restore_is_the_way_back(signs, detector_pixel_m, shift_px):
    """Where the grid covers the object; 1e-3 of a contrast of 0.5: a cubic spline twice (measured 6e-4)."""
    all_of_them = geometries(Orientation(False, *signs), detector_pixel_m)
    grid = CommonGrid.covering(EXTENT, all_of_them, 0.4e-6)
    shift_m = (shift_px[0] * grid.pixel_m, shift_px[1] * grid.pixel_m)
    for geometry in all_of_them:
        image = drawn(geometry) - 1
        brought = grid.resample(image, geometry, shift_m, outside=0.0)
        back = grid.restore(brought, geometry, image.shape, shift_m)
        covered = grid.restore(np.ones(grid.shape, np.float32), geometry, image.shape, shift_m, order=1) == 1
        assert covered.sum() > 1000
        assert back.dtype == image.dtype
        assert np.abs(back - image)[covered].max() < 1e-3


def test_restore_leaves_zero_beyond_the_grid():
    grid = CommonGrid.covering(EXTENT, geometries(), 0.0)
    back = grid.restore(np.ones(grid.shape, np.float32), geometries()[1], (150, 140), order=1)
    assert back.max() == pytest.approx(1)
    assert back[0, 0] == back[-1, -1] == 0


@pytest.mark.parametrize(
    ("periods", "shape"), [((3, 0), (64, 48)), ((5, -7), (64, 48)), ((20, 11), (63, 49))]
)
def test_a_plane_wave_is_averaged_by_a_sinc(periods, shape):
    """∫ exp(2πiqx) over a pixel is the wave at its centre times sin(πq)/(πq)."""
    rows, columns = np.indices(shape)
    q = np.array(periods) / shape
    wave = np.exp(2j * np.pi * (q[0] * rows + q[1] * columns))
    np.testing.assert_allclose(pixel_average(wave), wave * np.prod(np.sinc(q)), atol=1e-6)


def test_pixel_average_is_the_mean_over_finer_pixels():
    """9 × 9 points in each pixel of a smooth image, against the average from the points at the centres."""
    fine, n = 9, 40
    axis = (np.arange(n * fine) - (fine - 1) / 2) / fine
    y, x = np.meshgrid(axis, axis, indexing="ij")
    image = 1 - (0.4 + 0.3j) * np.exp(-((y - 19.3) ** 2 + (x - 21.1) ** 2) / 3.0**2)
    expected = image.reshape(n, fine, n, fine).mean(axis=(1, 3))
    centres = image[fine // 2 :: fine, fine // 2 :: fine]
    assert np.abs(centres - expected).max() > 5e-3
    np.testing.assert_allclose(pixel_average(centres), expected, atol=2e-4)
