"""Tiled clients that fail within seconds, as whatever accompanies a running scan must.

Tiled's own clients repeat a failed request for 26-45 s, which is right for people and wrong here. And once
databroker's Broker has been used in a process, frames cannot be read by any of them; of these, they can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx
    from tiled.client.container import Container


class TiledUnavailable(ConnectionError):
    """The Tiled server does not answer, or answers that it failed."""


class _OneAttempt:
    """An httpx transport that turns what Tiled's client would repeat into an exception it does not know."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        import httpx

        server = f"{request.url.host}:{request.url.port or request.url.scheme}"
        try:
            response = self._transport.handle_request(request)
        except httpx.TransportError as error:
            raise TiledUnavailable(f"no answer from Tiled at {server} ({type(error).__name__})") from error
        if response.is_server_error:
            response.read()
            raise TiledUnavailable(
                f"Tiled at {server} failed with status {response.status_code} in {request.method} "
                f"{request.url.path}: {response.text:.200}"
            )
        return response

    def close(self) -> None:
        self._transport.close()


def connect(uri: str, api_key: str | None = None, *, timeout_s: float = 5.0) -> Container:
    """A client whose every request is answered or fails within the time.

    Parameters
    ----------
    uri : str
        Address of the server's API, ``http://host:port/api/v1/``.
    api_key : str, optional
    timeout_s : float
        How long the server may stay silent.

    Raises
    ------
    TiledUnavailable
        If the server does not answer. So does every later use of the client.
    """
    import httpx
    from tiled.client import from_context
    from tiled.client.context import Context

    proxies = httpx.URL(uri).host not in ("127.0.0.1", "localhost", "::1")
    try:  # Context repeats its first request before it can be told not to
        httpx.get(uri, timeout=timeout_s, trust_env=proxies)
    except httpx.TransportError as error:
        raise TiledUnavailable(f"no answer from Tiled at {uri} ({type(error).__name__})") from error
    context = Context(uri, api_key=api_key, timeout=httpx.Timeout(timeout_s), trust_env=proxies)
    transport = context.http_client._transport
    transport.transport = _OneAttempt(transport.transport)
    return from_context(context, structure_clients=_own_classes())


def _own_classes() -> Any:
    """The classes of client nodes by spec, which ``.v2`` of a catalog (hence Broker) changes in its copy.

    That copy shares its content with Tiled's global one; of this it does not.
    """
    from bluesky_tiled_plugins import BlueskyRun
    from tiled.client.container import DEFAULT_STRUCTURE_CLIENT_DISPATCH, Container
    from tiled.utils import OneShotCachedMap

    class Classes(OneShotCachedMap):
        def __getstate__(self) -> dict[str, Any]:
            return dict(super().__getstate__())

    Container.discover_clients_from_entrypoints()
    classes = Classes()
    classes.__setstate__(dict(DEFAULT_STRUCTURE_CLIENT_DISPATCH["numpy"].__getstate__()))
    classes.set("BlueskyRun", lambda: BlueskyRun)  # Tiled's may have been changed already
    return classes
