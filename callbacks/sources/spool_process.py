"""The receiver of a detector's stream in a process of its own, and the documents that wait for its frames."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ptychrome.callbacks.dispatch import ConsumerThread, Report, without_main_module
from ptychrome.callbacks.sources.simplon import Event, Spooler
from ptychrome.callbacks.sources.streamed import Arrivals, StreamedReferences

LAST_FRAMES_S = 5.0  # to store what has arrived, also when nobody wants to wait


class StreamReceiver:
    """Spools a detector's stream and turns documents that refer to it into documents that refer to files.

    Frames are received in another process, which neither a busy session nor a broken analysis can hold up;
    should this process end, that one closes its file in an orderly way.

    Parameters
    ----------
    address : str
        Of the detector, such as ``tcp://192.168.1.10:9999``.
    directory : Path
        Where the files go; it must exist.
    pass_on : callable
        Takes the documents, ``(name, doc)``, in their order; in a thread of the receiver.
    report : callable
        Told in one line about everything that is not as it should be.
    patience_s : float
        See `ptychrome.callbacks.sources.streamed.Arrivals`.

    Attributes
    ----------
    arrivals : Arrivals
        Which frames are on disk.
    """

    def __init__(
        self,
        address: str,
        directory: Path,
        pass_on: Callable[[str, Mapping[str, Any]], None],
        report: Report,
        *,
        patience_s: float = 10.0,
    ) -> None:
        self._report = report
        self._closing = False
        self.arrivals = Arrivals(patience_s)
        self._documents = ConsumerThread(
            lambda call: StreamedReferences(self.arrivals, pass_on, report), report
        )
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process = context.Process(
            target=_spool, args=(address, directory, other_end), name="ptychrome-spooler"
        )
        with without_main_module():
            self._process.start()
        other_end.close()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document from the RunEngine; never blocks, never raises."""
        self._documents(name, doc)

    @property
    def pid(self) -> int | None:
        """Process id of the receiver."""
        return self._process.pid

    def close(self, timeout_s: float | None = None) -> bool:
        """Pass on what waits for frames, then stop receiving; True if both were done within the time."""
        finished = self._documents.close(timeout_s)
        self._closing = True
        if self._process.is_alive():
            self._connection.send("stop")
        self._process.join(None if timeout_s is None else max(timeout_s, LAST_FRAMES_S))
        finished = finished and self._process.exitcode == 0
        if self._process.is_alive():
            self._process.terminate()
        self._listener.join(5)
        return finished

    def _listen(self) -> None:
        """Pass on what the other process tells, until its end closes the pipe."""
        while True:
            try:
                told = self._connection.recv()
            except (EOFError, OSError):
                break
            if isinstance(told, str):
                self._report(told)
            else:
                self.arrivals(told)
        if not self._closing:
            self._report(
                "the receiver of the detector's stream ended unexpectedly; frames stay in the detector"
            )


def _spool(address: str, directory: Path, connection: Any) -> None:
    """Main function of the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = threading.Lock()

    def tell(told: Event | str) -> None:
        with lock:
            try:
                connection.send(told)
            except OSError:  # nobody is left to be told; the frames are stored all the same
                spooler.stop()

    spooler = Spooler(directory, tell, tell)

    def stop_with_parent() -> None:
        wait([connection])  # a word, or the end of the other process
        spooler.stop()

    threading.Thread(target=stop_with_parent, daemon=True).start()
    try:
        spooler.receive(address)
    except Exception as error:
        tell(f"the detector's stream at {address} is not received: {type(error).__name__}: {error}")
        raise SystemExit(1) from None
