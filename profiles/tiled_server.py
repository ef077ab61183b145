"""A Tiled server in a process of its own, which ends with the process that started it.

``python -m ptychrome.profiles.tiled_server CONFIG FD`` is that process; nobody needs to call it by hand:
``tiled serve config CONFIG`` serves the same data once nobody else does.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import secrets
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ptychrome.callbacks.tiled_client import connect
from ptychrome.schema import RAW_ROOT, RESULT_ROOT

if TYPE_CHECKING:
    import pandas
    from tiled.client.container import Container

HOST = "127.0.0.1"
KEY_VARIABLE = "TILED_SINGLE_USER_API_KEY"
CATALOG = "catalog.db"
STREAM_CACHE_S = 120  # every array written is kept in memory this long, for subscribers that come late
STOP_S = 5.0


class TiledServerError(RuntimeError):
    """The Tiled server cannot be started; the message says why."""


class TiledServer:
    """A running Tiled server: SQLite catalog, files, DuckDB tables, streams in memory, one API key.

    Made by `start`, or by `begin` when there is other work to do while it starts (6-7 s). Use it as a
    context manager, or call `stop`; the server also ends when this process ends, however that happens.

    Attributes
    ----------
    directory : Path
        Everything the server writes: ``catalog.db``, ``data/``, ``tables.duckdb``, ``tiled.yml``,
        ``tiled.log``.
    uri : str
        For clients, without the key.
    api_key : str
        Lets everything be read and written.
    """

    def __init__(self, directory: Path, process: subprocess.Popen, port: int, api_key: str) -> None:
        self.directory = directory
        self.uri = f"http://{HOST}:{port}/api/v1/"
        self.api_key = api_key
        self._pages = f"http://{HOST}:{port}/ui/browse/"
        self._process = process

    @classmethod
    def start(
        cls,
        directory: Path | str,
        *,
        port: int = 0,
        readable: Sequence[Path | str] = (),
        api_key: str | None = None,
        timeout_s: float = 60.0,
    ) -> TiledServer:
        """`begin` and `wait_ready` in one; parameters and errors are theirs."""
        server = cls.begin(directory, port=port, readable=readable, api_key=api_key)
        server.wait_ready(timeout_s)
        return server

    @classmethod
    def begin(
        cls,
        directory: Path | str,
        *,
        port: int = 0,
        readable: Sequence[Path | str] = (),
        api_key: str | None = None,
    ) -> TiledServer:
        """Start the process and return at once.

        Parameters
        ----------
        directory : path
            Where the data lie; made when it does not exist, continued when it does.
        port : int
            0 takes a free one.
        readable : sequence of paths
            Directories of raw frames; files elsewhere can be registered but not read through Tiled.
        api_key : str, optional
            Letters and digits. Default: a new random one.

        Raises
        ------
        TiledServerError
            If the port is in use, the key is not letters and digits, or another server serves the directory.
        """
        api_key = api_key or secrets.token_hex(16)
        if not api_key.isalnum():
            raise TiledServerError("the API key of a Tiled server must be letters and digits only")
        directory = Path(directory).resolve()
        (directory / "data").mkdir(parents=True, exist_ok=True)
        config = directory / "tiled.yml"
        listener = _listen(port)
        with listener, (directory / "tiled.log").open("ab") as log:
            _claim(directory, log.fileno())
            _write_config(config, directory, readable)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __spec__.name, str(config), str(listener.fileno())],
                stdin=subprocess.PIPE,  # its end tells the server that this process has ended
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # a terminal's Ctrl-C is for this process only
                env={**os.environ, KEY_VARIABLE: api_key},
            )
            return cls(directory, process, listener.getsockname()[1], api_key)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server answers.

        Raises
        ------
        TiledServerError
            If it ends instead, or does not answer in time. The server is stopped then.
        """
        address = urlsplit(self.uri)
        connection = http.client.HTTPConnection(HOST, address.port or 0, timeout=timeout_s)
        try:  # the port listens already; the answer comes when the server takes it over
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
        except TimeoutError:
            raise self._failure(f"gave no answer within {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException):
            raise self._failure("ended while it started") from None
        finally:
            connection.close()
        if status != http.client.OK:
            raise self._failure(f"answered with status {status} when asked for its health")

    def client(self, timeout_s: float = 5.0) -> Container:
        """A client of the root; see `ptychrome.callbacks.tiled_client.connect`."""
        return connect(self.uri, self.api_key, timeout_s=timeout_s)

    def web_address(self, *keys: str) -> str:
        """For a person's browser, with the key: the page of the root, or of what lies under the keys."""
        return f"{self._pages}{'/'.join(keys)}?api_key={self.api_key}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def wait(self) -> None:
        """Until the server ends, by itself or by `stop` in another thread."""
        self._process.wait()

    def stop(self) -> None:
        """End the server in an orderly way; safe to call twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(2 * STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> TiledServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _failure(self, what: str) -> TiledServerError:
        self.stop()
        log = self.directory / "tiled.log"
        lines = log.read_text(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was logged")
        error = TiledServerError(f"the Tiled server {what}: {last} (see {log})")
        error.add_note("\n".join(lines[-20:]))
        return error


def raw_container(client: Container) -> Container:
    """The container of raw runs, which databroker reads too; made when it is not there."""
    if RAW_ROOT not in client:
        from tiled.structures.core import Spec

        # databroker's Broker accepts this version only
        client.create_container(RAW_ROOT, specs=[Spec("CatalogOfBlueskyRuns", version="3.0")])
    return client[RAW_ROOT]


def results_container(client: Container) -> Container:
    """The container of results; made when it is not there."""
    if RESULT_ROOT not in client:
        client.create_container(RESULT_ROOT)
    return client[RESULT_ROOT]


def table_rows(mimetype: str, table: pandas.DataFrame, metadata: Any) -> Iterator[bytes]:
    """A table as newline-delimited JSON, as Tiled's web page reads it (Tiled itself writes RFC 7464)."""
    if len(table):
        yield table.to_json(orient="records", lines=True).encode()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise TiledServerError(
            f"the Tiled server cannot use port {port} of {HOST}: {reason}; choose another one (0: any)"
        ) from None
    return listener


def _claim(directory: Path, log: int) -> None:
    """Lock the log, which the server holds open as long as it lives."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TiledServerError(
            f"{directory} is being served by another Tiled server; stop that one or choose another directory"
        ) from None


def _write_config(path: Path, directory: Path, readable: Sequence[Path | str]) -> None:
    import yaml

    config = {
        "catalog": {
            "uri": f"sqlite:///{directory / CATALOG}",
            "writable_storage": [str(directory / "data"), f"duckdb:///{directory / 'tables.duckdb'}"],
            "readable_storage": [str(Path(folder).resolve()) for folder in readable],
        },
        "streaming_cache": {"uri": "memory", "data_ttl": STREAM_CACHE_S},
        "media_types": {
            "BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"},
            "table": {"application/json-seq": f"{__spec__.name}:{table_rows.__name__}"},
        },
        "uvicorn": {
            "access_log": False,
            # longer than clients keep idle connections, so that no request meets a closing one
            "timeout_keep_alive": 60,
            "timeout_graceful_shutdown": int(STOP_S),
        },
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def _serve(config_path: Path, listener: socket.socket) -> None:
    """Main function of the server's process."""
    import uvicorn
    from tiled.commandline._catalog import init
    from tiled.config import parse_configs
    from tiled.server.app import build_app_from_config
    from tiled.server.logging_config import LOGGING_CONFIG

    # what init_if_not_exists would do, but that starts another interpreter for it (3 s)
    init(f"sqlite:///{config_path.parent / CATALOG}", if_not_exists=True)
    config = parse_configs(config_path)
    app = build_app_from_config(config)
    server = uvicorn.Server(uvicorn.Config(app, log_config=LOGGING_CONFIG, **config.uvicorn))

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    try:
        _serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
    except Exception as failure:
        traceback.print_exc()
        # the last line of the log, which the other process shows
        sys.exit(f"{type(failure).__name__}: {' '.join(str(failure).split()):.300}")
