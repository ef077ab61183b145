"""What cannot be reconstructed ends in a clear error or in a result without NaN, never in NaN maps."""

import numpy as np
import pytest

from ptychrome.analysis.engines import ReconstructionError, run, start
from ptychrome.analysis.options import EpieOptions, MlOptions, RaarOptions, RpieOptions
from ptychrome.analysis.scan import DataError, prepare

STAGES = [
    EpieOptions(sweeps=3),
    RpieOptions(sweeps=3, momentum=0.5, intensity_error=0.01),
    RaarOptions(sweeps=3, position_error_m=5e-9, intensity_error=0.01),
    MlOptions(sweeps=3, position_error_m=5e-9, intensity_error=0.01),
    MlOptions(sweeps=3, likelihood="poisson"),
]
every_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage.engine}-{stage.likelihood}")


def changed(array, where, value):
    out = array.copy()
    out[where] = value
    return out


REFUSED = {
    "one frame less": (lambda s: (s.frames[:-1], s.stage_yx_m, {}), "80 frames but 81 positions"),
    "one position": (lambda s: (s.frames[:1], s.stage_yx_m[:1], {}), "only 1 position"),
    "no photons": (lambda s: (np.zeros_like(s.frames), s.stage_yx_m, {}), "are empty; expected photons"),
    "dark larger than counts": (
        lambda s: (s.frames, s.stage_yx_m, {"dark": np.full(s.frames.shape[1:], 1e9)}),
        "dark was subtracted, which is larger",
    ),
    "dark of another shape": (lambda s: (s.frames, s.stage_yx_m, {"dark": np.ones(5)}), "the dark .* shape"),
    "mask of another shape": (
        lambda s: (s.frames, s.stage_yx_m, {"mask": np.ones((3, 3))}),
        "the mask .* sha",
    ),
    "everything masked": (
        lambda s: (s.frames, s.stage_yx_m, {"mask": np.ones(s.frames.shape[1:])}),
        "no pixel .* is measured: all are masked",
    ),
    "only NaN": (lambda s: (np.full(s.frames.shape, np.nan), s.stage_yx_m, {}), "no pixel .* is measured"),
    "only saturated": (
        lambda s: (np.full_like(s.frames, 2**32 - 1), s.stage_yx_m, {}),
        "no pixel .* is measured",
    ),
    "NaN positions": (lambda s: (s.frames, np.full_like(s.stage_yx_m, np.nan), {}), "hold NaN"),
    "frames of another shape": (lambda s: (s.frames[:, :32], s.stage_yx_m, {}), "have shape"),
    "the stage did not move": (lambda s: (s.frames, 0 * s.stage_yx_m, {}), "are the same"),
    "positions in mm": (lambda s: (s.frames, s.stage_yx_m * 1e3, {}), "in µm or mm"),
    "positions in µm": (lambda s: (s.frames, s.stage_yx_m * 1e6, {}), "spread over .* in µm or mm"),
    "far apart": (lambda s: (s.frames, s.stage_yx_m * 40, {}), "windows apart .* overlapping"),
    "i0 infinite": (
        lambda s: (s.frames, s.stage_yx_m, {"i0": changed(np.ones(81), 3, np.inf)}),
        "not positive everywhere",
    ),
    "i0 zero": (lambda s: (s.frames, s.stage_yx_m, {"i0": np.zeros(81)}), "not positive everywhere"),
    "i0 of too few": (lambda s: (s.frames, s.stage_yx_m, {"i0": np.ones(80)}), r"expected \(81,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_data_are_refused(small_scan, case):
    change, message = REFUSED[case]
    frames, stage, extra = change(small_scan)
    with pytest.raises(DataError, match=message):
        prepare(frames, small_scan.geometry, stage, **extra)


PROBES = {
    "too small": (lambda p: p[:32, :32], "has shape"),
    "one axis too small": (lambda p: np.pad(p, ((0, 0), (32, 32)))[:60], "has shape"),
    "of four dimensions": (lambda p: p[None, None], "has shape"),
    "empty": (lambda p: p * 0, "empty or holds NaN"),
    "with NaN": (lambda p: changed(p, (3, 4), np.nan), "empty or holds NaN"),
    "sent elsewhere": (
        lambda p: p * np.exp(2j * np.pi * 0.4 * np.arange(64)),
        "light to different pixels .* beam's centre",
    ),
}


@pytest.mark.parametrize("case", PROBES)
def test_an_impossible_probe_is_refused(small_scan, case):
    change, message = PROBES[case]
    data = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m)
    with pytest.raises(ReconstructionError, match=message):
        start(data, change(small_scan.probe))


def test_a_direct_beam_that_is_not_measured_is_refused(small_scan):
    mask = changed(np.ones(small_scan.frames.shape[1:]), np.s_[:20, :20], 0)
    data = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m, mask=mask)
    with pytest.raises(ReconstructionError, match=r"of the direct beam falls on measured .* expose shorter"):
        start(data, small_scan.probe)


def test_the_start_has_the_light_of_saturated_pixels_too(small_scan):
    frames = changed(small_scan.frames, np.s_[:, 28:34, 30:36], 2**32 - 1)
    whole, part = (
        prepare(f, small_scan.geometry, small_scan.stage_yx_m) for f in (small_scan.frames, frames)
    )
    assert part.photons < 0.6 * whole.photons
    guess = start(part, small_scan.probe)
    power = np.sum(np.abs(guess.probe) ** 2)
    assert power == pytest.approx(whole.photons, rel=0.15)  # the sample scatters some of it
    *_, last = run(part, guess, (MlOptions(sweeps=3, pixel_points=1, fixed_power=True),))
    assert np.sum(np.abs(last.probe) ** 2) == pytest.approx(power, rel=0.05)


def test_positions_farther_apart_than_the_probe_is_wide_are_refused(small_scan):
    data = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m * 10)
    with pytest.raises(ReconstructionError, match="needs overlap: check the step and the probe"):
        start(data, small_scan.probe)


def test_a_guess_for_other_positions_is_refused(small_scan):
    data = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m)
    other = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m * 1.5)
    with pytest.raises(ReconstructionError, match="for the same positions"):
        next(iter(run(other, start(data, small_scan.probe), STAGES)))


TOLERATED = {
    "as they are": lambda f: (f, {}),
    "every third frame empty": lambda f: (changed(f, slice(None, None, 3), 0), {}),
    "a NaN frame": lambda f: (changed(f.astype(np.float32), 4, np.nan), {}),
    "NaN and infinite pixels": lambda f: (
        changed(changed(f.astype(np.float32), np.s_[:, 3:9, 30], np.nan), np.s_[:, 40, 40], np.inf),
        {},
    ),
    "negative pixels": lambda f: (changed(f.astype(np.float32), np.s_[:, 3:9, 20], -7.5), {}),
    "negative integers": lambda f: (changed(f.astype(np.int32), np.s_[:, 3:9, 20], -2), {}),
    "a saturated direct beam": lambda f: (changed(f, np.s_[:, 30:34, 30:34], 2**32 - 1), {}),
    "dark larger than most counts": lambda f: (f, {"dark": np.full(f.shape[1:], np.median(f) + 5.0)}),
    "dark with NaN": lambda f: (f, {"dark": changed(np.zeros(f.shape[1:]), (5, 5), np.nan)}),
    "one photon": lambda f: (changed(np.zeros_like(f), (0, 32, 32), 1), {}),
}


@every_stage
@pytest.mark.parametrize("case", TOLERATED)
def test_what_is_missing_is_left_free(small_scan, case, stage):
    """A finite result, or an error that says why; never NaN."""
    frames, extra = TOLERATED[case](small_scan.frames)
    data = prepare(frames, small_scan.geometry, small_scan.stage_yx_m, **extra)
    *_, last = run(data, start(data, small_scan.probe), (stage,))
    for array in (last.object, last.probe, last.illumination, last.error, last.shift_px, last.scale):
        assert np.isfinite(array).all()
    assert np.isfinite(last.frame_error).all()


def test_empty_frames_stand_out(small_scan):
    frames = changed(small_scan.frames, [7, 40], 0)
    data = prepare(frames, small_scan.geometry, small_scan.stage_yx_m)
    *_, last = run(data, start(data, small_scan.probe), (MlOptions(sweeps=6, pixel_points=1),))
    assert set(np.argsort(last.frame_error)[-2:]) == {7, 40}


@every_stage
def test_a_guess_with_nan_is_an_error_not_a_picture(small_scan, stage):
    data = prepare(small_scan.frames, small_scan.geometry, small_scan.stage_yx_m)
    guess = start(data, small_scan.probe)
    guess.object[30, 30] = np.nan
    with pytest.raises(ReconstructionError, match="diverged in sweep 1"):
        list(run(data, guess, (stage,)))
