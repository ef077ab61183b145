"""The RunEngine's thread only enqueues, and Ctrl-C is for the scan, not for the analysis. Takes 30 s."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bluesky import RunEngine

from ptychrome.callbacks.dispatch import ConsumerThread
from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.profiles.live import LiveAnalysis, LiveSettings

SESSION = """
import json, os, signal, sys, threading
from pathlib import Path
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ptychrome.analysis.recipe import Recipe
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import spectro_ptycho, square
from ptychrome.profiles.live import LiveAnalysis, LiveSettings

if __name__ == "__main__":
    folder, recipe = Path(sys.argv[1]), Recipe.model_validate(json.loads(sys.argv[2]))
    (folder / "frames").mkdir()
    statuses, reports, waiting, fired = [], [], threading.Event(), threading.Event()
    live = LiveAnalysis(LiveSettings(recipe, folder, workers=1), folder, reports.append, statuses.append)
    RE = RunEngine()
    RE.subscribe(live)
    beamline = simulated_beamline(TwinBeamline("P1", frame_pixels=64), folder / "frames")

    def ask_for_ctrl_c(name, doc):
        if name == "event" and doc["seq_num"] == 100 and not fired.is_set():
            fired.set()
            while not (statuses and statuses[-1].energies_done):
                waiting.wait(0.02)
            print(json.dumps({"pid": os.getpid(), "analysis": live.pid}), flush=True)
            sys.stdin.readline()  # Ctrl-C has been pressed

    RE.subscribe(ask_for_ctrl_c)
    scan = spectro_ptycho(
        [beamline.eiger], beamline.dcm, beamline.stage, energies=[5420.0, 5450.0, 5501.0],
        trajectory=square(1.2e-6, 200e-9), sample_name="P1",
    )
    try:
        RE(scan)
        interrupted = False
    except RunEngineInterrupted:
        interrupted = True
        RE.resume()
    finished = live.close(60)
    print(json.dumps(dict(
        interrupted=interrupted, finished=finished, reports=reports, done=statuses[-1].energies_done,
        lost=statuses[-1].frames_lost,
    )), flush=True)
"""


def test_only_enqueueing_happens_in_the_engines_thread(tmp_path, fast_recipe, measure):
    """Every function that runs in that thread on behalf of the analysis, by the profiler's account."""
    reports: list[str] = []
    live = LiveAnalysis(
        LiveSettings(fast_recipe, tmp_path, workers=1), tmp_path, reports.append, lambda s: None
    )
    RE, threads, called = RunEngine(), set(), set()

    def subscriber(name, doc):
        threads.add(threading.get_ident())
        sys.setprofile(profile)
        try:
            live(name, doc)
        finally:
            sys.setprofile(None)

    def profile(frame, event, argument):
        if event == "call":
            called.add(frame.f_globals.get("__name__", ""))
        elif event == "c_call":
            called.add(argument.__module__ or type(argument.__self__).__module__)

    RE.subscribe(subscriber)
    scan = measure(RE, tmp_path)
    assert live.close(60)
    assert reports == []
    scan.check_complete(tmp_path)
    assert len(threads) == 1
    ours = {module for module in called if module.startswith("ptychrome")}
    assert ours == {"ptychrome.callbacks.dispatch", "ptychrome.profiles.live"}
    # of the rest nothing but queues, locks and a look whether the process lives: no arrays, files, pickles
    assert {module.partition(".")[0] for module in called - ours} <= {
        *("_collections", "_queue", "_multiprocessing", "_thread", "_weakrefset", "builtins"),
        *(
            "collections",
            "multiprocessing",
            "os",
            "posix",
            "sys",
            "threading",
            "weakref",
            "itertools",
            "time",
        ),
        *("_io", "_weakref"),
    }


@pytest.mark.parametrize("fault", ["raises", "blocks"])
def test_a_consumer_that_fails_or_hangs_leaves_the_scan_alone(tmp_path, measure, fault):
    never, reports = threading.Event(), []

    class Faulty:
        def __call__(self, name, doc):
            if fault == "blocks":
                never.wait()
            raise ValueError(f"{name} is too much")

        def close(self):
            raise ValueError("even the end")

    consumer = ConsumerThread(lambda call: Faulty(), reports.append)
    RE = RunEngine()
    RE.subscribe(consumer)
    scan = measure(RE, tmp_path)
    assert scan.stop["exit_status"] == "success"
    assert len(scan.totals()) == len(scan.energies) * 49
    if fault == "blocks":
        assert reports == []
        assert not consumer.close(0.01)
        never.set()
    assert consumer.close(60)
    assert len(reports) == len(scan.documents) + 1
    assert reports[0] == "Faulty: ValueError: start is too much"


@pytest.fixture
def session(tmp_path, fast_recipe):
    """A session in a process group of its own that is in mid-scan and analyses; and its pids."""
    script = tmp_path / "session.py"
    script.write_text(SESSION)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), fast_recipe.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    yield process, json.loads(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


def test_ctrl_c_pauses_the_scan_and_not_the_analysis(session, tmp_path):
    process, _ = session
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate("pressed\n", timeout=120)
    told = json.loads(out.splitlines()[-1])
    assert told == {"interrupted": True, "finished": True, "reports": [], "done": 3, "lost": 0}
    (file,) = tmp_path.glob("P1_*.nxs")
    assert load_result(file).attributes["energies_done"] == 3


def test_the_analysis_and_its_workers_end_with_their_parent(session):
    process, pids = session
    group = {int(path.name) for path in Path("/proc").glob("[0-9]*") if group_of(path) == process.pid}
    assert pids["analysis"] in group
    assert len(group) >= 3  # a worker too
    ends = [os.pidfd_open(pid) for pid in group - {process.pid}]
    process.kill()
    left = set(ends)
    while left:
        ended, _, _ = select.select(left, [], [], 60)
        assert ended, "a process outlived its session"
        left -= set(ended)
    for end in ends:
        os.close(end)


def group_of(path: Path) -> int:
    try:
        return os.getpgid(int(path.name))
    except ProcessLookupError:
        return 0
