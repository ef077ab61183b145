"""Raw runs: every document into a file of JSON lines, and into Tiled as long as Tiled works.

The file is complete whatever happens to Tiled; `upload` brings a run that Tiled missed into it afterwards.
Both writers are plain ``(name, doc)`` callables for a consumer's thread, never the RunEngine's.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from event_model import NumpyEncoder

if TYPE_CHECKING:
    from tiled.client.container import Container

Writer = Callable[[str, Any], None]
SUFFIX = ".jsonl"


class JsonLines:
    """Writes each run into ``<directory>/<run uid>.jsonl``, one document a line, flushed at once.

    Parameters
    ----------
    directory : Path
        Made when it does not exist. A file in it is never overwritten.
    """

    def __init__(self, directory: Path | str) -> None:
        folder = Path(directory)
        self._runs = _Runs(lambda start: _LinesFile(folder / f"{start['uid']}{SUFFIX}"))

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Write one document.

        Raises
        ------
        OSError
            If it cannot be written. Raised once; the rest of that run is then dropped, so that a file has
            no gaps.
        KeyError
            If the document belongs to no run that has begun.
        """
        self._runs(name, doc)

    def close(self) -> None:
        """Nothing to finish: a file is complete after every document."""


class RawWriter:
    """Writes runs into Tiled, where databroker finds them too.

    What fails is reported once and not tried again for the rest of that run; the next run starts afresh.

    Parameters
    ----------
    raw : tiled container
        Of raw runs. Take it from a client of `ptychrome.callbacks.tiled_client.connect`: others keep a
        failing write waiting for most of a minute.
    report : callable
        Told in one line what fails.
    batch_size : int
        Events and frames sent at once: they become visible in such steps.
    """

    def __init__(
        self, raw: Container, report: Callable[[str], None] = print, *, batch_size: int = 25
    ) -> None:
        self._report = report
        self._runs = _Runs(lambda start: _tiled_writer(raw, batch_size))

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Write one document; a failure is reported, not raised."""
        try:
            # a copy as a file would give it: plain types, and Tiled's writer may change it
            self._runs(name, json.loads(_line(name, doc))["doc"])
        except Exception as error:  # anything that Tiled or its writer stumbles over
            self._report(
                f"a raw run is no longer written to Tiled: {error or type(error).__name__}; "
                f"when Tiled is back, {__name__}.upload takes its {SUFFIX} file there"
            )

    def close(self) -> None:
        """Nothing to finish: a run is complete in Tiled with its stop document."""


class _Runs:
    """Hands each document to the writer of its run, until that fails.

    (event_model's RunRouter would rewrite events as pages.)
    """

    def __init__(self, open_run: Callable[[Mapping[str, Any]], Writer]) -> None:
        self._open_run = open_run
        self._run_of: dict[str, str] = {}  # uid of a start, descriptor or resource -> uid of the run
        self._writers: dict[str, Writer] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        run = doc["uid"] if name == "start" else self._run_of[_parent(doc)]
        if name in ("start", "descriptor", "resource", "stream_resource"):
            self._run_of[doc["uid"]] = run
        if name == "stop":
            self._run_of = {uid: other for uid, other in self._run_of.items() if other != run}
        write = self._open_run(doc) if name == "start" else self._writers.pop(run, None)
        if write is not None:
            write(name, doc)
            if name != "stop":
                self._writers[run] = write


def _parent(doc: Mapping[str, Any]) -> str:
    """Uid of the document that this one refers to."""
    keys = ("run_start", "descriptor", "stream_resource", "resource")
    return next(doc[key] for key in keys if doc.get(key))


class _LinesFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("x")
        self._file.write(_line(name, doc))
        self._file.flush()
        if name == "stop":
            self._file.close()


def replay(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the documents of a file written by `JsonLines`, also while it grows.

    Yields
    ------
    name : str
    doc : dict

    Raises
    ------
    ValueError
        If a line is not a document. A last line without its end, cut off in the writing, is left out.
    """
    with Path(path).open() as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                record = json.loads(line)
                yield record["name"], record["doc"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise ValueError(
                    f'{path}, line {number} is no document; expected {{"name": ..., "doc": ...}}'
                ) from None


def upload(path: Path | str, raw: Container) -> str:
    """Bring a run that Tiled missed, wholly or in part, into Tiled.

    A complete run is left alone; an incomplete one is replaced. When the file ends without a stop document
    (the writer was killed), the run gets one that says so.

    Parameters
    ----------
    path : Path
        Written by `JsonLines`.
    raw : tiled container
        The container of raw runs.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    ValueError
        If the file does not begin with a start document.
    """
    documents = replay(path)
    name, start = next(documents, ("", {}))
    if name != "start":
        raise ValueError(f"{path} does not begin with a start document; expected a file written by JsonLines")
    uid = start["uid"]
    if uid in raw:
        if raw[uid].metadata.get("stop"):
            return uid
        raw.delete_contents(uid, recursive=True, external_only=False)
    write = _tiled_writer(raw)
    write(name, start)
    for name, doc in documents:
        write(name, doc)
    if name != "stop":
        write("stop", _missing_stop(uid))
    return uid


def _tiled_writer(raw: Container, batch_size: int = 10_000) -> Callable[[str, Any], None]:
    from bluesky_tiled_plugins import TiledWriter

    return TiledWriter(raw, batch_size=batch_size)


def _line(name: str, doc: Mapping[str, Any]) -> str:
    return json.dumps({"name": name, "doc": doc}, cls=NumpyEncoder) + "\n"


def _missing_stop(uid: str) -> dict[str, Any]:
    return {
        "uid": str(uuid.uuid4()),
        "time": time.time(),
        "run_start": uid,
        "exit_status": "fail",
        "reason": "the stop document is missing; written by ptychrome's upload",
    }
