"""Where reconstructions run: any ``concurrent.futures.Executor``, Dask's ``Client.get_executor()`` too."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from ptychrome.callbacks.dispatch import Report, end_with_parent

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


class WorkerProcesses(Executor):
    """Processes that work side by side, one thread each and with low priority.

    All of them start at once, so that no energy waits for one to import what it needs. When one of them dies
    (killed, out of memory), new ones are started and what was running is tried once more: each task in a
    process of its own, so that one that kills its process takes no other along. A task that does so twice
    fails with `BrokenProcessPool`.

    Parameters
    ----------
    workers : int, optional
        Default: the processors that this process may use.
    report : callable
        Told in one line when a process died.
    """

    def __init__(self, workers: int | None = None, report: Report = print) -> None:
        self._workers = workers or len(os.sched_getaffinity(0))
        self._report = report
        self._lock = threading.Lock()
        self._pool = _pool(self._workers)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run in one of the processes."""
        task, future = partial(fn, *args, **kwargs), Future[Any]()
        future.set_running_or_notify_cancel()
        pool = self._pool
        try:
            trial = pool.submit(task)
        except BrokenProcessPool:
            trial = self._renewed(pool).submit(task)
        trial.add_done_callback(partial(self._first_trial_done, pool, task, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes, once they have done what they have."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _first_trial_done(
        self, pool: ProcessPoolExecutor, task: Callable[[], Any], future: Future[Any], trial: Future[Any]
    ) -> None:
        if trial.cancelled() or not isinstance(trial.exception(), BrokenProcessPool):
            _pass_on(trial, future)
            return
        self._renewed(pool)
        alone = _pool(1)
        alone.submit(task).add_done_callback(partial(_pass_on, future=future))
        alone.shutdown(wait=False)

    def _renewed(self, broken: ProcessPoolExecutor) -> ProcessPoolExecutor:
        """The pool that takes the place of a broken one, which several threads may have found broken."""
        with self._lock:
            if self._pool is broken:
                self._pool = _pool(self._workers)
                self._report("a reconstruction process died; what it did is done once more by another one")
            return self._pool


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet_worker)
    with contextlib.suppress(BrokenProcessPool):  # whoever submits a task finds out, and has a new pool made
        for _ in range(workers):  # each finds no idle process and starts one
            pool.submit(_imports)
    return pool


def _imports() -> None:
    import ptychrome.callbacks.reconstruct  # noqa: F401


def _pass_on(trial: Future[Any], future: Future[Any]) -> None:
    try:
        future.set_result(trial.result())
    except BaseException as error:  # a task may even have ended its process's interpreter
        future.set_exception(error)


def _quiet_worker() -> None:
    from threadpoolctl import threadpool_limits

    # a pool's processes would outlive a parent that was killed
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    threadpool_limits(1)
