"""Where reconstructions run: any ``concurrent.futures.Executor``, Dask's ``Client.get_executor()`` too."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

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

    os.nice(NICENESS)
    threadpool_limits(1)
