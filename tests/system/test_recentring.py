"""A scan that follows a drifting sample, and the focus from a scan, in real sessions. Takes a minute."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bluesky import preprocessors as bpp

from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import Nuisances, TwinBeamline
from ptychrome.plans import align_focus, spectro_ptycho, square
from ptychrome.profiles.daily import follow_drift, measure_focus
from ptychrome.profiles.session import open_session

ENERGIES = [5420.0, 5450.0, 5474.0, 5483.0, 5531.0]
STRONG = replace(Nuisances(), energy_drift_m=40e-9, energy_drift_limit_m=1e-6)


@pytest.fixture
def session(tmp_path, fast_recipe):
    with open_session(tmp_path, fast_recipe, workers=1) as opened:
        yield opened
        opened.finish(60)


def test_the_scan_follows_the_sample_as_far_as_is_known(session, until):
    """Each energy stands where the sample was at the energy before: by then, that one has been aligned."""
    twin = TwinBeamline("P1", frame_pixels=64, nuisances=STRONG)
    beamline = simulated_beamline(twin, session.frames)
    drift = follow_drift(session)
    done: list[int] = []
    session.runs.follow(lambda status: done.append(status.energies_done))
    stage: dict[float, list[tuple[float, float]]] = {}
    offset: dict[float, np.ndarray] = {}

    def remember(name: str, event: dict[str, Any]) -> None:
        data = event["data"]
        energy = data["dcm_energy_setpoint"]
        stage.setdefault(energy, []).append((data["stage_x"], data["stage_y"]))
        offset.setdefault(energy, twin._disturbances._offset_m.copy())

    def wait_for_the_analysis(msg: Any) -> tuple[None, None]:
        if msg.command == "set" and msg.obj is beamline.dcm.energy and stage:
            until(lambda: bool(done) and done[-1] == len(stage), "the energies so far")
        return None, None

    plan = spectro_ptycho(
        [beamline.eiger],
        beamline.dcm,
        beamline.stage,
        energies=ENERGIES,
        trajectory=square(1.8e-6, 200e-9),
        recentre=drift,
    )
    session.RE(bpp.plan_mutator(plan, wait_for_the_analysis), {"event": remember})
    middle = np.array([np.mean(points, axis=0) for points in stage.values()])
    offsets = np.array(list(offset.values()))
    moved = offsets - offsets[0]
    assert np.abs(moved).max() > 80e-9  # there is something to follow
    np.testing.assert_allclose(middle[0], 0.0, atol=1e-12)
    # 15 nm: a third of a pixel, which the alignment of such short reconstructions may be off, in a drift of a
    # hundred
    np.testing.assert_allclose(middle[1:], -moved[:-1], atol=15e-9)


def test_the_drift_of_a_run_that_is_over_does_not_count(session):
    drift = follow_drift(session)
    drift.tell(1e-6, 0.0)
    beamline = simulated_beamline(TwinBeamline("P1", frame_pixels=64), session.frames)
    plan = spectro_ptycho(
        [beamline.eiger],
        beamline.dcm,
        beamline.stage,
        energies=[5420.0],
        trajectory=square(2e-7, 200e-9),
        recentre=drift,
    )
    positions: list[float] = []
    session.RE(plan, {"event": lambda name, event: positions.append(event["data"]["stage_x"])})
    assert np.mean(positions) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("true_m", [0.4e-3, -0.2e-3])
def test_the_focus_of_the_mirrors_is_found(session, true_m):
    twin = TwinBeamline("P1", frame_pixels=64)
    twin.probe = replace(twin.probe, defocus_m=true_m)
    beamline = simulated_beamline(twin, session.frames)
    guess = {"fwhm_m": 300e-9, "fwhm_energy_eV": 5420.0, "defocus_m": true_m + 0.1e-3}
    session.RE(align_focus([beamline.eiger], beamline.dcm, beamline.stage, probe=guess))
    focus = measure_focus(session)
    # half of what the guess is off, of a depth of focus of 1 mm: after so few sweeps 40 µm are left
    assert focus.defocus_m == pytest.approx((true_m, true_m), abs=50e-6)
    assert focus.fwhm_m == pytest.approx((300e-9, 300e-9), rel=0.05)  # as of the calculated probe


def test_the_focus_is_found_through_channel_access(ca, connect, session, capsys):
    """The simulated IOC's sample stands where the settings of the session say; here the guess is another."""
    beamline = connect(eiger={"read_directory": session.frames})
    for axis in (beamline.stage.x, beamline.stage.y):
        axis.set(0.0).wait(timeout=60)
    beamline.dcm.energy.set(5420.0).wait(timeout=60)
    true_m = TwinBeamline("P1").probe.defocus_m
    guess = {"fwhm_m": 300e-9, "fwhm_energy_eV": 5420.0, "defocus_m": true_m + 0.1e-3}
    session.RE(align_focus([beamline.eiger], beamline.dcm, beamline.stage, probe=guess))
    focus = measure_focus(session)
    # as above
    assert focus.defocus_m == pytest.approx((true_m, true_m), abs=50e-6)
    assert focus.fwhm_m == pytest.approx((300e-9, 300e-9), rel=0.05)
    session.focus()
    vertical, horizontal = capsys.readouterr().out.splitlines()[-2:]
    assert vertical.startswith("vertical: the sample stands ")
    assert horizontal.endswith("nm wide")
    assert beamline.shutter.is_open.get() == 0
