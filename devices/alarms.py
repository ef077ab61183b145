"""Calls at given times, all from one thread: to start one for each takes milliseconds on a busy machine."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable


class Alarm:
    """A call to come; see `Alarms.call_later`."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def cancel(self) -> None:
        """Do not call."""
        self._function = None

    def ring(self) -> None:
        """Call, unless cancelled."""
        if (function := self._function) is not None:
            try:
                function()
            except Exception:  # those that come after it must be called all the same
                logging.getLogger(__name__).exception("a call that was due failed")


class Alarms:
    """Calls functions when it is time; its thread starts with the first of them."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()  # of two that are due at once, the one that was set first
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def call_later(self, seconds: float, function: Callable[[], None]) -> Alarm:
        """Have a function called so much later, in the thread of all alarms: it must not take long."""
        alarm = Alarm(function)
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="ptychrome-alarms", daemon=True)
                self._thread.start()
            elif self._due[0][2] is alarm:
                self._changed.notify()
        return alarm

    def _work(self) -> None:
        while True:
            self._next().ring()

    def _next(self) -> Alarm:
        """The alarm that is due next, when it is."""
        with self._changed:
            while True:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(left)
