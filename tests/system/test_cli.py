"""The command line: a mistake is one clear line, a non-zero exit and nothing written."""

import os
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest
from scipy.constants import electron_volt

from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import write_nexus
from ptychrome.cli import main

DETECTOR = "/entry_1/instrument_1/detector_1"
FIELDS = {
    "/entry_1/instrument_1/source_1/energy": 5480 * electron_volt,
    f"{DETECTOR}/data": np.random.default_rng(0).poisson(9.0, (5, 16, 16)).astype(np.float32),
    f"{DETECTOR}/distance": 1.27,
    f"{DETECTOR}/x_pixel_size": 75e-6,
    f"{DETECTOR}/y_pixel_size": 75e-6,
    "/entry_1/sample_1/geometry_1/translation": np.random.default_rng(1).uniform(-1e-7, 1e-7, (5, 3)),
}
NAN = FIELDS[f"{DETECTOR}/data"].copy()
NAN[2, 3, 4] = np.nan


def write(path, **changes):
    with h5py.File(path, "w") as file:
        for name, value in (FIELDS | changes).items():
            if value is not None:
                file[name] = value
    return path


def run(arguments, cwd):
    command = [sys.executable, "-m", "ptychrome.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


@pytest.fixture
def folder(tmp_path):
    """A folder with one good file and one of each kind of bad ones."""
    write(tmp_path / "good.cxi")
    write(tmp_path / "no_energy.cxi", **{"/entry_1/instrument_1/source_1/energy": None})
    write(tmp_path / "four.cxi", **{"/entry_1/sample_1/geometry_1/translation": np.zeros((4, 3))})
    write(tmp_path / "nan.cxi", **{f"{DETECTOR}/data": NAN})
    write(tmp_path / "dark.cxi", **{f"{DETECTOR}/data": np.zeros((5, 16, 16), np.uint16)})
    (tmp_path / "text.cxi").write_text("not HDF5")
    (tmp_path / "broken.jsonl").write_text('{"name": "start", "doc": {"uid": "1"\n')
    (tmp_path / "other.jsonl").write_text(
        '{"name": "start", "doc": {"uid": "1", "time": 0, "plan_name": "count"}}\n'
    )
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x01" * 30)
    (tmp_path / "empty.jsonl").write_text("")
    stage = '[[reconstruct]]\nengine = "epie"\n'
    (tmp_path / "unknown_key.toml").write_text(f'name = "x"\n{stage}sweep = 3\n')
    (tmp_path / "out_of_range.toml").write_text(f'name = "x"\n{stage}sweeps = 0\n')
    (tmp_path / "no_toml.toml").write_text("name = \n")
    (tmp_path / "folder").mkdir()
    return tmp_path


PROCESS = ["process", "good.cxi", "--out", "out.nxs"]
MISTAKES = {
    "unknown recipe": ([*PROCESS, "--recipe", "best9"], ["best9", "live", "paper"]),
    "unknown recipe of the demo": (["demo", "--no-serve", "--recipe", "best9"], ["best9", "live", "paper"]),
    "unknown particle": (["demo", "--no-serve", "--particles", "P1,Q7"], ["Q7", "P1", "LiVO3"]),
    "missing file": (["process", "nowhere.cxi", "--out", "out.nxs"], ["nowhere.cxi", "no such file"]),
    "one of two files missing": (["process", "good.cxi", "no.cxi", "--out", "out.nxs"], ["no.cxi"]),
    "empty folder": (["process", "folder", "--out", "out.nxs"], ["folder", "no CXI file"]),
    "not HDF5": (["process", "text.cxi", "--out", "out.nxs"], ["text.cxi", "HDF5"]),
    "no energy": (
        ["process", "no_energy.cxi", "--out", "out.nxs"],
        ["no_energy.cxi", "source_1/energy", "missing"],
    ),
    "unequal numbers": (
        ["process", "four.cxi", "--out", "out.nxs"],
        ["four.cxi", "4 positions", "expected 5"],
    ),
    "NaN in frames": (
        ["process", "nan.cxi", "--out", "out.nxs"],
        ["nan.cxi", "nan", "frame 2, row 3, column 4"],
    ),
    "no photons": (["process", "dark.cxi", "--out", "out.nxs"], ["5480.00 eV", "empty"]),
    "same energy twice": (["process", "good.cxi", "good.cxi", "--out", "out.nxs"], ["one file per energy"]),
    "missing documents": (["process", "no.jsonl", "--out", "out.nxs"], ["no.jsonl", "No such file"]),
    "broken documents": (["process", "broken.jsonl", "--out", "out.nxs"], ["broken.jsonl", "line 1"]),
    "documents of another plan": (
        ["process", "other.jsonl", "--out", "out.nxs"],
        ["other.jsonl", "ptychrome"],
    ),
    "documents not text": (["process", "binary.jsonl", "--out", "out.nxs"], ["binary.jsonl", "not text"]),
    "no documents": (["process", "empty.jsonl", "--out", "out.nxs"], ["empty.jsonl", "start document"]),
    "output folder missing": (
        ["process", "good.cxi", "--out", "none/out.nxs"],
        ["none", "not a writable folder"],
    ),
    "output is a folder": (["process", "good.cxi", "--out", "folder"], ["folder", ".nxs"]),
    "output is no .nxs": (["process", "good.cxi", "--out", "out.png"], ["out.png", ".nxs"]),
    "probe width zero": ([*PROCESS, "--probe-fwhm-m", "0"], ["--probe-fwhm-m", "positive"]),
    "probe width NaN": ([*PROCESS, "--probe-fwhm-m", "nan"], ["--probe-fwhm-m", "positive"]),
    "probe width infinite": ([*PROCESS, "--probe-fwhm-m", "inf"], ["--probe-fwhm-m", "positive"]),
    "defocus NaN": ([*PROCESS, "--defocus-m", "nan"], ["--defocus-m"]),
    "no clusters": ([*PROCESS, "--clusters", "0"], ["n_clusters"]),
    "unknown option in a recipe": (
        [*PROCESS, "--recipe", "unknown_key.toml"],
        ["unknown_key.toml", "reconstruct.0", "sweep"],
    ),
    "option out of range": ([*PROCESS, "--recipe", "out_of_range.toml"], ["out_of_range.toml", "sweeps"]),
    "recipe is no TOML": ([*PROCESS, "--recipe", "no_toml.toml"], ["no_toml.toml", "TOML"]),
    "recipe file missing": ([*PROCESS, "--recipe", "none.toml"], ["none.toml"]),
    "report of an empty folder": (["report", "folder", "--out", "out"], ["folder", "no .nxs file"]),
    "report of something else": (["report", "text.cxi", "--out", "out"], ["text.cxi", "not a result"]),
    "report into a file": (["report", "folder", "--out", "text.cxi"], ["text.cxi", "expected a folder"]),
    "unknown map of a report": (
        ["report", "folder", "--out", "out", "--scale", "b2=1,2"],
        ["b2", "edge_energy"],
    ),
    "folder for JSON missing": (["demo", "--no-serve", "--json", "none/a.json"], ["none", "not a folder"]),
}


@pytest.fixture(autouse=True)
def records_elsewhere_stay_found(monkeypatch):
    """A command that simulates a beamline sets where this process looks for records: put that back."""
    for name in ("EPICS_CA_ADDR_LIST", "EPICS_CA_AUTO_ADDR_LIST"):
        monkeypatch.setenv(name, os.environ[name])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_clear_line_and_nothing_written(mistake, folder, monkeypatch, capfd):
    arguments, words = MISTAKES[mistake]
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert main(arguments) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.startswith("ptychrome: ")]
    assert "Traceback" not in shown.err
    assert mistake == "no photons" or shown.err.count("\n") == 1, shown.err
    for word in words:
        assert word in line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("mistake", ["unknown recipe", "NaN in frames"])
def test_a_process_of_its_own_exits_with_2(mistake, folder):
    arguments, words = MISTAKES[mistake]
    done = run(arguments, folder)
    assert done.returncode == 2
    assert done.stderr.startswith("ptychrome: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)
    assert done.stdout == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    (folder / "folder").chmod(0o500)
    assert main(["process", "good.cxi", "--out", "folder/out.nxs"]) == 2
    assert "not a writable folder" in capfd.readouterr().err


def test_a_port_in_use(folder):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        done = run(["demo", "--no-serve", "--out", "results", "--port", str(port)], folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ptychrome: ")]
    assert str(port) in line
    assert not list(folder.rglob("*.nxs"))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["demo", "--help"], ["process", "--help"], ["report", "--help"]]
)
def test_help_and_version_load_nothing_heavy(arguments):
    """What a shell completes or a person asks for at once must not wait for Numba or Bluesky."""
    code = (
        "import sys\n"
        "from ptychrome.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'numpy', 'numba', 'bluesky', 'tiled', 'ophyd', 'matplotlib', 'scipy', 'h5py', 'xraydb'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")
    assert "ptychrome" in done.stdout


def test_a_report_of_one_image(tmp_path):
    """A process of its own, from a result to the page."""
    axis = 30e-9 * np.arange(12.0)[::-1]
    transmission = np.exp(-0.1 - 0.5j * (np.hypot(axis, axis[:, None]) < 2e-7))[None].astype(np.complex64)
    arrays = {
        "energy": np.array([5480.0]),
        "y": axis,
        "x": axis,
        "object": transmission,
        "absorbance": -2 * np.log(np.abs(transmission)),
        "phase": np.angle(transmission),
    }
    write_nexus(
        tmp_path / "star.nxs", Revision("uid-of-star", "star", {"recipe": "live"}, arrays, {}, (), True)
    )
    done = run(["report", "star.nxs", "--out", "report"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stderr
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"report.html", "report.pdf", "summary.csv"}
    assert "uid-of-star" in (tmp_path / "report" / "summary.csv").read_text()


def test_a_missing_command_is_an_error(tmp_path):
    done = run([], tmp_path)
    assert done.returncode == 2
    assert "usage: ptychrome" in done.stderr
