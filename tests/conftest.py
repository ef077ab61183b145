"""A simulated IOC for the tests that need one. Channel Access stays on loopback, at a port of this run alone."""

import os
from collections.abc import Iterator

import pytest

from ptychrome.profiles.ioc import IOCOptions, IOCProcess, client_environment, free_port

PORT, PREFIX = free_port(), f"T{os.getpid()}:"
os.environ |= client_environment(PORT)  # libca reads it when ophyd is imported


@pytest.fixture(scope="session")
def ioc() -> Iterator[IOCProcess]:
    """Frames of 48² pixels; nothing takes time unless a test says so (record ``Sim:Clock``)."""
    with IOCProcess(IOCOptions(prefix=PREFIX, port=PORT, frame_pixels=48, clock=0.0)) as process:
        yield process
