"""Documents that say "frame n of series s" become documents that say where that frame lies here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptychrome.callbacks.dispatch import Report
from ptychrome.callbacks.sources.simplon import Begun, Ended, Event, Spooled, Stalled
from ptychrome.callbacks.sources.simplon_file import DATA_DATASET
from ptychrome.schema import STREAM_MIMETYPE

REORDERED_FRAMES = 64  # a frame that is overtaken by so many is lost


@dataclass
class _Series:
    """What has arrived of one series."""

    path: str = ""
    numbers: set[int] = field(default_factory=set)
    ended: bool = False
    owner: str | None = None  # uid of the stream_resource that speaks of it


class Arrivals:
    """Which frames of which series are on disk; told by the spooler, asked by those who need a frame.

    Parameters
    ----------
    patience_s : float
        Time that a frame may take after it was announced. After one that did not come in this time the
        next ones need to be there, until frames of the series arrive again.
    """

    def __init__(self, patience_s: float = 10.0) -> None:
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._begun: list[int] = []
        self._series: dict[int, _Series] = {}  # the latest one of each number
        self._owned: dict[str, _Series] = {}
        self._stalled = False
        self._given_up: dict[str, int] = {}  # owner: frames there were when one was given up
        self._listeners: list[Callable[[], None]] = []

    def __call__(self, event: Event) -> None:
        """Take what the spooler tells; from any thread."""
        with self._changed:
            match event:
                case Begun(series):
                    self._begun.append(series)
                    self._series[series] = _Series()
                case Spooled(series, path, numbers):
                    entry = self._series.setdefault(series, _Series())
                    if path != entry.path and (entry.path or entry.ended):  # the detector counts anew
                        entry = self._series[series] = _Series()
                    entry.path = path
                    entry.numbers.update(numbers)
                case Ended(series):
                    self._series.setdefault(series, _Series()).ended = True
                case Stalled(stalled):
                    self._stalled = stalled
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have a function called, in any thread, whenever something has arrived."""
        self._listeners.append(listener)

    def begun(self, since: int = 0) -> list[int]:
        """Numbers of the series whose headers have come, in their order, without so many of the first."""
        with self._changed:
            return self._begun[since:]

    def find(self, series: int, number: int, owner: str) -> Path | None:
        """The file that holds a frame, or None if it is not there; parameters as for `wait`."""
        with self._changed:
            entry = self._of(series, owner)
            return self._place(entry, owner) if number in entry.numbers else None

    def ended(self, series: int, owner: str) -> bool:
        """Whether no more frames of a series come; parameters as for `wait`."""
        with self._changed:
            return self._of(series, owner).ended

    def _of(self, series: int, owner: str) -> _Series:
        """What has arrived of the series that this owner means."""
        entry = self._owned.get(owner) or self._series.get(series, _Series())
        return entry if entry.owner in (None, owner) else _Series()

    def _place(self, entry: _Series, owner: str) -> Path:
        entry.owner, self._owned[owner] = owner, entry
        return Path(entry.path)

    def wait(self, series: int, number: int, owner: str) -> Path | None:
        """Wait for a frame; the file that holds it, or None if it is lost.

        Parameters
        ----------
        series, number : int
        owner : str
            Who asks. A series belongs to who asked first: a later one of the same number is another.
        """
        with self._changed:
            begun = time.monotonic()
            while True:
                entry = self._of(series, owner)
                if number in entry.numbers:
                    self._given_up.pop(owner, None)
                    return self._place(entry, owner)
                if entry.ended or max(entry.numbers, default=0) >= number + REORDERED_FRAMES:
                    return None
                impatient = self._given_up.get(owner) == len(entry.numbers)
                left_s = begun + (0.0 if impatient else self._patience_s) - time.monotonic()
                if left_s <= 0 and not self._stalled:
                    self._given_up[owner] = len(entry.numbers)
                    return None
                self._changed.wait(left_s if left_s > 0 else None)


class StreamedReferences:
    """A consumer of documents that passes them on in order, frames of a stream as frames of a file.

    It waits for a frame that is announced and not on disk yet, so it belongs in a thread of its own. A
    frame that does not come is reported, and never referred to.

    Parameters
    ----------
    arrivals : Arrivals
    pass_on : callable
        Takes ``(name, doc)``.
    report : callable
        Told in one line about lost frames.
    """

    def __init__(
        self, arrivals: Arrivals, pass_on: Callable[[str, Mapping[str, Any]], None], report: Report
    ) -> None:
        self._arrivals = arrivals
        self._pass_on = pass_on
        self._report = report
        self._resources: dict[str, Mapping[str, Any]] = {}
        self._rows: dict[str, int] = {}  # of each file, that documents know of
        self._lost: list[tuple[int, int]] = []

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""
        if name == "stream_resource" and doc["mimetype"] == STREAM_MIMETYPE:
            self._resources[doc["uid"]] = doc
        elif name == "stream_datum" and doc["stream_resource"] in self._resources:
            self._resolve(doc)
        else:
            if name == "stop":
                self._tell_losses()
                self._resources.clear()
                self._rows.clear()
            self._pass_on(name, doc)

    def close(self) -> None:
        """Nothing more comes."""
        self._tell_losses()

    def _resolve(self, datum: Mapping[str, Any]) -> None:
        uid = datum["stream_resource"]
        series = int(self._resources[uid]["parameters"]["series"])
        indices, numbers = datum["indices"], datum["seq_nums"]
        for number in range(indices["start"], indices["stop"]):
            path = self._arrivals.wait(series, number, uid)
            if path is None:
                self._lose(series, number)
                continue
            if uid not in self._rows:
                self._rows[uid] = 0
                self._pass_on("stream_resource", self._as_file(self._resources[uid], path))
            seq_num = numbers["start"] + number - indices["start"]
            # whoever joins files counts their rows; one that holds no frame precedes the frame that counts
            for row in (*range(self._rows[uid], number), number):
                one = {
                    "uid": f"{uid}/{row}",
                    "indices": {"start": row, "stop": row + 1},
                    "seq_nums": {"start": seq_num, "stop": seq_num + 1},
                }
                self._pass_on("stream_datum", {**datum, **one})
            self._rows[uid] = max(self._rows[uid], number + 1)

    def _as_file(self, resource: Mapping[str, Any], path: Path) -> dict[str, Any]:
        parameters = {key: value for key, value in resource["parameters"].items() if key != "series"}
        return {
            **resource,
            "mimetype": "application/x-hdf5",
            "uri": path.resolve().as_uri().replace("file://", "file://localhost", 1),
            "parameters": {**parameters, "dataset": DATA_DATASET},
        }

    def _lose(self, series: int, number: int) -> None:
        if not self._lost:
            self._report(
                f"frame {number} of series {series} was announced and did not come from the detector"
            )
        self._lost.append((series, number))

    def _tell_losses(self) -> None:
        lost, self._lost = self._lost, []
        if len(lost) > 1:
            self._report(f"{len(lost)} frames of the run were announced and did not come from the detector")
