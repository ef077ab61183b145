"""When a scan waits by itself: no beam, a closed front end, records that have disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from bluesky import RunEngine
from bluesky.suspenders import SuspendBoolLow, SuspenderBase, SuspendFloor

from ptychrome.profiles.beamline import Beamline
from ptychrome.profiles.beamline_settings import SuspenderSettings


class _Prompt(SuspenderBase):
    """Decides in the RunEngine's own loop.

    Bluesky's own waits a tenth of a second for that loop, and gives up where it is busy with a record.
    """

    RE: Any
    _ev: Any
    _tripped: bool

    def __call__(self, value: Any, **_: Any) -> None:
        """Take the newest value; in any thread."""
        if self.RE is not None:
            self.RE.loop.call_soon_threadsafe(self._judge, value)

    def _judge(self, value: Any) -> None:
        RE = self.RE
        if RE is None:
            return
        if self._should_suspend(value) and not self._tripped:
            self._tripped, self._ev = True, asyncio.Event()
            if RE.state.is_running:
                RE.request_suspend(
                    self._ev.wait,
                    pre_plan=self._pre_plan,
                    post_plan=self._post_plan,
                    justification=self._get_justification(),
                )
        elif self._tripped and self._should_resume(value):
            self._tripped = False
            RE.loop.call_later(self._sleep, self._ev.set)


class SuspendBelow(_Prompt, SuspendFloor):
    """Suspend below a value, go on above another one."""


class SuspendWhileZero(_Prompt, SuspendBoolLow):
    """Suspend while a record is 0."""


class SuspendDisconnected(_Prompt):
    """Suspend while any of some signals is disconnected.

    Parameters
    ----------
    signals : sequence of ophyd signals
    """

    def __init__(self, signals: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(signals[0], **kwargs)
        self._signals = list(signals)
        self._missing: set[str] = set()

    def install(self, RE: RunEngine, *, event_type: str | None = None) -> None:
        """Watch all signals for a RunEngine."""
        self.RE = RE
        for signal in self._signals:
            signal.subscribe(self._on_metadata, event_type=signal.SUB_META, run=False)

    def remove(self) -> None:
        """Watch no longer."""
        for signal in self._signals:
            signal.clear_sub(self._on_metadata)
        super().remove()

    def _on_metadata(self, *, obj: Any, connected: bool, **_: Any) -> None:
        (self._missing.discard if connected else self._missing.add)(obj.name)
        self(not self._missing)

    def _should_suspend(self, value: bool) -> bool:
        return not value

    def _should_resume(self, value: bool) -> bool:
        return value

    def _get_justification(self) -> str:
        return f"off-line: {', '.join(sorted(self._missing))}; the scan goes on when they are back"


def install_suspenders(RE: RunEngine, beamline: Beamline, settings: SuspenderSettings) -> list[SuspenderBase]:
    """Have scans wait for ring current, front end and records.

    Returns
    -------
    list of suspenders
        For ``RE.remove_suspender``.
    """
    suspenders: list[SuspenderBase] = [SuspendDisconnected(beamline.scanned)]
    if settings.ring_current_mA > 0:
        suspenders.append(
            SuspendBelow(
                beamline.ring_current.value,
                settings.ring_current_mA,
                resume_thresh=settings.resume_mA,
                sleep=settings.settle_s,
                tripped_message="no beam",
            )
        )
    if beamline.front_end is not None:
        suspenders.append(
            SuspendWhileZero(
                beamline.front_end.value, sleep=settings.settle_s, tripped_message="the front end is closed"
            )
        )
    for suspender in suspenders:
        RE.install_suspender(suspender)
    return suspenders
