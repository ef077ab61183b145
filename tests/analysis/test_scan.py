"""Geometry of a scan: which way rows and columns run, where the probe hits, what counts as measured."""

import numpy as np
import pytest

from ptychrome.analysis.scan import DataError, Orientation, ScanGeometry, prepare

GEOMETRY = ScanGeometry(5480.0, (16, 24), (75e-6, 50e-6), 1.2)
STAGE = np.array([(0.0, 0.0), (1e-7, -2e-7), (-3e-7, 1e-7)])


def frames(dtype=np.uint32):
    return np.random.default_rng(0).poisson(50.0, (3, 16, 24)).astype(dtype)


@pytest.mark.parametrize(
    ("row_step", "column_step", "expected"),
    [
        ((0, -1, 0), (-1, 0, 0), Orientation(False, -1, -1)),
        ((0, 75e-6, 0), (50e-6, 0, 0), Orientation(False, 1, 1)),
        ((1, 0, 0), (0, -1, 0), Orientation(True, -1, 1)),
        ((-1, 0, 0), (0, 1, 0), Orientation(True, 1, -1)),
        ((0.01, -1, 0), (-1, -0.01, 0), Orientation(False, -1, -1)),  # 0.6 degrees askew
    ],
)
def test_orientation_from_basis_vectors(row_step, column_step, expected):
    assert Orientation.from_steps(row_step, column_step) == expected


@pytest.mark.parametrize(
    ("row_step", "column_step"),
    [((0, -1, 0), (0, -1, 0)), ((0.1, -1, 0), (-1, -0.1, 0)), ((0, 0, 1), (1, 0, 0)), ((1, 0, 0), (1, 0, 0))],
)
def test_a_detector_askew_is_refused(row_step, column_step):
    with pytest.raises(DataError, match="not along x and y"):
        Orientation.from_steps(row_step, column_step)


def test_pixel_follows_each_axis_of_the_detector():
    wavelength = 12398.42e-10 / 5480.0
    assert GEOMETRY.pixel_m == pytest.approx(
        (wavelength * 1.2 / (16 * 75e-6), wavelength * 1.2 / (24 * 50e-6)), rel=1e-12
    )


@pytest.mark.parametrize(("signs", "sense"), [((-1, -1), (1, 1)), ((1, -1), (-1, 1)), ((-1, 1), (1, -1))])
def test_the_probe_moves_over_the_sample_by_minus_the_stage(signs, sense):
    """With rows along −y, a sample lifted by one pixel is hit one pixel lower: one row further on."""
    geometry = ScanGeometry(5480.0, (16, 24), (75e-6, 50e-6), 1.2, Orientation(False, *signs))
    offsets = geometry.offsets_px(np.array([np.array(geometry.pixel_m) * (1, 2)]))
    np.testing.assert_allclose(offsets, [np.multiply(sense, (1, 2))], atol=1e-12)


def test_positions_far_from_the_stage_zero_need_no_larger_object():
    at_zero = prepare(frames(), GEOMETRY, STAGE)
    away = (400e-6, -250e-6)
    geometry = ScanGeometry(5480.0, (16, 24), (75e-6, 50e-6), 1.2, center_m=(-away[0], -away[1]))
    far = prepare(frames(), geometry, STAGE + away)
    assert far.object_shape == at_zero.object_shape
    np.testing.assert_array_equal(far.corner, at_zero.corner)
    np.testing.assert_allclose(far.fraction, at_zero.fraction, atol=1e-6)


def test_windows_lie_within_the_object_and_positions_are_whole_plus_fraction():
    data = prepare(frames(), GEOMETRY, STAGE)
    assert (data.corner >= 0).all()
    assert (data.corner + np.array((16, 24)) <= data.object_shape).all()
    assert np.abs(data.fraction).max() <= 0.5
    middle = data.corner + (np.array((16, 24)) - data.object_shape) // 2
    np.testing.assert_allclose(middle + data.fraction, GEOMETRY.offsets_px(STAGE), atol=1e-6)


def test_counts_become_amplitudes_with_the_centre_in_the_corner():
    data = prepare(frames(), GEOMETRY, STAGE)
    np.testing.assert_allclose(data.amplitude[:, 0, 0], np.sqrt(frames()[:, 8, 12]), rtol=1e-6)
    assert data.photons == pytest.approx(frames().sum(axis=(1, 2)).max(), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64])
def test_any_number_type_gives_the_same(dtype):
    plain = prepare(frames(), GEOMETRY, STAGE).amplitude
    np.testing.assert_array_equal(prepare(frames(dtype), GEOMETRY, STAGE).amplitude, plain)


@pytest.mark.parametrize(("dtype", "flag"), [(np.float32, np.nan), (np.int16, -1), (np.uint16, 2**16 - 1)])
def test_flagged_pixels_are_left_free_and_do_not_count(dtype, flag):
    flagged = frames(dtype)
    flagged[:, 3, 5] = flag
    data = prepare(flagged, GEOMETRY, STAGE)
    shifted = np.fft.fftshift(data.amplitude, axes=(1, 2))
    assert (shifted[:, 3, 5] == -1).all()
    assert np.count_nonzero(data.amplitude < 0) == 3
    rest = frames().sum(axis=(1, 2)) - frames()[:, 3, 5].astype(int)
    assert data.photons == pytest.approx(rest.max(), rel=1e-6)


def test_dark_counts_are_subtracted_and_never_leave_negative_ones():
    dark = np.full((16, 24), 45.0)
    data = prepare(frames(), GEOMETRY, STAGE, dark=dark)
    expected = np.sqrt(np.clip(frames().astype(float) - 45, 0, None))
    np.testing.assert_allclose(np.fft.fftshift(data.amplitude, axes=(1, 2)), expected, rtol=1e-6)


@pytest.mark.parametrize("i0", [[1.0, 0.0, 1.0], [1.0, np.nan, 1.0], [1.0, -1.0, 1.0]])
def test_impossible_incident_intensities_are_refused(i0):
    with pytest.raises(DataError, match=r"5480\.00 eV is not positive"):
        prepare(frames(), GEOMETRY, STAGE, i0=np.array(i0))


def test_one_frame_may_be_empty_but_not_all():
    some = frames()
    some[1] = 0
    assert (prepare(some, GEOMETRY, STAGE).amplitude[1] == 0).all()
    with pytest.raises(DataError, match="all 3 frames"):
        prepare(np.zeros_like(some), GEOMETRY, STAGE)
