"""Inboxes, threads and the other process: nothing blocks, nothing raises, whatever a consumer does. (15 s)"""

import os
import queue
import signal
import threading
from pathlib import Path

import pytest

from ptychrome.callbacks.dispatch import ConsumerThread, ProcessConsumer


class Recorder:
    """Keeps what it is given, and in which thread."""

    def __init__(self):
        self.documents, self.threads, self.closed = [], set(), False

    def __call__(self, name, doc):
        self.threads.add(threading.get_ident())
        if name == "raise":
            raise ValueError("no such thing")
        self.documents.append((name, doc))

    def close(self):
        self.threads.add(threading.get_ident())
        self.closed = True


def test_a_consumer_lives_in_one_thread_of_its_own():
    recorder, built = Recorder(), []

    def build(call):
        built.append(threading.get_ident())
        return recorder

    thread = ConsumerThread(build, pytest.fail)
    for number in range(100):
        thread("event", {"seq_num": number})
    assert thread.close(30)
    assert [doc["seq_num"] for _, doc in recorder.documents] == list(range(100))
    assert recorder.closed
    assert recorder.threads == set(built)
    assert threading.get_ident() not in recorder.threads


def test_an_exception_is_told_and_the_next_document_comes():
    recorder, reports = Recorder(), []
    thread = ConsumerThread(lambda call: recorder, reports.append)
    for name in ("start", "raise", "event", "raise"):
        thread(name, {})
    assert thread.close(30)
    assert [name for name, _ in recorder.documents] == ["start", "event"]
    assert reports == ["Recorder: ValueError: no such thing"] * 2


def test_a_function_is_called_in_the_consumers_thread_between_documents():
    recorder, calls = Recorder(), queue.SimpleQueue()

    def build(call):
        calls.put(call)
        return recorder

    thread, order = ConsumerThread(build, pytest.fail), []
    call = calls.get(timeout=30)
    thread("start", {})
    call(lambda: order.append((threading.get_ident(), len(recorder.documents))))
    thread("stop", {})
    assert thread.close(30)
    ((ident, seen),) = order
    assert ident in recorder.threads
    assert seen == 1


def test_a_consumer_that_cannot_be_built_is_told():
    reports = []

    def build(call):
        raise OSError("no such disk")

    thread = ConsumerThread(build, reports.append)
    thread("start", {})
    assert thread.close(30)
    assert reports == ["not started: no such disk"]


def test_a_consumer_that_blocks_does_not_block_its_feeder():
    release = threading.Event()

    class Blocking(Recorder):
        def __call__(self, name, doc):
            release.wait()
            super().__call__(name, doc)

    recorder = Blocking()
    thread = ConsumerThread(lambda call: recorder, pytest.fail)
    for number in range(1000):
        thread("event", {"seq_num": number})
    assert not thread.close(0.01)
    assert recorder.documents == []
    release.set()
    assert thread.close(30)
    assert len(recorder.documents) == 1000


@pytest.fixture
def process(tmp_path, monkeypatch):
    """``process(name)``: a `ProcessConsumer` and what it told."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "helpers")
    import recording_consumers

    started = []

    def start(build="build"):
        reports, statuses = [], []
        consumer = ProcessConsumer(
            getattr(recording_consumers, build), tmp_path / "log", reports.append, statuses.append
        )
        started.append(consumer)
        return consumer, reports, statuses

    yield start
    for consumer in started:
        consumer.close(0)


def lines(tmp_path):
    return (tmp_path / "log").read_text().splitlines()


def test_the_other_process_takes_everything_and_finishes(tmp_path, process):
    consumer, reports, statuses = process()
    assert consumer.alive
    consumer("status", {"done": 7})
    consumer("report", {"text": "the disk is full"})
    consumer("raise", {"text": "no such thing"})
    for _ in range(200):
        consumer("event", {})
    assert consumer.close(60)
    assert not consumer.alive
    assert lines(tmp_path) == [
        f"{name} {consumer.pid}" for name in ("status", "report", *["event"] * 200)
    ] + ["closed"]
    assert consumer.pid != os.getpid()
    assert [status.energies_done for status in statuses] == [7]
    assert reports == ["the disk is full", "Recorder: ValueError: no such thing"]


def test_a_document_that_cannot_be_sent_does_not_raise(tmp_path, process, capfd):
    consumer, _, _ = process()
    consumer("event", {"data": lambda: None})  # no device emits this; a wrong one might
    consumer("event", {})
    assert consumer.close(60)
    assert lines(tmp_path) == [f"event {consumer.pid}", "closed"]
    assert "pickle" in capfd.readouterr().err


@pytest.mark.parametrize("death", ["exit", "kill"])
def test_its_death_is_told_once_and_documents_go_nowhere(process, death):
    consumer, reports, _ = process()
    if death == "exit":
        consumer("exit", {"code": 3})
    else:
        os.kill(consumer.pid, signal.SIGKILL)
    consumer._listener.join(60)
    for _ in range(10):
        consumer("event", {})
    assert not consumer.close(60)
    (report,) = reports
    assert report.startswith("the live analysis ended unexpectedly; the scan goes on")
    assert not consumer.alive


def test_one_that_blocks_is_ended_when_the_time_is_over(process):
    consumer, reports, _ = process()
    consumer("block", {})
    assert not consumer.close(0.5)
    assert not consumer.alive
    assert reports == []


def test_one_that_cannot_be_built_is_told(process, capfd):
    consumer, reports, _ = process("build_none")
    consumer._listener.join(60)
    assert "ended unexpectedly" in reports[0]
    assert "cannot be built" in capfd.readouterr().err
