"""Engines against the known truth of a small scan."""

import numpy as np
import pytest

from ptychrome.analysis.engines import ReconstructionError, run, start
from ptychrome.analysis.options import EpieOptions, MlOptions
from ptychrome.analysis.scan import DataError, prepare

EPIE = EpieOptions(sweeps=12)
ML = MlOptions(sweeps=12, pixel_modes=1)


def reconstruct(scan, stages, **changes):
    data = prepare(scan.frames, scan.geometry, scan.stage_yx_m, **changes)
    *_, last = run(data, start(data, scan.probe), stages)
    return last


def truth_on(scan, result):
    rows, columns = (np.arange(n) - n // 2 for n in result.object.shape)
    dy, dx = scan.geometry.pixel_m
    return scan.object_of(-rows[:, None] * dy, -columns[None, :] * dx)


def error_against_truth(scan, result):
    lit = result.illumination > 0.2 * result.illumination.max()
    truth = truth_on(scan, result)[lit]
    ours = result.object[lit]
    ours = ours * np.vdot(ours, truth) / np.vdot(ours, ours)
    return np.sqrt(np.mean(np.abs(ours - truth) ** 2))


def test_epie_finds_the_object(small_scan):
    # 1e7 photons on 64² pixels give a shot-noise reference of about 0.004; ePIE stands at 3-4 times that
    assert error_against_truth(small_scan, reconstruct(small_scan, (EPIE,))) < 0.02


def test_maximum_likelihood_comes_closer_to_the_photon_limit_than_epie(small_scan):
    """√I of Poisson counts has variance 1/4 where bright, less where dark: R² = n_pixels / (4 photons)."""
    limit = np.sqrt(small_scan.frames[0].size / 4 / small_scan.frames.sum(axis=(1, 2)).max())
    both = reconstruct(small_scan, (EPIE, MlOptions(sweeps=20, pixel_modes=1)))
    epie = reconstruct(small_scan, (EpieOptions(sweeps=32),))
    assert both.error[-1] < 1.1 * limit
    assert epie.error[-1] > 1.3 * limit


def test_error_is_recorded_for_each_sweep_and_falls(small_scan):
    result = reconstruct(small_scan, (EPIE, ML))
    assert len(result.error) == 24
    assert result.error[-1] < 0.3 * result.error[0]


def test_object_is_neither_flipped_nor_rotated(small_scan):
    result = reconstruct(small_scan, (EPIE,))
    truth = truth_on(small_scan, result)
    views = {
        "as it is": truth,
        "rows flipped": truth[::-1],
        "columns flipped": truth[:, ::-1],
        "turned": truth[::-1, ::-1],
        "transposed": truth.T,
        "conjugate": np.conj(truth),
    }
    lit = result.illumination > 0.2 * result.illumination.max()
    contrast = {name: abs(np.vdot(result.object[lit] - 1, view[lit] - 1)) for name, view in views.items()}
    assert max(contrast, key=contrast.get) == "as it is", contrast


def test_masked_pixels_are_left_free(small_scan):
    broken = small_scan.frames.copy()
    mask = np.zeros(broken.shape[1:], np.uint32)
    mask[20:24] = 1
    broken[:, 20:24] = 12345
    data = prepare(broken, small_scan.geometry, small_scan.stage_yx_m, mask=mask)
    *_, last = run(data, start(data, small_scan.probe), (EPIE,))
    assert error_against_truth(small_scan, last) < 0.03


def test_minus_one_and_the_largest_count_mark_pixels_not_measured(small_scan):
    signed = small_scan.frames.astype(np.int32)
    signed[5, 3, 4] = -1
    signed[6, 30, 31] = np.iinfo(np.int32).max
    data = prepare(signed, small_scan.geometry, small_scan.stage_yx_m)
    assert np.count_nonzero(data.amplitude < 0) == 2


def test_incident_intensity_is_divided_out(small_scan):
    i0 = np.random.default_rng(0).uniform(0.8, 1.2, len(small_scan.frames))
    i0 /= i0.mean()
    flickering = np.round(small_scan.frames * i0[:, None, None]).astype(np.uint32)
    data = prepare(flickering, small_scan.geometry, small_scan.stage_yx_m, i0=i0)
    steady = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m)
    # rounding to whole counts is all that differs
    np.testing.assert_allclose(data.amplitude**2, steady.amplitude**2, atol=1.0, rtol=1e-5)


def test_supplied_probe_is_not_altered(small_scan):
    before = small_scan.probe.copy()
    reconstruct(small_scan, (EPIE,))
    np.testing.assert_array_equal(small_scan.probe, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s.frames[:-1], s.stage_yx_m), "80 frames but 81 positions"),
        (lambda s: (s.frames[:1], s.stage_yx_m[:1]), "only 1 position"),
        (lambda s: (np.zeros_like(s.frames), s.stage_yx_m), "are empty"),
        (lambda s: (s.frames, np.full_like(s.stage_yx_m, np.nan)), "NaN"),
        (lambda s: (s.frames[:, :32], s.stage_yx_m), "shape"),
    ],
)
def test_impossible_data_are_refused(small_scan, change, message):
    frames, stage = change(small_scan)
    with pytest.raises(DataError, match=message):
        prepare(frames, small_scan.geometry, stage)


def test_divergence_is_an_error_not_a_picture(small_scan):
    data = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m)
    guess = start(data, small_scan.probe)
    guess.object[30, 30] = np.nan
    with pytest.raises(ReconstructionError, match="diverged"):
        list(run(data, guess, (EPIE,)))
