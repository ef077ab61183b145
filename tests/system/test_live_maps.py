"""A whole session while a scan runs: another process watches the maps arrive in Tiled. Takes 40 s."""

import json
import subprocess
import sys
import threading

import pytest

from ptychrome.analysis.interpretation import FEWEST_ENERGIES
from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.profiles.session import open_session

# ten of them, as many as eq. (1) has parameters, before the first edge energies are known
ENERGIES = [
    5420.0,
    5435.0,
    5450.0,
    5465.0,
    5469.0,
    5474.0,
    5478.5,
    5485.0,
    5501.0,
    5522.0,
    5476.25,
    5481.5,
    5467.0,
]
FEWEST_FOR_AN_EDGE = 10

WATCHER = """
import hashlib, json, sys, time
from ptychrome.callbacks.tiled_client import connect

uri, key = sys.argv[1:]
client, newest = connect(uri, key, timeout_s=30), 0
uid = sys.stdin.readline().strip()
while "ptychrome" not in client or uid not in client["ptychrome"]:
    time.sleep(0.1)
while True:
    run = client["ptychrome", uid]
    state = dict(run.metadata)
    if state.get("revision", 0) > newest:
        newest = state["revision"]
        seen = {key: state[key] for key in ("revision", "energies_done", "final")} | {"map": None}
        if "maps" in run:
            image = run["maps", "edge_energy"].read()
            seen["map"] = hashlib.sha1(image.tobytes()).hexdigest()
        print(json.dumps({**seen, "time": time.time()}), flush=True)
        if state["final"]:
            break
    time.sleep(0.1)
"""


class Watcher:
    """Another process with a Tiled client of its own, and what it has seen so far."""

    def __init__(self, uri: str, api_key: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCHER, uri, api_key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seen: list[dict] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(json.loads(line))

    def start(self, name: str, doc: dict) -> None:
        """Tell it the run; a subscriber for start documents."""
        assert self.process.stdin is not None
        print(doc["uid"], file=self.process.stdin, flush=True)

    def energies_done(self) -> int:
        assert self.process.poll() is None, "the watcher ended"
        return max((state["energies_done"] for state in self.seen), default=0)

    def finish(self) -> None:
        self.process.wait(60)
        self._reader.join(60)


@pytest.fixture(scope="module")
def reports():
    return []


@pytest.fixture(scope="module")
def session(tmp_path_factory, fast_recipe, reports):
    folder = tmp_path_factory.mktemp("session")
    with open_session(folder, fast_recipe, workers=1, raw_batch=10, report=reports.append) as session:
        yield session
        session.finish(60)


def test_another_process_sees_the_maps_change_with_every_energy(session, reports, measure, until):
    watcher = Watcher(session.server.uri, session.server.api_key)
    session.RE.subscribe(watcher.start, "start")

    def no_faster_than_it_sees(k, beamline):
        # real energies take minutes; here the scan would be over before the first map
        until(lambda: watcher.energies_done() >= k, f"a revision of {k} energies")

    scan = measure(session.RE, session.frames, no_faster_than_it_sees, ENERGIES)
    assert session.wait(120)
    watcher.finish()
    assert reports == []

    during = [state for state in watcher.seen if state["time"] < scan.stop["time"]]
    assert [state["revision"] for state in during] == sorted({state["revision"] for state in during})
    with_map = [state for state in during if state["map"]]
    # the last energy comes with the stop document
    assert {state["energies_done"] for state in with_map} >= set(range(FEWEST_ENERGIES, len(ENERGIES)))
    maps = [state["map"] for state in with_map if state["energies_done"] >= FEWEST_FOR_AN_EDGE]
    last = watcher.seen[-1]
    assert last["final"]
    assert last["energies_done"] == len(ENERGIES)
    # a map is read after its number: one may already be the next one's
    assert len({*maps, last["map"]}) >= len(ENERGIES) - FEWEST_FOR_AN_EDGE

    scan.check_complete(session.directory / "documents")
    raw, result = session.client()["raw", scan.uid], session.client()["ptychrome", scan.uid]
    assert raw["primary", "eiger_image"].shape[0] == len(scan.totals())
    assert raw.metadata["stop"]["uid"] == scan.stop["uid"]
    (stored,) = session.directory.glob("P1_*.nxs")
    assert load_result(stored).attributes["energies_done"] == len(ENERGIES)
    assert result.metadata["frames_lost"] == 0
