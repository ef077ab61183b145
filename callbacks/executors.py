"""Where reconstructions run: any ``concurrent.futures.Executor``, Dask's ``Client.get_executor()`` too."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

from ptychrome.callbacks.dispatch import end_with_parent

NICENESS = 10  # the scan and its servers come first


class InlineExecutor(Executor):
    """Runs each task at once in the calling thread: for tests, scripts and debuggers."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run and return a finished future; an exception waits in the future as with any executor."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def process_executor(workers: int | None = None) -> ProcessPoolExecutor:
    """Processes that reconstruct side by side, one thread each and with low priority.

    Parameters
    ----------
    workers : int, optional
        Default: the processors that this process may use.
    """
    return ProcessPoolExecutor(
        workers or len(os.sched_getaffinity(0)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_quiet_worker,
    )


def _quiet_worker() -> None:
    from threadpoolctl import threadpool_limits

    # a pool's processes would outlive a parent that was killed
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    threadpool_limits(1)
