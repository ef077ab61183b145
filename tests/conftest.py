"""A simulated beamline behind Channel Access for the tests that need one, at a port of this run alone."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ptychrome.profiles.ioc import IOCOptions, IOCProcess, client_environment, free_port

PORT, PREFIX = free_port(), f"T{os.getpid()}:"
PATIENCE_S = 60.0  # for what must happen; only a test that fails waits so long
FRAME_PIXELS = 48
os.environ |= client_environment(PORT)  # libca reads it when ophyd is imported


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
    with IOCProcess(IOCOptions(prefix=PREFIX, port=PORT, frame_pixels=FRAME_PIXELS, clock=0.0)) as process:
        yield process


@pytest.fixture(scope="session")
def ioc_settings(ioc: IOCProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a session with the IOC's beamline, as they stand in a TOML file."""
    return {
        "channel_access": {"timeout_s": PATIENCE_S},
        "dcm": {"prefix": f"{PREFIX}DCM:", "timeout_s": PATIENCE_S},
        "stage": {"prefix": f"{PREFIX}Piezo:", "tolerance_m": 1e-9, "timeout_s": PATIENCE_S},
        "eiger": {
            "prefix": f"{PREFIX}Eiger:",
            "shape": [FRAME_PIXELS, FRAME_PIXELS],
            "distance_m": 1.273,
            "mask_dataset": "/entry/instrument/detector/detectorSpecific/pixel_mask",
            "read_directory": str(tmp_path_factory.mktemp("frames")),
            "patience_s": PATIENCE_S,
        },
        "kb": f"{PREFIX}KB:",
        "i0": f"{PREFIX}I0",
        "ring_current": f"{PREFIX}Ring:Current",
        "shutter": f"{PREFIX}Shutter",
        "front_end": f"{PREFIX}FrontEnd:Open",
    }


@pytest.fixture(scope="session")
def connect(ioc_settings: dict[str, Any]) -> Callable[..., Any]:
    """``connect(stage={...})`` makes the devices, with some settings changed, and waits for them."""
    from ptychrome.profiles.beamline import beamline
    from ptychrome.profiles.beamline_settings import BeamlineSettings
    from ptychrome.profiles.channel_access import prepare_channel_access

    def make(**changes: Any) -> Any:
        content = dict(ioc_settings)
        for section, values in changes.items():
            content[section] = {**content[section], **values} if isinstance(values, dict) else values
        settings = BeamlineSettings.model_validate(content)
        prepare_channel_access(settings.channel_access)
        devices = beamline(settings, settings.eiger.read_directory)
        assert devices.wait(PATIENCE_S) == {}
        return devices

    return make


@pytest.fixture(scope="session")
def ca_devices(connect: Callable[..., Any]) -> Any:
    """The devices as the settings have them; tests take `ca`."""
    return connect()


@pytest.fixture
def simulate(ioc: IOCProcess) -> Callable[[str, Any], None]:
    """``simulate("Dump", 1)`` asks the IOC for something, and returns when it is so."""
    import epics

    def request(name: str, value: Any) -> None:
        record = epics.get_pv(f"{PREFIX}Sim:{name}")
        assert record.wait_for_connection(PATIENCE_S)
        assert record.put(value, wait=True, timeout=PATIENCE_S) == 1

    return request


@pytest.fixture
def ca(ca_devices: Any, simulate: Callable[[str, Any], None]) -> Iterator[Any]:
    """The beamline behind Channel Access, with a fresh sample and nothing wrong."""
    simulate("Sample", "P1")
    yield ca_devices
    for name, value in (("Offline", ""), ("Dump", 0), ("Hang", 0), ("DropFrames", 0), ("Clock", 0.0)):
        simulate(name, value)
