"""Whatever fails beside a scan: it goes on, its raw data are complete, and the user is told. Takes 60 s."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps

from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.profiles.live import LiveAnalysis, LiveSettings
from ptychrome.profiles.session import open_session

DISK_FULL_BYTES = 4096
RECIPE_FILE = """
name = "fast"
n_clusters = 2
[[reconstruct]]
engine = "epie"
sweeps = 10
[[warm]]
engine = "ml"
sweeps = 3
"""


class Bench:
    """A RunEngine with the live analysis beside it (no Tiled), and all that it said."""

    def __init__(self, folder: Path, recipe) -> None:
        self.frames, self.documents, self.results = (
            folder / name for name in ("frames", "documents", "results")
        )
        for directory in (self.frames, self.results):
            directory.mkdir()
        self.reports: list[str] = []
        self.statuses: list = []
        self.live = LiveAnalysis(
            LiveSettings(recipe, self.results, workers=1),
            self.documents,
            self.reports.append,
            self.statuses.append,
        )
        self.RE = RunEngine()
        self.RE.subscribe(self.live)

    def energies_done(self) -> int:
        return self.statuses[-1].energies_done if self.statuses else 0

    def last(self, scan):
        """The final status of a run, None before it is there."""
        return next((s for s in self.statuses if s.raw_uid == scan.uid and s.finished), None)


@pytest.fixture
def bench(tmp_path, fast_recipe):
    bench = Bench(tmp_path, fast_recipe)
    yield bench
    bench.live.close(0)


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def workers_of(pid: int) -> list[int]:
    """Its reconstruction processes; those alone are niced."""
    return [child for child in children(pid) if os.getpriority(os.PRIO_PROCESS, child) >= 10]


def rebuild(path: Path) -> subprocess.CompletedProcess:
    """``ptychrome process <uid>.jsonl``, as the user is told to do."""
    (path.parent / "fast.toml").write_text(RECIPE_FILE)
    arguments = ["process", str(path), "--out", str(path.with_suffix(".nxs")), "--recipe", "fast.toml"]
    return subprocess.run(
        [sys.executable, "-m", "ptychrome.cli", *arguments],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_an_energy_that_cannot_be_reconstructed_is_lost_and_told(bench, measure, energies, until):
    def dark_at_the_third(k, beamline):
        if k in (2, 3):
            return bps.mv(beamline.shutter, "closed" if k == 2 else "open")

    scan = measure(bench.RE, bench.frames, dark_at_the_third)
    until(lambda: bench.last(scan), "the end of the analysis")
    scan.check_complete(bench.documents)
    (report,) = bench.reports
    assert report.startswith(f"P1, {energies[2]:.2f} eV: not reconstructed: incident intensity at")
    assert bench.last(scan).energies_done == len(energies) - 1
    assert bench.last(scan).frames_lost == 49


def test_a_worker_that_is_killed_costs_no_energy(bench, measure, energies, until):
    def kill_the_worker(k, beamline):
        if k == 4:
            until(lambda: bench.energies_done() >= 1, "the first energy")
            (worker,) = workers_of(bench.live.pid)
            os.kill(worker, signal.SIGKILL)

    scan = measure(bench.RE, bench.frames, kill_the_worker)
    until(lambda: bench.last(scan), "the end of the analysis")
    scan.check_complete(bench.documents)
    assert bench.reports == ["a reconstruction process died; what it did is done once more by another one"]
    assert bench.last(scan).energies_done == len(energies)
    assert bench.last(scan).frames_lost == 0


def test_an_analysis_that_is_killed_leaves_the_scan_alone_and_can_be_rebuilt(bench, measure, energies, until):
    def kill_the_analysis(k, beamline):
        if k == 4:
            until(lambda: bench.energies_done() >= 1, "the first energy")
            os.kill(bench.live.pid, signal.SIGKILL)

    scan = measure(bench.RE, bench.frames, kill_the_analysis)
    assert not bench.live.close(60)
    path = scan.check_complete(bench.documents)
    (report,) = bench.reports
    assert "the live analysis ended unexpectedly; the scan goes on" in report
    assert bench.last(scan) is None

    done = rebuild(path)
    assert done.returncode == 0, done.stderr
    result = load_result(path.with_suffix(".nxs"))
    assert result.attributes["energies_done"] == len(energies)
    assert result.attributes["frames_lost"] == 0


def test_a_full_disk_for_results_is_told_and_the_next_scan_is_stored(bench, measure, energies, until):
    def fill_the_disk(k, beamline):
        if k == 2:  # from here on the analysis cannot write a file of more than 4 kB
            limits = (DISK_FULL_BYTES, resource.RLIM_INFINITY)
            resource.prlimit(bench.live.pid, resource.RLIMIT_FSIZE, limits)

    scan = measure(bench.RE, bench.frames, fill_the_disk)
    until(lambda: bench.last(scan), "the end of the analysis")
    scan.check_complete(bench.documents)
    assert {report.partition(":")[0] for report in bench.reports} == {"NexusSink", "FigureSink"}
    assert all("results not written" in report for report in bench.reports)
    assert bench.last(scan).energies_done == len(energies)
    assert not [file for file in bench.results.iterdir() if file.stat().st_size == DISK_FULL_BYTES]

    resource.prlimit(bench.live.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    told = len(bench.reports)
    again = measure(bench.RE, bench.frames)
    assert bench.live.close(60)
    (file,) = bench.results.glob(f"P1_{again.uid[:8]}.nxs")
    assert load_result(file).attributes["energies_done"] == len(energies)
    assert bench.reports[told:] == []


def test_a_results_folder_that_is_gone_is_told(bench, measure, energies, until):
    def remove_it(k, beamline):
        if k == 4:
            until(lambda: bench.energies_done() >= 1, "the first energy")
            shutil.rmtree(bench.results)
            bench.results.write_text("no folder any more")

    scan = measure(bench.RE, bench.frames, remove_it)
    assert bench.live.close(60)
    scan.check_complete(bench.documents)
    assert {report.partition(":")[0] for report in bench.reports} == {"NexusSink", "FigureSink"}
    assert bench.last(scan).energies_done == len(energies)


def test_a_tiled_server_that_dies_leaves_the_file_of_results(tmp_path, fast_recipe, measure, energies, until):
    reports: list[str] = []
    statuses: list = []

    def kill_tiled(k, beamline):
        if k == 4:
            until(lambda: statuses and statuses[-1].energies_done, "the first energy")
            os.kill(session.server.pid, signal.SIGKILL)

    with open_session(
        tmp_path, fast_recipe, workers=1, raw_batch=10, report=reports.append, on_status=statuses.append
    ) as session:
        scan = measure(session.RE, session.frames, kill_tiled)
        assert session.finish(60)
    scan.check_complete(session.directory / "documents")
    told = "\n".join(reports)
    assert "TiledSink: results not written: no answer from Tiled at 127.0.0.1" in told
    assert "a raw run is no longer written to Tiled: no answer from Tiled at 127.0.0.1" in told
    (file,) = session.directory.glob("P1_*.nxs")
    assert load_result(file).attributes["energies_done"] == len(energies)
