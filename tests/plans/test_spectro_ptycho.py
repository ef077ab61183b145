"""What the scan refuses before anything is opened, and what a queue server must understand of it."""

import inspect
import typing

import pytest
from bluesky import RunEngine
from ophyd.sim import det

from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans.energies import k_edge
from ptychrome.plans.spectro_ptycho import spectro_ptycho
from ptychrome.plans.trajectories import square

TRAJECTORY = square(3e-7, 1.5e-7)


@pytest.fixture
def beamline(tmp_path):
    return simulated_beamline(TwinBeamline("P1", frame_pixels=32), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energies": []}, "energies is empty"),
        ({"energies": [5.42]}, "not keV"),
        ({"energies": [100_000.0]}, "limits"),
        ({"trajectory": {"kind": "circle"}}, "trajectory: "),
        ({"trajectory": square(1e-3, 5e-4)}, "limits"),
        ({"exposure_s": 0.0}, "exposure_s is 0.0"),
        ({"exposure_s": float("inf")}, "exposure_s is inf"),
        ({"probe": {"fwhm": 3e-7}}, "fwhm"),
        ({"detectors": []}, "0 of the detectors"),
        ({"detectors": [det]}, "0 of the detectors \\['det'\\]"),
        ({"dcm": det}, "det has no axis 'energy'"),
        ({"element": "Xx"}, "no absorption edge 'Xx'"),
    ],
)
def test_refuses_before_the_run_is_opened(beamline, options, message):
    plan = {
        "detectors": [beamline.eiger],
        "dcm": beamline.dcm,
        "energies": [5420.0],
        "trajectory": TRAJECTORY,
    }
    documents = []
    with pytest.raises(ValueError, match=message):
        RunEngine({})(
            spectro_ptycho(stage=beamline.stage, **plan | options), lambda *doc: documents.append(doc)
        )
    assert documents == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"energies": [5420.0]}, ("V", "K")),
        ({"energies": k_edge("Fe", 12)}, ("Fe", "K")),
        ({"energies": k_edge("Fe", 12), "element": "Mn", "energy_offset_eV": -0.5}, ("Mn", "K")),
    ],
)
def test_the_energies_say_which_edge_it_is_unless_told(beamline, options, expected):
    plan = spectro_ptycho([beamline.eiger], beamline.dcm, beamline.stage, trajectory=TRAJECTORY, **options)
    starts = [message.kwargs for message in plan if message.command == "open_run"]
    (start,) = starts
    assert (start["ptychrome"]["element"], start["ptychrome"]["edge"]) == expected
    assert start["ptychrome"]["energy_offset_eV"] == options.get("energy_offset_eV", 0.0)


def test_returns_the_uid_of_the_run(beamline):
    plan = spectro_ptycho(
        [beamline.eiger], beamline.dcm, beamline.stage, energies=[5420.0], trajectory=TRAJECTORY
    )
    result = RunEngine({}, call_returns_result=True)(plan)
    assert result.plan_result == result.run_start_uids[0]


def test_a_queue_server_can_read_the_signature():
    assert inspect.isgeneratorfunction(spectro_ptycho)
    annotations = {
        name: parameter.annotation for name, parameter in inspect.signature(spectro_ptycho).parameters.items()
    }
    # resolved objects, not strings: a queue server does not look names up in our module
    assert not any(isinstance(annotation, str) for annotation in annotations.values())
    assert typing.get_type_hints(spectro_ptycho).keys() >= annotations.keys()
    assert annotations["energies"] == list[float]
