"""How far the analysis of every run of a session is, kept for whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ptychrome.callbacks.progress import Status
from ptychrome.schema import START_KEY


class Runs:
    """The newest status of each run, from the RunEngine's start document on.

    Parameters
    ----------
    on_status : callable
        Told every status that arrives.
    """

    def __init__(self, on_status: Callable[[Status], None]) -> None:
        self._followers = [on_status]
        self._newest: dict[str, Status | None] = {}
        self._news = threading.Condition()

    def follow(self, on_status: Callable[[Status], None]) -> None:
        """Have somebody else told every status, too."""
        self._followers.append(on_status)

    def start(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a start document, so that a run counts before the analysis has heard of it."""
        if START_KEY in doc:
            with self._news:
                self._newest.setdefault(doc["uid"], None)

    def update(self, status: Status) -> None:
        """Take the status of a run."""
        with self._news:
            self._newest[status.raw_uid] = status
            self._news.notify_all()
        for follower in self._followers:
            follower(status)

    @property
    def newest(self) -> str | None:
        """Uid of the run that was started last; None before the first."""
        return next(reversed(self._newest), None)

    @property
    def unfinished(self) -> list[str]:
        """Uids of the runs that the analysis has not finished."""
        return [uid for uid, status in self._newest.items() if status is None or not status.finished]

    def wait(self, going_on: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Until every run is finished; False if the time is over or the analysis no longer goes on."""

        def settled() -> bool:
            return not self.unfinished or not going_on()

        with self._news:
            self._news.wait_for(settled, timeout_s)
            return not self.unfinished

    def wake(self) -> None:
        """Have everyone who waits look again."""
        with self._news:
            self._news.notify_all()

    def lines(self) -> list[str]:
        """One line for each run, in the order of their start."""
        return [
            f"{uid[:8]}: waiting for the analysis" if status is None else describe(status)
            for uid, status in self._newest.items()
        ]


def describe(status: Status) -> str:
    """One line for people about one run."""
    done = f"{status.energies_done} of {status.energies_planned} energies"
    lost = f"{status.frames_lost} LOST" if status.frames_lost else "none lost"
    if status.finished:
        pace = f"finished after {status.elapsed_s:.0f} s"
    else:
        pace = f"{status.frames_behind} frames behind, lag {status.lag_s:.0f} s"
    return (
        f"{status.sample_name} ({status.raw_uid[:8]}): {done}, {status.frames_reconstructed} frames, "
        f"{lost}, {pace}"
    )
