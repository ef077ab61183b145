"""Engines against what goes wrong in a measurement, on frames of the twin's own forward model.

144 frames of 64² at 1e8 photons, integrated per detector pixel; object pixels of 60 nm. At this pixel the
phase of a perfect measurement is off by 7 mrad for want of resolution: costs are given against that.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator
from skimage.registration import phase_cross_correlation

from ptychrome.analysis.engines import run, start
from ptychrome.analysis.normalise import normalise
from ptychrome.analysis.optics import kb_probe
from ptychrome.analysis.options import EpieOptions, MlOptions
from ptychrome.analysis.scan import ScanGeometry, prepare
from ptychrome.devices.twin import TwinBeamline
from ptychrome.devices.twin.beamline import ForwardModel
from ptychrome.devices.twin.detector import eiger
from ptychrome.devices.twin.states import transmission
from ptychrome.plans import positions, square

N = 64
ENERGY_EV = 5540.0
DEFOCUS_M = 0.4e-3
PHOTONS = 1e8
GEOMETRY = ScanGeometry(ENERGY_EV, (N, N), (75e-6, 75e-6), 1.273)
STAGE = np.array(positions(dict(square(1.65e-6, 150e-9))))[:, ::-1].copy()
WHOLE = eiger(N, gap=False, dead_pixels=0)
PARTICLE = TwinBeamline("P1", frame_pixels=N).particle
PROBE = TwinBeamline("P1", frame_pixels=N).probe


def recipe(length=1, **common):
    """Far from the solution ePIE, then likelihood in groups, then all positions together."""
    return (
        EpieOptions(sweeps=10, **{k: v for k, v in common.items() if k == "probe_modes"}),
        MlOptions(sweeps=20 * length, groups=4, **common),
        MlOptions(sweeps=10 * length, **common),
    )


@dataclass(frozen=True)
class Score:
    """Robust errors of −ln|O| and phase [rad] in the particle, and the median of |O − truth|."""

    absorption: float
    phase: float
    wave: float


def frames(stage=STAGE, detector=WHOLE, split_m=0.0):
    """Frames of a probe, or of two of half the power that stand 2 `split_m` apart along x."""
    model = ForwardModel(PARTICLE, PROBE, WHOLE, ENERGY_EV)
    rng = np.random.default_rng(1)
    found = []
    for y, x in stage:
        expected = (model.expected(-y, -x - split_m) + model.expected(-y, -x + split_m)) / 2
        found.append(detector.read(PHOTONS * expected, 1.0, rng))
    return np.array(found)


def reconstruct(counts, stages, *, mask=None, defocus_m=DEFOCUS_M):
    data = prepare(counts, GEOMETRY, STAGE, mask=mask)
    probe = kb_probe(
        (2 * N, 2 * N),
        GEOMETRY.pixel_m,
        ENERGY_EV,
        fwhm_m=PROBE.fwhm_m,
        fwhm_energy_eV=PROBE.fwhm_energy_eV,
        defocus_m=defocus_m,
    )
    *_, last = run(data, start(data, probe), stages)
    return last


def truth_at(shape, shift_m):
    """True transmission on the grid of an object whose particle stands off by a shift."""
    wave = transmission(PARTICLE.areal_density, PARTICLE.states, ENERGY_EV)
    axes = (PARTICLE.y_m[::-1], PARTICLE.x_m[::-1])
    at = RegularGridInterpolator(axes, wave[::-1, ::-1], bounds_error=False, fill_value=1.0)
    grid = [
        -(np.arange(n) - n // 2) * pixel + shift
        for n, pixel, shift in zip(shape, GEOMETRY.pixel_m, shift_m, strict=True)
    ]
    return at(tuple(np.meshgrid(*grid, indexing="ij")))


def score(result):
    shape = result.object.shape
    lit = result.illumination > 0.05 * result.illumination.max()
    matter = ndimage.binary_dilation(np.abs(truth_at(shape, (0, 0)) - 1) > 1e-6, iterations=2)
    ours = normalise(result.object, lit, lit & ~matter).object
    shift = np.zeros(2)
    for _ in range(3):
        pair = (np.angle(wave) * lit for wave in (truth_at(shape, shift), ours))
        shift -= phase_cross_correlation(*pair, upsample_factor=200, normalization=None)[0] * GEOMETRY.pixel_m
    truth = truth_at(shape, shift)
    core = (np.abs(truth - 1) > 0.1) & (result.illumination > 0.2 * result.illumination.max())
    assert core.sum() > 150
    ratio = np.log(ours[core] / truth[core])
    return Score(_robust(ratio.real), _robust(ratio.imag), float(np.median(np.abs(ours[core] - truth[core]))))


def _robust(values):
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


@pytest.fixture(scope="module")
def perfect():
    return score(reconstruct(frames(), recipe()))


def test_a_perfect_measurement(perfect):
    """Measured 1.8e-3, 6.7e-3, 4.9e-3."""
    assert perfect.absorption < 2.3e-3
    assert perfect.phase < 8e-3
    assert perfect.wave < 6e-3


def test_position_errors_of_30_nm_are_found(perfect):
    """Measured: 29 nm rms become 1 nm, at no cost; without refinement the wave is off threefold.

    With pixels of 30 nm (128²) and 48 sweeps of likelihood 29 nm become 1.3 nm; the absorption's error is
    then 0.7 times the perfect one, the phase's 1.12 times.
    """
    off = 30e-9 * np.random.default_rng(5).standard_normal(STAGE.shape)
    counts = frames(STAGE + off)
    result = reconstruct(counts, recipe(position_error_m=30e-9))
    left = result.shift_px - (GEOMETRY.offsets_px(STAGE + off) - GEOMETRY.offsets_px(STAGE))
    assert (left.std(axis=0) * GEOMETRY.pixel_m < 4e-9).all()
    found = score(result)
    assert found.absorption < 1.2 * perfect.absorption
    assert found.phase < 1.2 * perfect.phase
    assert score(reconstruct(counts, recipe())).wave > 2 * perfect.wave


@pytest.mark.parametrize("error_m", [-0.5e-3, 0.5e-3])
def test_a_start_probe_half_a_millimetre_out_of_focus_is_corrected(perfect, error_m):
    """Measured 0.97 and 0.94 of the perfect absorption's error, 1.01 and 1.00 of the phase's."""
    found = score(reconstruct(frames(), recipe(), defocus_m=DEFOCUS_M + error_m))
    assert found.absorption < 1.2 * perfect.absorption
    assert found.phase < 1.2 * perfect.phase


def test_two_modes_describe_a_beam_of_80_percent_coherence(perfect):
    """Two probes with an overlap of 0.6 have modes of 0.8 and 0.2.

    Measured: the wave is off by 5.7e-3 (perfect 4.9e-3), with one mode by 15.5e-3; R 0.0039 against 0.0110.
    The second mode has 0.19 of the power, the absorption 1.24 and the phase 1.17 times the perfect error.
    """
    split_m = 9e-8
    axis = np.linspace(-20e-6, 20e-6, 8001)
    left, right = (PROBE.factors(axis, ENERGY_EV).at(sign * split_m) for sign in (-1, 1))
    assert abs(np.vdot(left, right)) / np.vdot(left, left).real == pytest.approx(0.6, abs=0.02)
    counts = frames(split_m=split_m)
    one, two = reconstruct(counts, recipe()), reconstruct(counts, recipe(2, probe_modes=2))
    power = np.sum(np.abs(two.probe) ** 2, axis=(1, 2))
    assert power[1] / power.sum() == pytest.approx(0.2, abs=0.02)
    assert two.error[-1] < 0.5 * one.error[-1]
    assert score(two).wave < 1.2 * perfect.wave
    assert score(two).absorption < 1.4 * perfect.absorption
    assert score(two).phase < 1.3 * perfect.phase


def test_dead_pixels_and_a_saturated_direct_beam_cost_little(perfect):
    """5 % dead pixels; half of the direct beam's pixels saturate, and with them goes 57 % of the light.

    Measured: 6 % more error of absorption, none of phase. With pixels of 30 nm (128²), where photons limit
    and not resolution, 45 % and 52 % more: 1/√0.43 is 1.52.
    """
    detector = eiger(N, gap=False, dead_pixels=N * N // 20, ceiling_hz=7.5e5)
    counts = frames(detector=detector)
    flagged = counts == detector.flag
    light = np.sum(counts, where=~flagged, dtype=float) / np.sum(frames(), dtype=float)
    assert light < 0.5
    found = score(reconstruct(counts, recipe(), mask=detector.mask))
    assert found.absorption < 1.2 * perfect.absorption
    assert found.phase < 1.2 * perfect.phase


def test_most_of_the_direct_beam_may_saturate(perfect):
    """With it go 87 % of the light; measured with twice the sweeps: 1.48 (absorption) and 0.92 (phase)."""
    detector = eiger(N, gap=False, dead_pixels=N * N // 20, ceiling_hz=5e5)
    found = score(reconstruct(frames(detector=detector), recipe(2), mask=detector.mask))
    assert found.absorption < 2 * perfect.absorption
    assert found.phase < 1.2 * perfect.phase


def test_a_gap_close_to_the_beam_costs_absorption(perfect):
    """From the twentieth row on nothing is measured: beyond that frequency one side of the object's spectrum.

    So phase and absorption cannot be told apart there. Measured: the absorption's error 2.5 times the perfect
    one, the phase's the same. The gap's usual place, 48 rows from the beam, is beyond these frames.
    """
    detector = eiger(N, gap=True, gap_offset=20, dead_pixels=N * N // 20)
    found = score(reconstruct(frames(detector=detector), recipe(), mask=detector.mask))
    assert found.absorption < 3 * perfect.absorption
    assert found.phase < 1.2 * perfect.phase
    assert found.wave < 1.6 * perfect.wave
