"""Documents that run ahead of the files that they announce wait for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from ptychrome.callbacks.dispatch import Consumer, Report
from ptychrome.callbacks.intake import local_path

POLL_S = 0.1  # nothing tells of a new file on a network disk


class AwaitedFiles:
    """Passes documents on in order, frames of a file that appears whole (``swmr`` is false) once it is there.

    A file that does not come is reported, and its frames are left out.

    Parameters
    ----------
    consumer : Consumer
        Takes the documents.
    report : callable
        Told in one line about files that did not come, and every exception of the consumer.
    patience_s : float
        How long a file may take when a later one is there, or the run has ended.
    """

    def __init__(self, consumer: Consumer, report: Report, patience_s: float = 60.0) -> None:
        self._consumer = consumer
        self._report = report
        self._patience_s = patience_s
        self._held: deque[tuple[str, Mapping[str, Any]]] = deque()
        self._awaited: dict[str, tuple[Path, ...]] = {}  # uid of stream_resource: its files, in order
        self._lost: set[str] = set()
        self._overtaken_since: float | None = None
        self._never = threading.Event()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""
        if name == "stream_resource" and doc["parameters"].get("swmr") is False:
            uris = (doc["uri"], doc["parameters"].get("master"))
            self._awaited[doc["uid"]] = tuple(local_path(uri) for uri in uris if uri)
        self._held.append((name, doc))
        self._pass_on()
        if name == "stop":
            self._wait()
            self._awaited.clear()
            self._lost.clear()

    def close(self) -> None:
        """Nothing more comes."""
        self._wait()
        self._consumer.close()

    def _pass_on(self) -> None:
        """As many documents as need not wait."""
        while self._held:
            name, doc = self._held[0]
            uid = doc["stream_resource"] if name == "stream_datum" else ""
            if uid in self._awaited and uid not in self._lost:
                if self._there(uid):
                    del self._awaited[uid]
                elif self._patience_with(uid):
                    return
                else:
                    self._lose(uid)
                self._overtaken_since = None
            self._held.popleft()
            if uid not in self._lost:
                self._hand_over(name, doc)

    def _hand_over(self, name: str, doc: Mapping[str, Any]) -> None:
        try:
            self._consumer(name, doc)
        except Exception as error:  # those behind it wait for nothing any more
            self._tell(f"{type(error).__name__}: {error}")

    def _wait(self) -> None:
        """Until nothing is held any more."""
        patient_until = time.monotonic() + self._patience_s
        while self._held:
            before = len(self._held)
            self._pass_on()
            if len(self._held) < before:
                patient_until = time.monotonic() + self._patience_s
            elif time.monotonic() > patient_until:
                self._lose(self._held[0][1]["stream_resource"])
            else:
                self._never.wait(POLL_S)

    def _there(self, uid: str) -> bool:
        return all(map(_is_whole, self._awaited[uid]))

    def _patience_with(self, uid: str) -> bool:
        """Whether a file that is not there may still come: files are fetched in order, but disks are slow."""
        if self._overtaken_since is None:
            uids = list(self._awaited)
            if any(self._there(later) for later in uids[uids.index(uid) + 1 :]):
                self._overtaken_since = time.monotonic()
        since = self._overtaken_since
        return since is None or time.monotonic() - since < self._patience_s

    def _lose(self, uid: str) -> None:
        self._lost.add(uid)
        self._tell(f"{self._awaited[uid][0]} was announced and did not come; its frames are left out")

    def _tell(self, text: str) -> None:
        self._report(f"{type(self._consumer).__name__}: {text}")


def _is_whole(path: Path) -> bool:
    try:
        with h5py.File(path, "r", locking=False):
            return True
    except OSError:  # not there, or HDF5 sees that its end is missing
        return False
