"""The Tiled server as a process: addresses, clear errors, and that it never outlives its parent (30 s).."""

import os
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ptychrome.profiles.tiled_server import TiledServer, TiledServerError, raw_container, results_container

PARENT = """
import signal, sys, threading
from ptychrome.profiles.tiled_server import TiledServer
interrupted = threading.Event()
signal.signal(signal.SIGINT, lambda *_: interrupted.set())
server = TiledServer.start(sys.argv[1])
print(server.pid, flush=True)
interrupted.wait()
print("the server has", len(server.client()), "nodes", flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with TiledServer.start(tmp_path_factory.mktemp("tiled"), api_key="secret123") as server:
        yield server


def test_importing_it_stays_light():
    code = (
        "import sys, ptychrome.profiles.tiled_server; print(*{'tiled', 'numpy', 'httpx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_address_for_people_opens_with_its_key(server):
    with urllib.request.urlopen(server.web_address()) as page:
        assert b"Tiled" in page.read()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server.uri}metadata/")


def test_containers_are_made_once(server):
    for _ in range(2):
        client = server.client()
        assert raw_container(client).specs[0].version == "3.0"
        assert len(results_container(client)) == 0
    assert set(client) == {"raw", "ptychrome"}


def test_a_table_for_the_web_page_is_lines_of_json(server):
    client = server.client()
    table = client.write_table({"a": [1, 2], "b": [0.5, 1.5]}, key="table")
    url = table.item["links"]["full"] + "?format=application/json-seq"
    assert client.context.http_client.get(url).text == '{"a":1,"b":0.5}\n{"a":2,"b":1.5}\n'


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TiledServerError, match=f"cannot use port {port} .*in use; choose another one"):
            TiledServer.begin(tmp_path, port=port)


def test_a_directory_being_served_is_refused(server):
    with pytest.raises(TiledServerError, match="is being served by another Tiled server"):
        TiledServer.begin(server.directory)


def test_a_server_that_dies_at_start_shows_its_last_words(tmp_path):
    (tmp_path / "catalog.db").write_text("this is no SQLite database, whatever its name says")
    with pytest.raises(TiledServerError, match=r"ended while it started: .*not a database.*tiled\.log"):
        TiledServer.start(tmp_path)


def test_stopping_keeps_the_data_and_frees_the_port(tmp_path):
    with TiledServer.start(tmp_path) as first:
        results_container(first.client())
    port = int(first.uri.split(":")[2].split("/")[0])
    with TiledServer.start(tmp_path, port=port) as second:
        assert list(second.client()) == ["ptychrome"]
    second.stop()


def test_it_survives_ctrl_c_and_ends_with_its_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.killpg(parent.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    assert parent.stdout.readline() == "the server has 0 nodes\n"

    server = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    ready, _, _ = select.select([server], [], [], 30)
    os.close(server)
    assert ready == [server]
    assert "Finished server process" in Path(tmp_path / "tiled.log").read_text()
