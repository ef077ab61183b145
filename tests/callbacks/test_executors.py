"""Where reconstructions run: inline, and in processes that may die. Takes 15 s."""

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from ptychrome.callbacks.executors import NICENESS, InlineExecutor, WorkerProcesses

DIED = "a reconstruction process died; what it did is done once more by another one"


@pytest.fixture
def reports():
    return []


@pytest.fixture
def workers(reports):
    with WorkerProcesses(2, reports.append) as executor:
        yield executor


def test_inline_runs_at_once_and_keeps_the_exception():
    executor, done = InlineExecutor(), []
    executor.submit(done.append, 1)
    assert done == [1]
    assert executor.submit(divmod, 7, 2).result() == (3, 1)
    future = executor.submit(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        future.result()


def test_workers_are_other_processes_of_low_priority(workers, reports):
    pid = workers.submit(os.getpid).result(60)
    assert pid != os.getpid()
    assert workers.submit(os.nice, 0).result(60) == os.nice(0) + NICENESS
    with pytest.raises(ZeroDivisionError):
        workers.submit(divmod, 1, 0).result(60)
    assert reports == []


def test_what_a_killed_worker_did_is_done_again(workers, reports):
    pid = workers.submit(os.getpid).result(60)
    tasks = [workers.submit(time.sleep, 1.0) for _ in range(3)]
    os.kill(pid, signal.SIGKILL)
    assert [task.result(60) for task in tasks] == [None] * 3
    assert workers.submit(divmod, 7, 2).result(60) == (3, 1)
    assert reports == [DIED]


def test_a_worker_that_dies_idle_costs_nothing(workers, reports):
    os.kill(workers.submit(os.getpid).result(60), signal.SIGKILL)
    assert [workers.submit(divmod, 7, 2).result(60) for _ in range(20)] == [(3, 1)] * 20
    assert reports in ([], [DIED])  # nobody may have noticed before a task came


def test_a_task_that_kills_its_process_fails_and_takes_no_other_along(workers, reports):
    workers.submit(os.getpid).result(60)
    innocent = [workers.submit(time.sleep, 0.5) for _ in range(2)]
    deadly = workers.submit(os._exit, 9)
    assert [task.result(60) for task in innocent] == [None, None]
    with pytest.raises(BrokenProcessPool):
        deadly.result(60)
    assert workers.submit(divmod, 7, 2).result(60) == (3, 1)
    assert reports == [DIED]
