"""Exposures of the simulated beamline: determinism, units and every nuisance."""

from dataclasses import fields, replace

import numpy as np
import pytest

from ptychrome.devices.twin import Nuisances, TwinBeamline
from ptychrome.devices.twin.nuisances import Disturbances

OFF = {field.name: getattr(Nuisances.none(), field.name) for field in fields(Nuisances)}
SIZES = Nuisances(energy_offset_eV=0.5)  # its default is 0, which would hide it
NOT_SIZES = {"energy_drift_limit_m"}


def observed(twin):
    """Everything that one can see of a short scan: two energies, two positions each."""
    seen = [twin.detector.mask.copy(), np.array(twin.nominal_probe.defocus_m)]
    for twin.energy_eV in (5420.0, 5480.0):
        for x in (0.0, 0.3e-6):
            twin.stage_m = (x, 0.1e-6)
            exposure = twin.expose(1.0)
            seen += [exposure.counts, np.array(exposure.i0), np.array(exposure.ring_current_mA)]
    return seen


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def ideal(sample="P1", **kwargs):
    return TwinBeamline(sample, nuisances=Nuisances.none(), **kwargs)


def test_same_seed_and_same_calls_give_the_same_frames():
    assert same(observed(TwinBeamline("P2", seed=5)), observed(TwinBeamline("P2", seed=5)))
    assert not same(observed(TwinBeamline("P2", seed=5)), observed(TwinBeamline("P2", seed=6)))


@pytest.mark.parametrize("name", [field.name for field in fields(Nuisances) if field.name not in NOT_SIZES])
def test_each_nuisance_has_its_switch(name):
    """1e9 photons/s, so that the direct beam reaches the count-rate ceiling."""
    without = replace(SIZES, **{name: OFF[name]})
    assert without != SIZES
    real, better = (TwinBeamline(nuisances=nuisances, flux=1e9) for nuisances in (SIZES, without))
    assert not same(observed(real), observed(better))


def test_switching_one_off_leaves_the_others_as_they_were():
    """i0 depends on neither photon noise nor positions: each nuisance draws from a generator of its own."""
    calm = TwinBeamline(nuisances=replace(Nuisances(), poisson=False, position_error_m=0.0))
    noisy = TwinBeamline()
    assert [calm.expose(1.0).i0 for _ in range(3)] == [noisy.expose(1.0).i0 for _ in range(3)]


def test_an_ideal_beamline_repeats_itself():
    twin = ideal()
    first, second = twin.expose(1.0), twin.expose(1.0)
    assert np.array_equal(first.counts, second.counts)
    assert first.i0 == second.i0 == 1e8
    assert first.ring_current_mA == 100.0
    assert not twin.detector.mask.any()


def test_photons_are_flux_times_exposure_and_all_are_counted_in_vacuum():
    """Far from the particle the frame holds the whole beam; 0.1 %: the aperture's soft edge and rounding.

    The probe's tails 20 µm from its centre still touch the particle by less than that.
    """
    twin = ideal(flux=3e7)
    twin.nuisances = replace(twin.nuisances, pixel_integration=True)
    twin.stage_m = (20e-6, 20e-6)
    assert twin.expose(2.0).counts.sum() == pytest.approx(6e7, rel=1e-3)


def test_energy_is_conserved_in_the_particle():
    """Counts over incident photons = the transmission averaged over the probe's intensity.

    0.2 %: photons scattered beyond the edge of the frame (less than the frame's border sum suggests).
    """
    twin = ideal("D1", flux=1e10)
    twin.nuisances = replace(twin.nuisances, pixel_integration=True)
    frame = twin.expose(1.0)
    model = twin._forward_model()
    y, x = model._y.probe.at(0.0), model._x.probe.at(0.0)
    intensity = np.abs(np.outer(y, x)) ** 2 * twin.particle.pixel_m**2
    absorbed = np.sum(intensity * (1 - np.abs(1 + model._change) ** 2))
    assert frame.counts.sum() / frame.i0 == pytest.approx(1 - absorbed, rel=2e-3)
    assert 0.01 < absorbed < 0.3


def test_monitor_follows_the_incident_photons():
    """i0 over the true photons scatters by its own 0.1 %, the photons by 1 % (5 standard errors, n = 200)."""
    nuisances = replace(Nuisances.none(), i0_fluctuation=0.01, i0_noise=0.001, pixel_integration=True)
    twin = TwinBeamline("LiVO2", nuisances=nuisances)
    twin.stage_m = (20e-6, 20e-6)
    exposures = [twin.expose(1.0) for _ in range(200)]
    i0 = np.array([exposure.i0 for exposure in exposures])
    counted = np.array([exposure.counts.sum() for exposure in exposures])
    assert i0.std() / 1e8 == pytest.approx(0.01, rel=5 / np.sqrt(400))
    assert (i0 / counted).std() == pytest.approx(0.001, rel=5 / np.sqrt(400))


def test_closed_shutter_lets_nothing_through():
    twin = TwinBeamline()
    twin.shutter_open = False
    exposure = twin.expose(1.0)
    assert exposure.i0 == 0.0
    assert not exposure.counts[twin.detector.mask == 0].any()


def test_ring_current_decays_and_is_topped_up():
    twin = TwinBeamline("LiVO2")
    current = np.array([twin.expose(10.0).ring_current_mA for _ in range(60)])
    assert current.max() == 100.0
    assert 99.4 < current.min() < 99.6
    assert np.count_nonzero(np.diff(current) > 0) == 1
    assert twin.clock_s == 600.0


def test_drift_between_energies_is_bounded_and_of_the_stated_size():
    """rms step 20 nm before the pull to the middle: stationary rms 46 nm, cut at 100 nm (n = 400, ± 25 %)."""
    nuisances = replace(Nuisances(), slow_drift_m=0.0, position_error_m=0.0)
    disturbances = Disturbances(nuisances, 0, "P1")
    offsets = []
    for _ in range(400):
        disturbances.next_energy()
        offsets.append(disturbances.sample_offset_m(0.0))
    assert np.abs(offsets).max() == pytest.approx(100e-9)
    assert np.std(np.diff(offsets, axis=0)) == pytest.approx(20e-9, rel=0.25)


def test_small_readback_errors_of_the_energy_are_not_a_new_energy():
    twin = TwinBeamline(nuisances=replace(Nuisances(), slow_drift_m=0.0, position_error_m=0.0, poisson=False))
    twin.expose(1.0)
    model = twin._forward_model()
    twin.energy_eV += 1e-7
    assert twin._forward_model() is model


def test_object_is_finer_than_the_reconstruction():
    """At most half the reconstruction's pixel λz/(np) at the shortest wavelength of the scan."""
    twin = TwinBeamline(frame_pixels=256)
    pixel = 12398.42e-10 / 5540.0 * 1.273 / (256 * 75e-6)
    assert twin.particle.pixel_m <= pixel / 2


def test_nominal_defocus_is_off_by_the_nuisance():
    twin = TwinBeamline()
    assert twin.nominal_probe.defocus_m - twin.probe.defocus_m == pytest.approx(20e-6)
    assert twin.nominal_probe.fwhm_m == 300e-9


@pytest.mark.parametrize("travel_m", [75e-9, 150e-9, 300e-9])
def test_a_frame_in_motion_is_the_mean_of_many_short_ones(travel_m):
    """200 moments: their own rule is off by (π Δq T/200)²/6 < 1e-4 of the blur, itself 2e-2 at most; 1e-6.

    A frame at rest differs by 1e-3 to 2e-2 instead.
    """
    twin = ideal(frame_pixels=64)
    twin.energy_eV = 5480.0
    model = twin._forward_model()
    y, x, moments = 1e-7, 2e-7, (np.arange(200) + 0.5) / 200 - 0.5
    short = [model.expected(y - t * travel_m / 2, x + t * travel_m) for t in moments]
    expected = np.mean(short, axis=0, dtype=np.float64)
    blurred = model.expected_in_motion(y, x, (-travel_m / 2, travel_m))
    assert np.abs(blurred - expected).sum() < 3e-6 * expected.sum()
    assert np.abs(model.expected(y, x) - expected).sum() > 1e-3 * expected.sum()


def test_the_sample_moves_one_way_and_the_probe_over_it_the_other():
    """The mean of the places that the stage passes; half a count of rounding in 1e11 photons."""
    moving, resting = ideal(flux=1e11, frame_pixels=32), ideal(flux=1e11, frame_pixels=32)
    moving.stage_m = (1e-7, -5e-8)
    moving.stage_velocity_m_s = (4e-7, 2e-7)
    frame = moving.expose(0.5).counts.astype(float)
    frames = []
    for t in (np.arange(100) + 0.5) / 100 - 0.5:
        resting.stage_m = (1e-7 + t * 2e-7, -5e-8 + t * 1e-7)
        frames.append(resting.expose(0.5).counts)
    # 100 moments: see above
    np.testing.assert_allclose(frame, np.mean(frames, axis=0), rtol=1e-4, atol=1e-5 * frame.max())


@pytest.mark.parametrize("exposure_s", [0.0, -1.0, float("nan")])
def test_exposure_must_be_positive(exposure_s):
    with pytest.raises(ValueError, match="expected a positive time"):
        TwinBeamline().expose(exposure_s)


def test_energy_far_from_the_edge_is_refused():
    twin = TwinBeamline()
    twin.energy_eV = 7112.0
    with pytest.raises(ValueError, match="V K-edge only"):
        twin.expose(1.0)
