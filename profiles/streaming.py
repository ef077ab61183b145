"""Live analysis of frames that come through the detector's own stream instead of files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychrome.callbacks.dispatch import Report
from ptychrome.devices.simplon_simulator import SimplonSimulator
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.live import LiveAnalysis

if TYPE_CHECKING:
    from ptychrome.callbacks.sources.streamed import Arrivals


class StreamedAnalysis:
    """A live analysis behind a receiver of the detector's stream; a subscriber that only enqueues.

    Parameters
    ----------
    live : LiveAnalysis
    address : str
        Of the detector.
    frames : Path
        Folder of the spooled frames.
    report : callable
        Told in one line about everything that fails.

    Raises
    ------
    UserError
        If what ``ptychrome[simplon]`` installs is not there.
    """

    def __init__(self, live: LiveAnalysis, address: str, frames: Path, report: Report) -> None:
        try:
            from ptychrome.callbacks.sources.spool_process import StreamReceiver
        except ModuleNotFoundError as error:
            live.close(0)
            raise _not_installed(error) from None
        self._live = live
        self._receiver = StreamReceiver(address, frames, live, report)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document from the RunEngine; never blocks, never raises."""
        self._receiver(name, doc)

    @property
    def arrivals(self) -> Arrivals:
        """Which frames are on disk; for a detector that wants to know."""
        return self._receiver.arrivals

    @property
    def pid(self) -> int | None:
        """Process id of the analysis."""
        return self._live.pid

    @property
    def alive(self) -> bool:
        """Whether the analysis process runs."""
        return self._live.alive

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait until all frames are stored and all results written; True if they were within the time."""
        begun = time.monotonic()
        stored = self._receiver.close(timeout_s)
        left_s = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - begun))
        return self._live.close(left_s) and stored


def simulated_stream(address: str = "tcp://127.0.0.1:*") -> SimplonSimulator:
    """The sending end of a simulated detector's stream.

    Raises
    ------
    UserError
        If the address cannot be used, or what ``ptychrome[simplon]`` installs is not there.
    """
    try:
        return SimplonSimulator(address)
    except ModuleNotFoundError as error:
        raise _not_installed(error) from None
    except OSError as error:
        raise UserError(str(error)) from None


def _not_installed(error: ModuleNotFoundError) -> UserError:
    return UserError(f'a detector\'s stream needs {error.name}: pip install "ptychrome[simplon]"')
