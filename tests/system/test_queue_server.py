"""The profiles in a queue server: what it lists, and a plan that runs to the end. Takes a minute.

Needs Redis's ``redis-server``; where it is missing the tests are skipped, but with the variable PTYCHROME_CI
they fail.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from bluesky_queueserver import ZMQCommSendThreads

from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.plans import square

PROFILES = Path(__file__).parents[2] / "profiles"
ENERGIES = [5420.0, 5474.0, 5478.0, 5531.0]
PATIENCE_S = 240.0  # only a test that fails waits so long
USER = {"user": "tester", "user_group": "primary"}
DEVICES = {"dcm", "stage", "kb", "eiger", "shutter", "i0", "ring_current", "drift"}
UTILITIES = {"find_particle", "choose_exposure", "calibrate_energy", "align_focus"}
PLANS = {"spectro_ptycho", "fly_spectro_ptycho", "count", "mv", *UTILITIES}
TWIN = """
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


def copy_profile(name: str, folder: Path, settings: str | None = None) -> Path:
    """Startup files in `folder`, with settings of our own; the queue server writes its lists beside them."""
    profile = folder / name
    shutil.copytree(PROFILES / name / "startup", profile / "startup")
    text = (PROFILES / name / "settings.toml").read_text() if settings is None else settings
    (profile / "settings.toml").write_text(text)
    return profile / "startup"


def environment() -> dict[str, str]:
    commands = Path(sys.executable).parent
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{commands}:{os.environ['PATH']}"}


def command(name: str) -> str:
    """A command of bluesky-queueserver, beside this Python."""
    return str(Path(sys.executable).with_name(name))


def lists(startup: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Plans and devices as ``qserver-list-plans-devices`` finds them, and what it says meanwhile."""
    done = subprocess.run(
        [command("qserver-list-plans-devices"), f"--startup-dir={startup}", f"--file-dir={folder}"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = yaml.safe_load((folder / "existing_plans_and_devices.yaml").read_text())
    return found["existing_plans"], found["existing_devices"], done.stdout + done.stderr


def check_lists(plans: dict[str, Any], devices: dict[str, Any]) -> None:
    assert plans.keys() >= PLANS
    assert devices.keys() >= DEVICES
    assert not any(name.startswith("_") for name in plans)
    for name, plan in plans.items():
        if not plan["module"].startswith("ptychrome."):
            continue
        assert plan["description"], name
        for parameter in plan["parameters"]:
            assert parameter["description"], (name, parameter["name"])
            # without a type anything would be taken and fail only when it runs
            assert parameter["annotation"]["type"] not in ("typing.Any", "inspect._empty"), (name, parameter)
    types = {p["name"]: p["annotation"]["type"] for p in plans["spectro_ptycho"]["parameters"]}
    assert types["detectors"] == "list[__READABLE__]"
    assert types["dcm"] == "__MOVABLE__"
    assert types["energies"] == "list[float]"
    types = {p["name"]: p["annotation"]["type"] for p in plans["fly_spectro_ptycho"]["parameters"]}
    assert types["flyer"] == "__FLYABLE__"


def test_profile_twin_is_listed(tmp_path):
    (tmp_path / "fast.toml").write_text(RECIPE)
    plans, devices, said = lists(copy_profile("profile_twin", tmp_path, TWIN), tmp_path)
    check_lists(plans, devices)
    assert devices["flyer"]["is_flyable"]
    # the analysis, which has been a process for hardly a second, is ended in order
    assert "Traceback" not in said
    assert "ended unexpectedly" not in said


def test_profile_ioc_is_listed(tmp_path, ioc):
    text = (PROFILES / "profile_ioc" / "settings.toml").read_text()
    text = text.replace('"SIM:', f'"{ioc.options.prefix}').replace("5064", str(ioc.options.port))
    plans, devices, said = lists(copy_profile("profile_ioc", tmp_path, text), tmp_path)
    check_lists(plans, devices)
    assert "OFF-LINE" not in said
    assert "Traceback" not in said


def test_profile_epics_is_listed_with_nothing_on_line(tmp_path):
    text = (PROFILES / "profile_epics" / "settings.toml").read_text()
    changed = {
        "addresses = []": 'addresses = ["127.0.0.1:1"]',  # nobody there
        "broadcast = true": "broadcast = false",
        "connect_s = 5.0": "connect_s = 0.5",
        "tiled_port = 8000": "tiled_port = 0",
        '"/data/frames"': f'"{tmp_path}"',
    }
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    plans, devices, said = lists(copy_profile("profile_epics", tmp_path, text), tmp_path)
    check_lists(plans, devices)
    assert "eiger is OFF-LINE" in said
    assert "Traceback" not in said


def test_all_profiles_have_the_same_permissions():
    texts = {path.read_text() for path in PROFILES.glob("profile_*/startup/user_group_permissions.yaml")}
    assert len(texts) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(arguments: list[str], cwd: Path) -> Iterator[None]:
    """A process that writes to ``log`` in its folder while it runs, and is ended in order."""
    with (cwd / f"{Path(arguments[0]).name}.log").open("w") as log:
        process = subprocess.Popen(arguments, cwd=cwd, env=environment(), stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def redis(tmp_path_factory) -> Iterator[str]:
    """Address of a Redis server that keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        missing = pytest.fail if os.environ.get("PTYCHROME_CI") else pytest.skip
        missing("redis-server is not installed; Debian: apt-get install redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running([program, *options], tmp_path_factory.mktemp("redis")):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("queue")


@pytest.fixture(scope="module")
def ask(redis, folder) -> Iterator[Callable[..., dict[str, Any]]]:
    """``ask(method, **params)`` asks a queue server with profile_twin open, which must agree."""
    (folder / "fast.toml").write_text(RECIPE)
    address = f"tcp://127.0.0.1:{free_port()}"
    arguments = [
        command("start-re-manager"),
        f"--startup-dir={copy_profile('profile_twin', folder, TWIN)}",
        f"--redis-addr={redis}",
        f"--zmq-control-addr={address}",
        "--zmq-publish-console=OFF",
    ]
    with running(arguments, folder):
        client = ZMQCommSendThreads(zmq_server_address=address, timeout_recv=int(PATIENCE_S * 1000))

        def send(method: str, agreed: bool = True, **params: Any) -> dict[str, Any]:
            answer = client.send_message(method=method, params=params)
            assert answer.get("success", True) == agreed, answer
            return answer

        send("environment_open")
        wait_for(lambda: send("status"), lambda status: status["worker_environment_exists"])
        try:
            yield send
        finally:
            send("environment_destroy")
            client.close()


def wait_for(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not good(found := look()):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def scan(**changes: Any) -> dict[str, Any]:
    """What a client sends: names, numbers and strings."""
    options = {"energies": ENERGIES, "trajectory": square(6e-7, 150e-9), "sample_name": "queued"}
    return {
        "item_type": "plan",
        "name": "spectro_ptycho",
        "args": [["eiger"], "dcm", "stage"],
        "kwargs": {**options, **changes},
    }


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        (scan(exposure_s="long"), "exposure_s"),
        (scan(energies="all"), "energies"),
        (scan(energy=5420.0), "energy"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_when_it_is_submitted(ask, item, complaint):
    assert complaint in ask("queue_item_add", agreed=False, item=item, **USER)["msg"]


def test_users_scan_and_move_no_optics(ask):
    users = {"user": "visitor", "user_group": "users"}
    assert "spectro_ptycho" in ask("plans_allowed", user_group="users")["plans_allowed"]
    mirror = {"item_type": "plan", "name": "mv", "args": ["kb.vertical_pitch", 4.1]}
    assert "mv" in ask("queue_item_add", agreed=False, item=mirror, **users)["msg"]


def test_a_submitted_plan_runs_to_the_end_and_is_analysed(ask, folder):
    ask("queue_item_add", item=scan(), **USER)
    ask("queue_start")
    history = wait_for(lambda: ask("history_get")["items"], bool)
    assert history[0]["result"]["exit_status"] == "completed", history[0]["result"]
    (uid,) = history[0]["result"]["run_uids"]
    assert (folder / "results" / "documents" / f"{uid}.jsonl").exists()
    result = folder / "results" / f"queued_{uid[:8]}.nxs"

    def energies_done() -> int:
        return int(load_result(result).attributes["energies_done"]) if result.exists() else 0

    wait_for(energies_done, lambda done: done == len(ENERGIES))
