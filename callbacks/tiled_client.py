"""Tiled clients that fail within seconds, as whatever accompanies a running scan must.

Tiled's own clients repeat a failed request for 26-45 s, which is right for people and wrong here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx
    from tiled.client.container import Container


class TiledUnavailable(ConnectionError):
    """The Tiled server does not answer, or answers that it failed."""


class _OneAttempt:
    """An httpx transport that turns what Tiled's client would repeat (lost connections, timeouts, status 5xx) into one exception."""

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

    try:  # Context repeats its first request before it can be told not to
        httpx.get(uri, timeout=timeout_s, trust_env=False)
    except httpx.TransportError as error:
        raise TiledUnavailable(f"no answer from Tiled at {uri} ({type(error).__name__})") from error
    context = Context(uri, api_key=api_key, timeout=httpx.Timeout(timeout_s))
    transport = context.http_client._transport
    transport.transport = _OneAttempt(transport.transport)
    return from_context(context)
