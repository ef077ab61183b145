"""``ptychrome ioc`` in one process, IPython with profile_ioc in another: a scan gives maps. Takes 60 s."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.profiles.ioc import client_environment, free_port

PROFILES = Path(__file__).parents[2] / "profiles"
ENERGIES, POSITIONS = 5, 16
NAMES = ["RE", "bec", "sd", "cat", "db", "session", "progress", "suspenders"]
NAMES += ["dcm", "stage", "kb", "eiger", "shutter", "front_end", "i0", "ring_current", "bp", "bps"]
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
scan = dict(energies=v_k_edge()[::8], trajectory=square(4.5e-7, 150e-9), exposure_s=0.1)
uid, = RE(spectro_ptycho([eiger], dcm, stage, **scan), sample_name="P1")
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
    final=result.metadata["final"],
    absorbance=absorbance.shape,
    measured=int(np.isfinite(absorbance).all(axis=(1, 2)).sum()),
    edge_energy=result["maps", "edge_energy"].shape,
    missing=[name for name in {NAMES} if globals().get(name) is None],
    scan_id=RE.md["scan_id"],
)))
%wa motors
"""


def settings_of(profile: str, port: int, **changes: str) -> str:
    """The profile's own settings with this test's port, small frames and a fast recipe."""
    text = (PROFILES / profile / "settings.toml").read_text()
    changes = {"recipe": '"fast.toml"', "directory": '"results"', "workers": "1", **changes}
    for name in changes:
        text = re.sub(rf"^{name} = .*$", "", text, flags=re.MULTILINE)
    top = "\n".join(f"{name} = {value}" for name, value in changes.items())
    text = text.replace("127.0.0.1:5064", f"127.0.0.1:{port}").replace("[128, 128]", "[64, 64]")
    return f"{top}\n{text}"


@pytest.fixture(scope="module")
def port():
    """That of an IOC started as users do."""
    port = free_port()
    options = ["--port", str(port), "--frame-pixels", "64", "--clock", "0.05"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ptychrome.cli", "ioc", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stdout.readline()
    assert first.startswith(f"serving SIM:* (P1) at 127.0.0.1:{port}"), process.stderr.read()
    yield port
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in complaints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("session")
    (folder / "fast.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def session(folder, port, ipython, copy_profile):
    (folder / "script.ipy").write_text(SCRIPT)
    profile = copy_profile(PROFILES / "profile_ioc", folder, settings_of("profile_ioc", port))
    return ipython(profile, folder, "script.ipy")


@pytest.fixture(scope="module")
def found(session):
    lines = [line for line in session.stdout.splitlines() if line.startswith("FOUND ")]
    assert len(lines) == 1, session.stdout + session.stderr
    return json.loads(lines[0].removeprefix("FOUND "))


def test_a_scan_over_channel_access_is_stored_and_mapped(session, found, folder):
    assert found["missing"] == []
    assert found["waited"]
    assert found["streams"] == ["baseline", "primary"]
    assert {"kb_vertical_pitch", "dcm_bragg", "dcm_gap", "ring_current"} <= set(found["baseline"])
    assert found["frames"] == [ENERGIES * POSITIONS, 64, 64]
    assert found["rows"] == ENERGIES * POSITIONS
    assert found["final"]
    assert found["measured"] == found["absorbance"][0] == ENERGIES
    assert found["edge_energy"] == found["absorbance"][1:]
    (file,) = folder.glob("results/P1_*.nxs")
    assert load_result(file).attributes["energies_done"] == ENERGIES
    assert session.returncode == 0
    assert "Traceback" not in session.stdout + session.stderr


def test_wa_lists_the_motors(session, found):
    listing = session.stdout.split("FOUND ")[1]
    assert re.search(r"dcm_energy\s+5\d\d\d\.", listing)
    assert "stage_x" in listing


def test_metadata_is_remembered_and_devices_that_are_off_line_are_named(
    found, folder, port, ipython, tmp_path, copy_profile
):
    """profile_epics with its placeholders, which nobody serves, in the folder of the session before."""
    assert found["scan_id"] == 1
    settings = settings_of(
        "profile_epics", port, tiled_port="0", directory=json.dumps(str(folder / "results"))
    )
    settings = settings.replace("addresses = []", f'addresses = ["127.0.0.1:{port}"]')
    settings = settings.replace("broadcast = true", "broadcast = false").replace(
        "connect_s = 5.0", "connect_s = 1.0"
    )
    settings = settings.replace('"fast.toml"', json.dumps(str(folder / "fast.toml")))
    profile = copy_profile(PROFILES / "profile_epics", tmp_path, settings)
    done = ipython(profile, tmp_path, "-c", "print('scan_id', RE.md['scan_id'], dcm.name)")
    assert "scan_id 1 dcm" in done.stdout, done.stdout + done.stderr
    for name, record in (
        ("dcm", "BL:DCM:Bragg.RBV"),
        ("ring_current", "SR:Current"),
        ("eiger", "BL:EIGER1:"),
    ):
        assert re.search(rf"{name} is OFF-LINE, nobody serves .*{record}", done.stdout)
    assert "Traceback" not in done.stdout + done.stderr


def test_settings_with_a_mistake_are_refused_by_name(port, tmp_path, ipython, copy_profile):
    settings = settings_of("profile_ioc", port).replace("distance_m = 1.273", "distance = 1.273")
    profile = copy_profile(PROFILES / "profile_ioc", tmp_path, settings)
    done = ipython(profile, tmp_path, "-c", "print('the shell works')")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ptychrome: ")]
    assert f"{profile / 'settings.toml'}, eiger.distance_m: Field required" in line
    assert "the shell works" in done.stdout


def test_ioc_that_cannot_start_says_why():
    done = subprocess.run(
        [sys.executable, "-m", "ptychrome.cli", "ioc", "--sample", "P9", "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ptychrome: ")
    assert "P9" in done.stderr


def test_client_environment_stays_on_loopback():
    assert client_environment(5070) == {
        "EPICS_CA_ADDR_LIST": "127.0.0.1:5070",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
    }
