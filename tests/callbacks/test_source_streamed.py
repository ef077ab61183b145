"""From "frame n of series s" to a place in a file; and the receiver's process."""

import os
import subprocess
import sys
import threading
import time

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import numpy as np
import pytest

from ptychrome.callbacks.sources.simplon import Begun, Ended, Spooled, Stalled
from ptychrome.callbacks.sources.simplon_file import DATA_DATASET
from ptychrome.callbacks.sources.spool_process import StreamReceiver
from ptychrome.callbacks.sources.streamed import REORDERED_FRAMES, Arrivals, StreamedReferences
from ptychrome.devices.assets import FrameAssets
from ptychrome.devices.simplon_simulator import SimplonSimulator

SHAPE = (16, 24)
NEVER_S = 600.0  # longer than the test may take


def documents(series, *frames):
    """Those of a detector, each with its event, and then the stop document."""
    assets = FrameAssets("eiger_image", series, "/any", SHAPE)
    for seq_num, frame in enumerate(frames, start=1):
        assets.add(frame)
        for name, doc in assets.collect():
            doc["descriptor"], doc["run_start"] = "descriptor", "run"
            if name == "stream_datum":
                doc["seq_nums"] = {"start": seq_num, "stop": seq_num + 1}
            yield name, dict(doc)
        yield "event", {"seq_num": seq_num}
    yield "stop", {}


class Bench:
    """References behind arrivals, with what came out."""

    def __init__(self, patience_s=NEVER_S):
        self.passed, self.reports = [], []
        self.arrivals = Arrivals(patience_s)
        self.references = StreamedReferences(
            self.arrivals, lambda name, doc: self.passed.append((name, doc)), self.reports.append
        )

    def __call__(self, *docs):
        for name, doc in docs:
            self.references(name, doc)

    @property
    def numbers(self):
        """(frame, seq_num) of the frames referred to."""
        return [
            (doc["indices"]["start"], doc["seq_nums"]["start"])
            for name, doc in self.passed
            if name == "stream_datum"
        ]


def test_a_reference_to_a_series_becomes_one_to_a_file(tmp_path):
    bench = Bench()
    bench.arrivals(Spooled(3, str(tmp_path / "a b.h5"), (0, 1)))
    sent = list(documents(3, 0, 1))
    bench(*sent)
    assert [name for name, _ in bench.passed] == [name for name, _ in sent]
    resource = bench.passed[0][1]
    assert resource["uri"] == f"file://localhost{tmp_path}/a%20b.h5"
    assert resource["mimetype"] == "application/x-hdf5"
    assert resource["parameters"] == {
        "dataset": DATA_DATASET,
        "chunk_shape": [1, *SHAPE],
        "join_method": "stack",
        "swmr": True,
    }
    assert [doc for name, doc in bench.passed if name == "stream_datum"] == [
        doc for name, doc in sent if name == "stream_datum"
    ]
    assert bench.reports == []


def test_files_pass_untouched(tmp_path):
    bench = Bench()
    sent = list(documents(tmp_path / "file.h5", 0, 1))
    bench(*sent)
    assert bench.passed == sent


def test_documents_wait_for_the_frame_in_their_order():
    bench = Bench()
    thread = threading.Thread(target=bench, args=documents(1, 0, 1))
    thread.start()
    time.sleep(0.05)
    assert bench.passed == []
    bench.arrivals(Spooled(1, "/x", (1,)))
    bench.arrivals(Spooled(1, "/x", (0,)))
    thread.join(10)
    assert bench.numbers == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    "afterwards",
    [[Ended(1)], [Spooled(1, "/x", (1 + REORDERED_FRAMES,))]],
    ids=["series ended", "overtaken"],
)
def test_a_lost_frame_is_told_and_its_empty_row_precedes_the_frame_that_counts(afterwards):
    bench = Bench()
    for event in [Spooled(1, "/x", (0, 2)), *afterwards]:
        bench.arrivals(event)
    bench(*documents(1, 0, 1, 2))
    assert bench.numbers == [(0, 1), (1, 3), (2, 3)]
    assert bench.passed[-1][0] == "stop"
    assert bench.reports == ["frame 1 of series 1 was announced and did not come from the detector"]


def test_a_stream_that_falls_silent_costs_patience_once():
    bench = Bench(patience_s=0.2)
    begun = time.monotonic()
    bench(*documents(1, *range(100)))
    assert 0.2 <= time.monotonic() - begun < 100 * 0.2 / 2
    assert bench.numbers == []
    assert bench.reports[-1] == "100 frames of the run were announced and did not come from the detector"


def test_a_full_disk_is_waited_for():
    bench = Bench(patience_s=0.01)
    bench.arrivals(Stalled(True))
    thread = threading.Thread(target=bench, args=documents(1, 0))
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    bench.arrivals(Spooled(1, "/x", (0,)))
    thread.join(10)
    assert bench.numbers == [(0, 1)]


def test_a_detector_that_counts_its_series_anew():
    """The second run must not be told the first one's file."""
    bench = Bench(patience_s=0.05)
    bench.arrivals(Spooled(1, "/first", (0,)))
    bench.arrivals(Ended(1))
    bench(*documents(1, 0))
    bench(*documents(1, 0))
    assert bench.numbers == [(0, 1)]
    bench.arrivals(Spooled(1, "/second", (0,)))
    bench(*documents(1, 0))
    uris = [doc["uri"] for name, doc in bench.passed if name == "stream_resource"]
    assert [uri.removeprefix("file://localhost") for uri in uris] == ["/first", "/second"]


def test_a_detector_hears_of_its_own_frames_only(tmp_path):
    """A series that another one has asked for is an older one of the same number."""
    arrivals, heard = Arrivals(), []
    arrivals.subscribe(lambda: heard.append(True))
    arrivals(Spooled(4, str(tmp_path / "a.h5"), (0, 1)))
    arrivals(Ended(4))
    assert len(heard) == 2
    assert arrivals.find(4, 0, "first") == tmp_path / "a.h5"
    assert arrivals.ended(4, "first")
    assert arrivals.find(4, 2, "first") is None
    assert arrivals.find(4, 1, "second") is None
    assert not arrivals.ended(4, "second")
    arrivals(Spooled(4, str(tmp_path / "b.h5"), (0,)))
    assert arrivals.find(4, 0, "second") == tmp_path / "b.h5"
    assert arrivals.find(4, 1, "first") == tmp_path / "a.h5"


def test_a_header_begins_another_series_even_under_the_number_of_one_that_did_not_end(tmp_path):
    arrivals = Arrivals()
    arrivals(Begun(4))
    arrivals(Spooled(4, str(tmp_path / "a.h5"), (0, 1)))
    arrivals(Begun(4))
    assert arrivals.begun() == [4, 4]
    assert arrivals.begun(1) == [4]
    assert arrivals.find(4, 0, "second") is None
    arrivals(Spooled(4, str(tmp_path / "b.h5"), (0,)))
    assert arrivals.find(4, 0, "second") == tmp_path / "b.h5"


def test_the_receiver_stores_frames_and_passes_their_documents_on(tmp_path):
    passed, reports = [], []
    stack = np.random.default_rng(0).poisson(5.0, (20, *SHAPE)).astype(np.uint32)
    with SimplonSimulator() as simulator:
        receiver = StreamReceiver(
            simulator.address, tmp_path, lambda name, doc: passed.append((name, doc)), reports.append
        )
        assert receiver.pid not in (None, os.getpid())
        series = simulator.arm(np.zeros(SHAPE, np.uint32), {"count_time": 0.1})
        sent = list(documents(series.number, *range(20)))
        for document in sent:
            receiver(*document)
        for frame in stack:
            series.append(frame)
        series.close()
        assert receiver.close(60)
    assert reports == []
    assert [name for name, _ in passed] == [name for name, _ in sent]
    (file,) = tmp_path.iterdir()
    assert passed[0][1]["uri"].endswith(file.name)
    with h5py.File(file) as stored:
        np.testing.assert_array_equal(stored[DATA_DATASET], stack)


def test_a_receiver_that_dies_is_told(tmp_path):
    told, reports = threading.Event(), []
    receiver = StreamReceiver(
        "no address", tmp_path, lambda name, doc: None, lambda text: (reports.append(text), told.set())
    )
    assert told.wait(60)
    assert "no address" in reports[0]
    assert not receiver.close(10)
    assert list(tmp_path.iterdir()) == []


SESSION_THAT_DIES = """
import os, signal, sys, threading
from pathlib import Path
from ptychrome.callbacks.sources.spool_process import StreamReceiver

if __name__ == "__main__":
    address, directory = sys.argv[1:]
    receiver = StreamReceiver(address, Path(directory), lambda name, doc: None, print)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_file_is_closed_in_order_when_the_session_is_killed(tmp_path):
    with SimplonSimulator(patience_s=60) as simulator:
        session = subprocess.Popen(
            [sys.executable, "-c", SESSION_THAT_DIES, simulator.address, tmp_path],
            stdin=subprocess.PIPE,
            text=True,
        )
        series = simulator.arm(np.zeros(SHAPE, np.uint32), {})
        series.append(np.ones(SHAPE, np.uint32))
        end = time.monotonic() + 60
        while not list(tmp_path.glob("series_*.h5")):
            assert time.monotonic() < end
            time.sleep(0.02)
        session.communicate("die\n", timeout=60)
        (file,) = tmp_path.iterdir()
        while True:
            try:
                with h5py.File(file) as stored:  # not for one that its writer has left open
                    assert (stored[DATA_DATASET][()] == 1).all()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)
