"""Raw runs and results in a real Tiled server while a scan is going on. Takes 30 s.

The scans are those of the simulated beamline: a real RunEngine, real HDF5 files.
"""

import os
import signal
import subprocess
import sys

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import numpy as np
import pytest
from bluesky import RunEngine

from ptychrome.callbacks.raw import JsonLines, RawWriter, replay, upload
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.tiled import TiledSink
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans.spectro_ptycho import spectro_ptycho
from ptychrome.profiles.tiled_server import TiledServer, raw_container, results_container

IMAGE = "eiger_image"
ENERGIES = [5420.0, 5465.5, 5480.25]
X, Y = [-1e-7, 0.0, 1e-7, 2e-7], [0.0, 3e-7, 0.0, -3e-7]
FRAMES = len(ENERGIES) * len(X)

WATCHER = """
import sys, threading
import numpy as np
from ptychrome.callbacks.tiled_client import connect

uri, key, uid, wanted = *sys.argv[1:4], int(sys.argv[4])
client = connect(uri, key)
enough, seen = threading.Event(), []

def take(update):
    array = np.asarray(update.data())
    seen.append(float(array.mean()))
    print(f"{seen[-1]:g}", flush=True)
    if len(seen) == wanted:
        enough.set()

subscription = client["ptychrome", uid, "maps", "edge_energy"].subscribe()
subscription.new_data.add_callback(take)
subscription.start_in_thread(max_size=2**30)
print("watching", flush=True)
enough.wait(60)
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return tmp_path_factory.mktemp("frames")


@pytest.fixture(scope="module")
def server(tmp_path_factory, frames):
    with TiledServer.start(tmp_path_factory.mktemp("tiled"), readable=[frames]) as server:
        yield server


@pytest.fixture
def beamline(frames):
    return simulated_beamline(TwinBeamline("P1", frame_pixels=48), frames)


@pytest.fixture
def scan(beamline):
    """Runs a scan of 3 energies of 4 positions in front of subscribers; returns its uid."""

    def run(*subscribers):
        engine = RunEngine({})
        for subscriber in subscribers:
            engine.subscribe(subscriber)
        (uid,) = engine(
            spectro_ptycho(
                [beamline.eiger],
                beamline.dcm,
                beamline.stage,
                energies=ENERGIES,
                trajectory={"kind": "points", "x": X, "y": Y},
                exposure_s=0.1,
                sample_name="P1",
            )
        )
        return uid

    return run


class Collector:
    """Keeps the documents, and calls a function after some event."""

    def __init__(self, after=None, call=None):
        self.all, self._after, self._call = [], after, call

    def __call__(self, name, doc):
        self.all.append((name, doc))
        if self._after is not None and name == "event" and doc["seq_num"] == self._after:
            self._after = None
            self._call()


def stored_frames(documents):
    """The frames as they lie in the detector's file."""
    (resource,) = [doc for name, doc in documents if name == "stream_resource"]
    with h5py.File(resource["uri"].removeprefix("file://localhost"), swmr=True) as file:
        return file[resource["parameters"]["dataset"]][()]


def test_databroker_reads_a_raw_run(server, scan):
    from databroker import Broker

    documents, reports = Collector(), []
    raw = raw_container(server.client())
    uid = scan(documents, RawWriter(raw, reports.append))
    assert reports == []

    run = Broker(raw_container(server.client()))[-1]
    assert run.start["uid"] == uid
    assert run.stop["exit_status"] == "success"
    table = run.table()
    assert len(table) == FRAMES
    events = [doc["data"] for name, doc in documents.all if name == "event" and "stage_x" in doc["data"]]
    for key in ("dcm_energy", "stage_x", "stage_y", "i0"):
        np.testing.assert_array_equal(table[key], [event[key] for event in events[:FRAMES]], err_msg=key)
    np.testing.assert_array_equal(raw[uid]["primary", IMAGE].read(), stored_frames(documents.all))


def test_the_whole_run_is_exported_as_documents(server, scan):
    raw = raw_container(server.client())
    uid = scan(RawWriter(raw))
    names = [name for name, _ in raw[uid].documents()]
    assert (names[0], names[-1]) == ("start", "stop")
    assert {"descriptor", "event", "stream_resource", "stream_datum"} <= set(names)


def test_frames_are_readable_while_the_scan_goes_on(server, scan):
    raw = raw_container(server.client())
    batch, seen = 4, []

    def read_by_another():
        uid = documents.all[0][1]["uid"]
        run = server.client()["raw", uid]
        assert not run.metadata.get("stop")
        seen.append(run["primary", IMAGE].read())

    documents = Collector(after=2 * batch, call=read_by_another)
    scan(RawWriter(raw, batch_size=batch), documents)
    (frames,) = seen
    assert len(frames) >= batch
    np.testing.assert_array_equal(frames, stored_frames(documents.all)[: len(frames)])


def test_a_server_that_dies_in_mid_scan_costs_nothing_but_tiled(tmp_path, server, frames, scan):
    """The scan goes on, the file is complete, the user is told once, and upload makes up for it."""
    reports = []
    with TiledServer.start(tmp_path / "mortal", readable=[frames]) as mortal:
        writer = RawWriter(raw_container(mortal.client()), reports.append, batch_size=2)
        documents = Collector(after=5, call=lambda: os.kill(mortal.pid, signal.SIGKILL))
        uid = scan(documents, JsonLines(tmp_path), writer)
    (report,) = reports
    assert "no longer written to Tiled: no answer from Tiled at 127.0.0.1" in report
    assert [name for name, _ in replay(tmp_path / f"{uid}.jsonl")] == [name for name, _ in documents.all]

    raw = raw_container(server.client())
    assert upload(tmp_path / f"{uid}.jsonl", raw) == uid
    assert raw[uid].metadata["stop"]["exit_status"] == "success"
    np.testing.assert_array_equal(raw[uid]["primary", IMAGE].read(), stored_frames(documents.all))


def test_upload_replaces_half_a_run_and_leaves_a_whole_one_alone(tmp_path, server, scan):
    documents = Collector()
    uid = scan(documents, JsonLines(tmp_path))
    path = tmp_path / f"{uid}.jsonl"
    raw = raw_container(server.client())
    half = RawWriter(raw, batch_size=2)
    for name, doc in documents.all[: len(documents.all) // 2]:
        half(name, doc)
    assert not raw[uid].metadata.get("stop")

    upload(path, raw)
    whole = raw[uid]
    assert len(whole["primary"].read()["stage_x"]) == FRAMES
    np.testing.assert_array_equal(whole["primary", IMAGE].read(), stored_frames(documents.all))
    upload(path, raw)
    assert raw[uid].item["attributes"]["metadata"] == whole.item["attributes"]["metadata"]


def test_a_file_without_its_end_is_uploaded_and_marked(tmp_path, server, scan):
    uid = scan(JsonLines(tmp_path))
    path = tmp_path / f"{uid}.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-2][:20])
    raw = raw_container(server.client())
    upload(path, raw)
    assert raw[uid].metadata["stop"]["exit_status"] == "fail"
    assert "missing" in raw[uid].metadata["stop"]["reason"]


def test_another_process_sees_every_revision_of_a_map(server):
    sink, values = TiledSink(results_container(server.client())), [5476.5, 5477.5, 5478.5, 5479.5]

    def write(value, done):
        edge = np.full((6, 7), value, np.float32)
        sink.write(
            Revision("watched", "P1", {"energies_done": done}, {"maps/edge_energy": edge}, {}, (), False)
        )

    write(5475.5, 1)
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHER, server.uri, server.api_key, "watched", str(len(values))],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "watching\n"
    for done, value in enumerate(values, 2):
        write(value, done)
        # a client that only polls sees it as soon as it is written
        assert (server.client()["ptychrome", "watched", "maps", "edge_energy"].read() == value).all()
    out, _ = watcher.communicate(timeout=60)
    assert [float(line) for line in out.split()] == values
