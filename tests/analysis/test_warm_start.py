"""A finished neighbour as first guess: brought to the new pixel and to where the sample has drifted."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ptychrome.analysis.engines import run, start
from ptychrome.analysis.options import EpieOptions, MlOptions
from ptychrome.analysis.scan import ScanGeometry, prepare
from ptychrome.analysis.warm_start import continue_from, drift_px

COLD = (EpieOptions(sweeps=6), MlOptions(sweeps=8, pixel_points=1))


@pytest.fixture(scope="module")
def finished(small_scan):
    """The small scan reconstructed: (data, result)."""
    data = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m)
    *_, last = run(data, start(data, small_scan.probe), COLD)
    return data, last


@pytest.mark.parametrize("drift", [(0.0, 0.0), (1.0, 0.0), (0.4, -0.7), (-1.0, 1.0)])
def test_a_known_drift_is_found(finished, drift):
    """±1 pixel within 0.1 of a pixel (2 nm here): a tenth of the noise of positions would not be seen."""
    data, result = finished
    change = ndimage.shift(result.object - 1, np.negative(drift), order=3, mode="constant")
    guess = replace(start(data, result.probe), object=(1 + change).astype(np.complex64))
    assert drift_px(data, guess) == pytest.approx(drift, abs=0.1)


def test_it_starts_where_the_neighbour_ended(small_scan, finished):
    """The same data again: the first sweep is as good as the last one was, and nothing given is altered."""
    data, result = finished
    before = result.object.copy()
    guess = continue_from(data, small_scan.geometry, result, small_scan.geometry)
    warm = next(iter(run(data, guess, (MlOptions(sweeps=1, pixel_points=1),))))
    assert warm.error[-1] < 1.1 * result.error[-1]
    assert guess.error == ()
    np.testing.assert_array_equal(result.object, before)


def test_another_wavelength_is_another_pixel(small_scan, finished):
    """Feature by feature in metres: at 1 % more energy the pixel is 1 % smaller."""
    _, result = finished
    geometry = small_scan.geometry
    other = ScanGeometry(
        geometry.energy_eV * 1.01, geometry.shape, geometry.detector_pixel_m, geometry.distance_m
    )
    data = prepare(small_scan.frames, other, small_scan.stage_yx_m)
    guess = continue_from(data, other, result, geometry)
    rows, columns = (np.arange(n) - n // 2 for n in guess.object.shape)
    dy, dx = other.pixel_m
    truth = small_scan.object_of(-rows[:, None] * dy, -columns * dx)
    seen = (np.abs(rows)[:, None] < 18) & (np.abs(columns) < 18)
    assert guess.object.shape == data.object_shape
    ours = guess.object[seen] * np.exp(-1j * np.angle(np.vdot(truth[seen], guess.object[seen])))
    # the frames are those of the other wavelength, so some drift may be made up: half a pixel on the edges
    assert np.corrcoef(np.angle(ours), np.angle(truth[seen]))[0, 1] > 0.97


def test_the_probe_is_scaled_to_the_photons_of_the_new_energy(small_scan, finished):
    _, result = finished
    fewer = prepare(small_scan.frames // 4, small_scan.geometry, small_scan.stage_yx_m)
    guess = continue_from(fewer, small_scan.geometry, result, small_scan.geometry)
    assert np.sum(np.abs(guess.probe) ** 2) == pytest.approx(fewer.photons, rel=1e-4)
