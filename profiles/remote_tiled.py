"""A Tiled server that others run: what a session needs of it, as `ptychrome.profiles.tiled_server` has it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from ptychrome.callbacks.tiled_client import connect
from ptychrome.profiles.tiled_server import TiledServerError

if TYPE_CHECKING:
    from tiled.client.container import Container

KEY_VARIABLE = "TILED_API_KEY"


class RemoteTiled:
    """A facility's Tiled server.

    Parameters
    ----------
    uri : str
        Such as ``https://tiled.facility.org/api/v1``. It must be able to read the detector's folder.

    Attributes
    ----------
    uri : str
    api_key : str or None
        From the variable TILED_API_KEY.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.api_key = os.environ.get(KEY_VARIABLE)
        self._stopped = threading.Event()

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """See whether it answers.

        Raises
        ------
        TiledServerError
            If it does not, or does not accept the key.
        """
        try:
            self.client(timeout_s)
        except Exception as error:  # of httpx, of Tiled, of the system
            raise TiledServerError(
                f"no answer from the Tiled server {self.uri}: {error}; check tiled_uri and {KEY_VARIABLE}"
            ) from error

    def client(self, timeout_s: float = 5.0) -> Container:
        """A client of the root; see `ptychrome.callbacks.tiled_client.connect`."""
        return connect(self.uri, self.api_key, timeout_s=timeout_s)

    def web_address(self, *keys: str) -> str:
        """For a person's browser: the page of the root, or of what lies under the keys."""
        address = urlsplit(self.uri)
        path = address.path.removesuffix("/").removesuffix("/api/v1")
        return urlunsplit((address.scheme, address.netloc, f"{path}/ui/browse/{'/'.join(keys)}", "", ""))

    def wait(self) -> None:
        """Until `stop` is called in another thread."""
        self._stopped.wait()

    def stop(self) -> None:
        """Nothing to end: it is not ours."""
        self._stopped.set()
