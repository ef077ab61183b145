"""Utilities of daily use on the simulated beamline, against what the twin knows. Takes a minute."""

from dataclasses import replace

import numpy as np
import pytest
from bluesky import RunEngine

from ptychrome.devices.simulated import SimulatedBeamline, simulated_beamline
from ptychrome.devices.twin import Nuisances, TwinBeamline
from ptychrome.plans import align_focus, calibrate_energy, choose_exposure, find_particle
from ptychrome.profiles.daily import OFFSET_KEY, keep_energy_offset

# what the sample does between energies is beside the point; noise, jitter and fluctuations stay
STEADY = replace(Nuisances(), energy_drift_m=0.0, slow_drift_m=0.0)


@pytest.fixture
def mount(tmp_path):
    """``mount(sample, **twin)`` returns the twin and the devices around it."""

    def make(sample: str = "P1", **options) -> tuple[TwinBeamline, SimulatedBeamline]:
        twin = TwinBeamline(sample, **{"frame_pixels": 48, "nuisances": STEADY} | options)
        return twin, simulated_beamline(twin, tmp_path)

    return make


@pytest.fixture
def RE() -> RunEngine:
    return RunEngine({}, call_returns_result=True)


def centre_of_mass(twin: TwinBeamline) -> np.ndarray:
    """Where the stage must stand, (x, y): the beam hits the sample at minus the stage's position."""
    density, particle = twin.particle.areal_density.sum(axis=0), twin.particle
    y, x = (density.sum(axis=1 - axis) / density.sum() for axis in (0, 1))
    return -np.array([x @ particle.x_m, y @ particle.y_m])


@pytest.mark.parametrize("center_m", [[0.0, 0.0], [1.5e-6, -1.2e-6]])
def test_find_particle_moves_its_centre_into_the_beam(mount, RE, center_m):
    twin, beamline = mount()
    twin_found = RE(find_particle([beamline.eiger], beamline.stage, width_m=6e-6, center_m=center_m))
    standing = [beamline.stage.x.position, beamline.stage.y.position]
    assert twin_found.plan_result == standing
    # an eighth of a step: noise of 0.1 % in absorbances of some percent, and the outline cut at 5 σ
    np.testing.assert_allclose(standing, centre_of_mass(twin), atol=50e-9)
    assert beamline.shutter.is_open.get() == 0
    assert len(twin_found.run_start_uids) == 1


def test_find_particle_where_there_is_none(mount, RE):
    _, beamline = mount()
    with pytest.raises(RuntimeError, match="no particle"):
        RE(find_particle([beamline.eiger], beamline.stage, width_m=3e-6, center_m=[2e-5, 2e-5]))
    assert beamline.stage.x.position == 2e-5
    assert beamline.shutter.is_open.get() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_m": 1e-3, "step_m": 1e-4}, "limits"),
        ({"exposure_s": -1.0}, "exposure_s is -1.0"),
        ({"step_m": 0.0}, "step_m"),
    ],
)
def test_find_particle_refuses_before_anything_moves(mount, RE, options, message):
    _, beamline = mount()
    documents = []
    with pytest.raises(ValueError, match=message):
        RE(find_particle([beamline.eiger], beamline.stage, **options), lambda *doc: documents.append(doc))
    assert documents == []


def test_choose_exposure_reaches_the_photons_that_were_asked_for(mount, RE):
    twin, beamline = mount(flux=1e8)
    beamline.stage.x.set(2e-5)  # nothing but the direct beam
    chosen = RE(choose_exposure([beamline.eiger], photons=1e7)).plan_result
    twin.stage_m, twin.shutter_open = (2e-5, 0.0), True
    frame = twin.expose(chosen).counts
    good = twin.detector.mask == 0
    # intensity fluctuates by 1 % from frame to frame: three standard deviations of two frames
    assert frame[good].sum() == pytest.approx(1e7, rel=0.042)
    assert beamline.eiger.exposure_time.get() == chosen
    assert beamline.shutter.is_open.get() == 0


def test_choose_exposure_keeps_the_counter_from_filling(mount, RE):
    twin, beamline = mount(flux=1e8)
    twin.detector = replace(twin.detector, bit_depth=16)
    beamline.eiger._model = twin.detector
    beamline.eiger.bit_depth.put(16)
    beamline.stage.x.set(2e-5)
    chosen = RE(choose_exposure([beamline.eiger], photons=1e9, share=0.5)).plan_result
    twin.stage_m, twin.shutter_open = (2e-5, 0.0), True
    frame = twin.expose(chosen).counts
    # half of 65535 counts in the brightest pixel; 1 % of fluctuation and √32768 of noise, three times
    assert frame[twin.detector.mask == 0].max() == pytest.approx(0.5 * 65535, rel=0.06)


@pytest.mark.parametrize(
    ("flux", "message"), [(2e8, "attenuate the beam .*-fold"), (1e10, "saturates even at"), (0.0, "beam\\?")]
)
def test_choose_exposure_says_what_no_exposure_can_mend(mount, RE, flux, message):
    _, beamline = mount(flux=flux)
    beamline.stage.x.set(2e-5)
    with pytest.raises(RuntimeError, match=message):
        RE(choose_exposure([beamline.eiger]))
    assert beamline.shutter.is_open.get() == 0


@pytest.mark.parametrize("true_eV", [0.0, -2.3])
def test_a_foil_gives_the_offset_of_the_monochromator(mount, RE, true_eV):
    _, beamline = mount("V", nuisances=replace(Nuisances(), energy_offset_eV=true_eV))
    said = []
    keep_energy_offset(RE, beamline.dcm, said.append)
    RE(calibrate_energy([beamline.eiger], beamline.dcm, element="V"))
    assert len(said) == 1
    assert said[0].startswith("energy offset ")
    found = beamline.dcm.energy_offset.get()
    # three times the rms error of eight seeds, 0.066 eV: i0 noise of 0.1 % in an edge of 0.15
    assert found == pytest.approx(true_eV, abs=0.2)
    assert RE.md[OFFSET_KEY] == found


def test_the_next_scans_carry_the_offset(mount, RE):
    _, beamline = mount()
    RE.md[OFFSET_KEY] = -1.25  # of an earlier session
    keep_energy_offset(RE, beamline.dcm)
    starts = []
    RE(
        align_focus([beamline.eiger], beamline.dcm, beamline.stage, width_m=3e-7),
        {"start": lambda name, doc: starts.append(doc)},
    )
    assert starts[0]["ptychrome"]["energy_offset_eV"] == -1.25


def test_a_scan_that_shows_no_edge_leaves_the_offset(mount, RE):
    _, beamline = mount()
    beamline.stage.x.set(2e-5)  # no foil in the beam
    said = []
    RE.md[OFFSET_KEY] = 0.5
    keep_energy_offset(RE, beamline.dcm, said.append)
    RE(calibrate_energy([beamline.eiger], beamline.dcm, element="V", range_eV=4.0))
    assert said[0].startswith("energy not calibrated: foil: ")
    assert beamline.dcm.energy_offset.get() == 0.5
