"""What a fly scan refuses before anything is opened, and what a queue server must understand of it."""

import inspect
import json

import pytest
from bluesky import RunEngine
from ophyd.sim import flyer1

from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import fermat, fly_spectro_ptycho, rows, square


@pytest.fixture
def beamline(tmp_path):
    return simulated_beamline(TwinBeamline("P1", frame_pixels=32), tmp_path)


def plan(beamline, flyer=None, **options):
    options = {"energies": [5420.0], "trajectory": rows(3e-7, 1e-7, 1.5e-7)} | options
    return fly_spectro_ptycho(flyer or beamline.flyer, beamline.dcm, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energies": []}, "energies is empty"),
        ({"trajectory": fermat(3e-7, 1e-7)}, "'fermat' cannot be flown"),
        ({"trajectory": square(1e-3, 5e-4)}, "limits"),
        # the raster ends at the limit of the stage; half a step and the run-up are beyond it
        ({"trajectory": square(1e-4, 1e-7)}, "limits"),
        ({"trajectory": square(1e-6, 3e-7)}, "faster than 20 µm/s; expected exposures of at least 0.015 s"),
        ({"exposure_s": 0.0}, "exposure_s is 0.0"),
        ({"probe": {"fwhm": 3e-7}}, "fwhm"),
        ({"flyer": flyer1}, "flyer1 does not fly lines: it has no detector"),
    ],
)
def test_refuses_before_the_run_is_opened(beamline, options, message):
    documents = []
    with pytest.raises(ValueError, match=message):
        RunEngine({})(plan(beamline, **options), lambda *doc: documents.append(doc))
    assert documents == []


def test_plan_can_be_submitted_again_from_its_own_arguments(beamline):
    def start(**options):
        return next(m.kwargs for m in plan(beamline, **options) if m.command == "open_run")

    first = start(sample_name="P1")
    arguments = json.loads(json.dumps(first["plan_args"]))
    assert (arguments.pop("flyer"), arguments.pop("dcm")) == ("flyer", "dcm")
    assert start(**arguments) == first


def test_lines_follow_the_drift(beamline):
    """30 nm of drift in x: the lines that are prepared lie by that much beside the planned ones."""

    class Drift:
        name = "drift"
        x, y = beamline.i0, beamline.kb.vertical_pitch  # readable, 3e-8 and 0

    beamline.i0.put(3e-8)
    beamline.kb.vertical_pitch._set_position(0.0)
    firsts = []
    engine = RunEngine({})
    engine.msg_hook = lambda m: m.command == "prepare" and firsts.append(m.args[0][0]["first_m"])
    engine(plan(beamline, recentre=Drift()))
    assert firsts[0] == pytest.approx((-1.5e-7 - 3e-8, -1.5e-7))


def test_a_queue_server_can_read_the_signature():
    parameters = inspect.signature(fly_spectro_ptycho).parameters
    assert inspect.isgeneratorfunction(fly_spectro_ptycho)
    # resolved objects, not strings: a queue server does not look names up in our module
    assert not any(isinstance(parameter.annotation, str) for parameter in parameters.values())
