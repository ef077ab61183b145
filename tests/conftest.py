"""A simulated beamline behind Channel Access for the tests that need one, at a port of this run alone."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ptychrome.profiles.ioc import IOCOptions, IOCProcess, free_stream, ioc_settings, search_on_a_free_port

PREFIX = f"T{os.getpid()}:"
PATIENCE_S = 60.0  # for what must happen; only a test that fails waits so long
FRAME_PIXELS = 48
PORT = search_on_a_free_port()  # libca reads it when ophyd is imported


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool], str], None]:
    """``until(condition, what)`` looks until it is so."""

    def wait_until(condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {PATIENCE_S:g} s in vain for {what}")
            time.sleep(0.02)

    return wait_until


@pytest.fixture(scope="session")
def ioc() -> Iterator[IOCProcess]:
    """Nothing takes time unless a test says so (request ``Clock``)."""
    options = IOCOptions(prefix=PREFIX, port=PORT, frame_pixels=FRAME_PIXELS, clock=0.0, stream=free_stream())
    with IOCProcess(options) as process:
        yield process


@pytest.fixture(scope="session")
def connect(ioc: IOCProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """``connect(stage={...})`` makes the devices, with some settings changed, and waits for them."""
    from ptychrome.profiles.beamline import beamline
    from ptychrome.profiles.channel_access import prepare_channel_access

    frames = tmp_path_factory.mktemp("frames")
    patient = {
        "channel_access": {"timeout_s": PATIENCE_S},
        "dcm": {"timeout_s": PATIENCE_S},
        "stage": {"timeout_s": PATIENCE_S},
        "eiger": {"patience_s": PATIENCE_S, "read_directory": frames},
    }

    made = []

    def make(arrivals: Any = None, **changes: Any) -> Any:
        sections = {name: {**patient.get(name, {}), **changes.get(name, {})} for name in {*patient, *changes}}
        settings = ioc_settings(ioc.options, **sections)
        prepare_channel_access(settings.channel_access)
        devices = beamline(settings, frames, arrivals)
        made.append(devices)
        assert devices.wait(PATIENCE_S) == {}
        return devices

    yield make
    # while the IOC still answers: callbacks under way ask it, and Python would wait for them when it exits
    for device in (device for devices in made for device in devices.devices):
        device.destroy()


@pytest.fixture(scope="session")
def ca_devices(connect: Callable[..., Any]) -> Any:
    """The devices as the settings have them; tests take `ca`."""
    devices = connect()
    # the first frame of a simulation takes seconds, which some tests have no patience for
    devices.eiger.stage()
    devices.eiger.trigger().wait(timeout=PATIENCE_S)
    devices.eiger.unstage()
    return devices


@pytest.fixture
def simulate(ioc: IOCProcess) -> Callable[[str, Any], None]:
    """``simulate("Dump", 1)`` asks the IOC for something, and returns when it is so."""
    return ioc.request


@pytest.fixture
def ca(ca_devices: Any, simulate: Callable[[str, Any], None]) -> Iterator[Any]:
    """The beamline behind Channel Access, with a fresh sample and nothing wrong."""
    simulate("Sample", "P1")
    yield ca_devices
    simulate("Offline", "")
    for name in ("Dump", "CloseFrontEnd", "Hang", "DropFrames", "DelayFrame", "Clock"):
        simulate(name, 0)
    ca_devices.dcm.energy_offset.set(0.0).wait(timeout=PATIENCE_S)
    for axis in (ca_devices.dcm.pitch, ca_devices.kb.vertical_stripe):  # those that no scan moves
        axis.set(0.0).wait(timeout=PATIENCE_S)
