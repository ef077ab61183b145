"""Between the RunEngine and everything that is slow: inboxes, threads and one process.

The RunEngine's thread only enqueues; whatever happens on the other side of the queue can neither stop
nor slow a scan.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any, Protocol

from ptychrome.callbacks.progress import Status

Call = Callable[[Callable[[], None]], None]
Report = Callable[[str], None]
Document = tuple[str, Mapping[str, Any]]


class Consumer(Protocol):
    """Takes documents one by one; called from one thread only."""

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""

    def close(self) -> None:
        """Finish; no document follows."""


class ConsumerThread:
    """Feeds a consumer from an inbox in a thread of its own.

    Parameters
    ----------
    build : callable
        ``build(call) -> Consumer``, called in the thread; ``call(function)``, from any thread, has the
        function called in this one.
    report : callable
        Told in one line about every exception of the consumer, which then goes on with the next document.
    """

    def __init__(self, build: Callable[[Call], Consumer], report: Report) -> None:
        self._inbox: queue.SimpleQueue[Document | Callable[[], None] | None] = queue.SimpleQueue()
        self._build = build
        self._report = report
        self._thread = threading.Thread(target=self._work, name="ptychrome-consumer", daemon=True)
        self._thread.start()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Enqueue one document; never blocks, never raises."""
        self._inbox.put((name, doc))

    def close(self, timeout_s: float | None = None) -> bool:
        """Let the consumer finish what it has; True if it did within the time."""
        self._inbox.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            consumer = self._build(self._inbox.put)
        except Exception as error:
            self._report(f"not started: {error}")
            return
        while (item := self._inbox.get()) is not None:
            try:
                if callable(item):
                    item()
                else:
                    consumer(*item)
            except Exception as error:
                self._report(f"{type(consumer).__name__}: {type(error).__name__}: {error}")
        try:
            consumer.close()
        except Exception as error:
            self._report(f"{type(consumer).__name__}: {type(error).__name__}: {error}")


class ProcessConsumer:
    """Runs consumers in a process of their own, so that they cannot take the scan's interpreter lock.

    Parameters
    ----------
    build : callable
        ``build(settings, report, on_status) -> sequence of builders for ConsumerThread``; a module-level
        function, since it is called in the other process.
    settings : picklable
    report, on_status : callable
        Called from a thread of this process with what the other one says.
    """

    def __init__(
        self,
        build: Callable[[Any, Report, Callable[[Status], None]], Sequence[Callable]],
        settings: Any,
        report: Report,
        on_status: Callable[[Status], None],
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._documents: Any = context.Queue()
        self._report = report
        self._on_status = on_status
        self._closing = False
        self._ended = threading.Event()
        receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_serve, args=(build, settings, self._documents, sender), name="ptychrome-analysis"
        )
        with without_main_module():
            self._process.start()
        sender.close()
        self._listener = threading.Thread(target=self._listen, args=(receiver,), daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int | None:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._ended.is_set()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Enqueue one document; never blocks, never raises."""
        if self.alive:
            self._documents.put((name, doc))

    def close(self, timeout_s: float | None = None) -> bool:
        """Let the consumers finish what they have; True if they did within the time."""
        self._closing = True
        if self.alive:
            self._documents.put(None)
        self._process.join(timeout_s)
        finished = self._process.exitcode == 0
        if self._process.is_alive():
            self._process.terminate()
        self._listener.join(5)
        self._documents.cancel_join_thread()
        return finished

    def _listen(self, receiver: Any) -> None:
        """Pass on what the other process says, until its end closes the pipe.

        Only `close` waits for the process itself: two threads that do miss each other's exit code.
        """
        tell: dict[str, Callable[[Any], None]] = {"status": self._on_status, "report": self._report}
        while True:
            try:
                kind, content = receiver.recv()
            except (EOFError, OSError):
                break
            try:
                tell[kind](content)
            except Exception:  # a display that fails must not make the other process wait for a full pipe
                logging.getLogger(__name__).exception("a %s of the live analysis was not shown", kind)
        self._ended.set()
        if not self._closing:
            self._report(
                "the live analysis ended unexpectedly; the scan goes on. "
                "Process its documents file again afterwards"
            )


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keep a new process from running the user's script, or an IPython startup file, once more."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(build: Callable, settings: Any, documents: Any, sender: Any) -> None:
    """Main function of the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    lock = threading.Lock()

    def tell(kind: str, content: Any) -> None:
        with lock:
            sender.send((kind, content))

    def report(text: str) -> None:
        tell("report", text)

    builders = build(settings, report, lambda status: tell("status", status))
    threads = [ConsumerThread(builder, report) for builder in builders]
    while (item := documents.get()) is not None:
        for thread in threads:
            thread(*item)
    for thread in threads:
        thread.close()


def end_with_parent() -> None:
    """For a thread of a process of ours: end the process when its parent has ended, however it did."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
