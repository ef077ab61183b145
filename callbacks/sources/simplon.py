"""The stream of a DECTRIS detector to local HDF5: every frame goes to disk as it arrives, still compressed.

The detector pushes, this pulls. A disk that is full or slow holds up the receiver, then the detector's own
buffer: nothing is thrown away here, and whatever cannot be understood is kept as it came.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

import zmq

from ptychrome.callbacks.dispatch import Report
from ptychrome.callbacks.sources.simplon_file import SeriesFile
from ptychrome.callbacks.sources.simplon_messages import (
    Image,
    MessageError,
    SeriesEnd,
    SeriesStart,
    parse,
)

QUEUED_MESSAGES = 200  # in this process; the detector holds the others
MESSAGES_PER_FLUSH = 64
POLL_MS = 100
PROBE_BYTES = 10_000_000  # room for a few frames of any detector


@dataclass(frozen=True)
class Begun:
    """The header of a series came."""

    series: int


@dataclass(frozen=True)
class Spooled:
    """Frames that readers can see from now on."""

    series: int
    path: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Ended:
    """No frame of the series will follow."""

    series: int


@dataclass(frozen=True)
class Stalled:
    """The disk takes nothing, or takes frames again."""

    stalled: bool


Event = Begun | Spooled | Ended | Stalled


@dataclass
class _Open:
    """The series that is arriving; its file is made with the first frame."""

    start: SeriesStart
    file: SeriesFile | None = None
    fresh: tuple[int, ...] = ()
    unreadable: int = 0


class Spooler:
    """Takes the messages of a detector and writes its series, each to a file of its own.

    Parameters
    ----------
    directory : Path
        Where the files go; it must exist.
    tell : callable
        Told of what came and was written, as `Begun`, `Spooled`, `Ended` and `Stalled`.
    report : callable
        Told in one line about everything that is not as it should be.
    min_free_bytes : int
        Nothing is written to a disk with less than this.
    retry_s : float
        Time between attempts when the disk takes nothing.
    """

    def __init__(
        self,
        directory: Path,
        tell: Callable[[Event], None],
        report: Report,
        *,
        min_free_bytes: int = 100_000_000,
        retry_s: float = 1.0,
    ) -> None:
        self._directory = directory
        self._tell = tell
        self._report = report
        self._min_free_bytes = min_free_bytes
        self._retry_s = retry_s
        self._stop = threading.Event()
        self._open: _Open | None = None
        self._kept = 0

    def receive(self, address: str) -> None:
        """Take what the detector sends until `stop` is called, and then what has arrived already.

        Parameters
        ----------
        address : str
            Such as ``tcp://192.168.1.10:9999``; nobody need listen there yet.

        Raises
        ------
        zmq.ZMQError
            If it is no address.
        """
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            socket.linger = 0
            socket.rcvhwm = QUEUED_MESSAGES
            socket.connect(address)
            while not self._stop.is_set():
                if socket.poll(POLL_MS):
                    self._drain(socket)
            while self._drain(socket):
                pass
        self.close()

    def _drain(self, socket: zmq.Socket) -> bool:
        """Take a batch of messages; False if there was none."""
        taken = 0
        with suppress(zmq.Again):
            while taken < MESSAGES_PER_FLUSH:
                self.take(socket.recv_multipart(zmq.NOBLOCK))
                taken += 1
        self.flush()
        return taken > 0

    def stop(self) -> None:
        """End `receive`; from any thread."""
        self._stop.set()

    def take(self, parts: Sequence[bytes]) -> None:
        """Take one message."""
        try:
            message = parse(parts)
            match message:
                case SeriesStart():
                    self._begin(message)
                case Image():
                    self._write(message)
                case SeriesEnd():
                    self._end(message)
        except MessageError as error:
            self._keep(parts, error)

    def flush(self) -> None:
        """Let readers see all frames taken so far."""
        if self._open is None or self._open.file is None or not self._open.fresh:
            return
        file, numbers = self._open.file, self._open.fresh
        if self._until_done(file.flush):
            self._open.fresh = ()
            self._tell(Spooled(self._open.start.series, str(file.path), numbers))

    def close(self) -> None:
        """Close what is open; no message follows."""
        if self._open is not None:
            self._finish("the receiver was stopped before its end message")

    def _begin(self, start: SeriesStart) -> None:
        if self._open is not None:
            self._finish(f"series {start.series} began without its end message")
        self._open = _Open(start)
        self._tell(Begun(start.series))

    def _write(self, image: Image) -> None:
        if self._open is None or self._open.start.series != image.series:
            if self._open is not None:
                self._finish(f"frames of series {image.series} came without its end message")
            self._report(f"series {image.series} of the detector: no header came; its frames are kept")
            self._open = _Open(SeriesStart(image.series))
        series = self._open

        def write() -> None:
            series.file = series.file or SeriesFile(self._path(series.start), series.start, image)
            series.file.write(image)

        if self._until_done(write):
            series.fresh += (image.number,)
        else:
            self._report(f"frame {image.number} of series {image.series} is lost: the disk took nothing")

    def _path(self, start: SeriesStart) -> Path:
        return self._directory / f"series_{start.series:06d}_{time.time_ns():x}.h5"

    def _end(self, end: SeriesEnd) -> None:
        if self._open is None or self._open.start.series != end.series:
            self._report(f"series {end.series} of the detector ended, but it had not begun")
        else:
            self._finish()

    def _finish(self, fault: str = "") -> None:
        """Close the file of the series and tell what it lacks."""
        self.flush()
        assert self._open is not None
        series, self._open = self._open, None
        faults = [fault] if fault else []
        if series.file is not None:
            try:
                series.file.close()
            except OSError as error:
                faults.append(str(error))
            if missing := series.file.missing:
                faults.append(f"{missing} frames never came, the first one is {series.file.first_missing}")
        if series.unreadable:
            faults.append(f"{series.unreadable} messages could not be read and were kept as they came")
        self._tell(Ended(series.start.series))
        if faults:
            self._report(f"series {series.start.series} of the detector: {'; '.join(faults)}")

    def _keep(self, parts: Sequence[bytes], error: MessageError) -> None:
        """Save a message as it came, each part after its length (8 bytes, big endian)."""
        self._kept += 1
        path = self._directory / f"unreadable_{time.time_ns():x}_{self._kept:06d}.bin"
        content = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        kept = self._until_done(lambda: path.write_bytes(content))
        if self._open is not None:
            self._open.unreadable += 1
        if self._open is None or self._open.unreadable == 1 or not kept:
            self._report(f"from the detector: {error}; " + (f"kept as {path}" if kept else "it is lost"))

    def _until_done(self, action: Callable[[], object]) -> bool:
        """Try until the disk takes it; False if `stop` was called before it did."""
        stalled = False
        while True:
            try:
                self._probe(write=stalled)
                action()
            except OSError as error:
                if not stalled:
                    stalled = True
                    self._tell(Stalled(True))
                    self._report(f"frames wait in the detector, make room: {error}")
                if self._stop.wait(self._retry_s):
                    return False
            else:
                if stalled:
                    self._tell(Stalled(False))
                    self._report("the disk takes frames again")
                return True

    def _probe(self, *, write: bool) -> None:
        """Raise OSError where the disk is nearly full or, if `write`, does not take data (a quota, say)."""
        if (free := disk_usage(self._directory).free) < self._min_free_bytes:
            raise OSError(f"{free / 1e6:.0f} MB left on the disk of {self._directory}")
        if write:
            probe = self._directory / f".probe_{os.getpid()}"
            try:
                probe.write_bytes(bytes(PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
