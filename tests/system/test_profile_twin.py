"""profile_twin in a real IPython: a session of two small scans, and what it leaves behind. Takes 35 s."""

import json
import subprocess
from pathlib import Path

import pytest

from ptychrome.callbacks.sinks.nexus import load_result

PROFILE = Path(__file__).parents[2] / "profiles" / "profile_twin"
ENERGIES, POSITIONS = 5, 25
NAMES = ["RE", "bec", "sd", "cat", "db", "session", "progress"]
NAMES += ["dcm", "stage", "kb", "eiger", "shutter", "i0", "ring_current", "bp", "bps"]
SETTINGS = """
sample = "D1"
frame_pixels = 64
directory = "results"
recipe = "fast.toml"
workers = 1
"""
RECIPE = """
name = "fast"
n_clusters = 2
[[reconstruct]]
engine = "epie"
sweeps = 4
[[warm]]
engine = "ml"
sweeps = 2
"""
SCRIPT = f"""
import json
import numpy as np
scan = dict(energies=v_k_edge()[::8], trajectory=square(6e-7, 150e-9))
uid, = RE(spectro_ptycho([eiger], dcm, stage, **scan))
waited = session.wait(180)
raw, result = cat["raw", uid], cat["ptychrome", uid]
absorbance = result["absorbance"].read()
print("FOUND", json.dumps(dict(
    uid=uid,
    waited=waited,
    streams=sorted(raw),
    rows=len(db[-1].table()),
    frames=raw["primary", "eiger_image"].read().shape,
    baseline=sorted(raw["baseline"].read()),
    sample_name=raw.metadata["start"]["sample_name"],
    final=result.metadata["final"],
    absorbance=absorbance.shape,
    measured=int(np.isfinite(absorbance).all(axis=(1, 2)).sum()),
    edge_energy=result["maps", "edge_energy"].shape,
    missing=[name for name in {NAMES} if globals().get(name) is None],
)))
progress()
RE(spectro_ptycho([eiger], dcm, stage, **scan), sample_name="left while it was analysed")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("session")


@pytest.fixture(scope="module")
def session(folder, ipython, copy_profile) -> subprocess.CompletedProcess:
    (folder / "fast.toml").write_text(RECIPE)
    (folder / "script.py").write_text(SCRIPT)
    return ipython(copy_profile(PROFILE, folder, SETTINGS), folder, "script.py")


@pytest.fixture(scope="module")
def found(session) -> dict:
    lines = [line for line in session.stdout.splitlines() if line.startswith("FOUND ")]
    assert len(lines) == 1, session.stdout + session.stderr
    return json.loads(lines[0].removeprefix("FOUND "))


def test_everything_is_at_hand(found):
    assert found["missing"] == []


def test_a_scan_is_in_tiled_raw_and_mapped(found):
    assert found["waited"]
    assert found["sample_name"] == "D1"
    assert found["streams"] == ["baseline", "primary"]
    assert {"kb_vertical_pitch", "dcm_bragg", "ring_current"} <= set(found["baseline"])
    assert found["frames"] == [ENERGIES * POSITIONS, 64, 64]
    assert found["rows"] == ENERGIES * POSITIONS
    assert found["final"]
    assert found["measured"] == found["absorbance"][0] == ENERGIES
    assert found["edge_energy"] == found["absorbance"][1:]


def test_it_tells_where_to_look_and_when_a_run_is_finished(session, found):
    lines = session.stdout.splitlines()
    assert any("results appear live at http://127.0.0.1:" in line for line in lines)
    assert f"/ui/browse/ptychrome/{found['uid']}/maps/edge_energy?api_key=" in session.stdout
    finished = f"D1 ({found['uid'][:8]}): 5 of 5 energies, 125 frames, none lost, finished after"
    # once by itself, once from progress()
    assert sum(finished in line for line in lines) == 2
    assert "Traceback" not in session.stdout + session.stderr


def test_leaving_waits_for_the_analysis(session, found, folder):
    assert session.returncode == 0
    assert "waiting for the analysis of 1 run(s); Ctrl-C leaves at once" in session.stdout
    (first,) = folder.glob("results/D1_*.nxs")
    (second,) = folder.glob("results/left_while_it_was_analysed_*.nxs")
    for file in (first, second):
        result = load_result(file)
        assert result.attributes["energies_done"] == ENERGIES
        assert file.with_suffix(".png").is_file()
    assert first.stem == f"D1_{found['uid'][:8]}"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ('sampel = "P1"', "sampel: Extra inputs are not permitted (got 'P1')"),
        ("seed = \n", "is not valid TOML: Invalid value (at line 1"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line_and_leaves_a_shell(
    tmp_path, ipython, copy_profile, settings, complaint
):
    profile = copy_profile(PROFILE, tmp_path, settings)
    done = ipython(profile, tmp_path, "-c", "print('the shell works')")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ptychrome: ")]
    assert line.startswith(f"ptychrome: {profile / 'settings.toml'}")
    assert complaint in line
    assert "the shell works" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "ptychrome-results").exists()


def test_git_ignores_what_ipython_writes_into_the_profile():
    root = PROFILE.parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    written = ["history.sqlite", "log/x", "pid/x", "security/x", "db/x", "startup/README"]
    paths = [str((PROFILE / name).relative_to(root)) for name in written]
    done = subprocess.run(["git", "check-ignore", *paths], cwd=root, capture_output=True, text=True)
    assert done.stdout.split() == paths
    kept = [
        str(path.relative_to(root)) for path in (PROFILE / "settings.toml", *PROFILE.glob("startup/*.py"))
    ]
    assert subprocess.run(["git", "check-ignore", *kept], cwd=root).returncode == 1
