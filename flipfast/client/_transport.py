"""The connections to one server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from flipfast.errors import MissingDependencyError, UnavailableError

if TYPE_CHECKING:  # imported on the first request, so that importing the client stays fast
    import httpx

_CONNECT_SECONDS = 5.0
_MAX_CONNECTIONS = 128
# Less than the 5 seconds after which uvicorn closes a connection, so requests rarely race with it.
_KEEPALIVE_SECONDS = 4.0


class Answer(NamedTuple):
    """A server's HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Posts to one server over reused connections.

    Each process and event loop has its own connections, as sockets and asyncio require. Pickling
    drops them.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = dict(headers)
        self._open: dict[tuple[int, asyncio.AbstractEventLoop], httpx.AsyncClient] = {}

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> Answer:
        """Make one attempt.

        Raises:
            UnavailableError: the connection failed or broke.
            asyncio.TimeoutError: no answer within `seconds`.
        """
        http = self._connections()
        import httpx

        limits = httpx.Timeout(None, connect=min(_CONNECT_SECONDS, 0.9 * seconds))
        request = http.post(self._url + path, content=body, headers=headers, timeout=limits)
        try:
            response = await asyncio.wait_for(request, seconds)
        except (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError) as error:
            why = str(error) or type(error).__name__
            message = f"no answer from the server at {self._url}: {why}"
            raise UnavailableError(message, retry_after=0.0) from None
        return Answer(response.status_code, response.headers, response.content)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        http = self._open.pop(_here(), None)
        if http is not None:
            await http.aclose()

    def _connections(self) -> httpx.AsyncClient:
        here = _here()
        if here not in self._open:
            for key in list(self._open):
                if key[1].is_closed():
                    self._open.pop(key, None)
            self._open[here] = self._connect()
        return self._open[here]

    def _connect(self) -> httpx.AsyncClient:
        try:
            import httpx
        except ImportError:
            raise MissingDependencyError(
                "the client needs httpx: pip install 'flipfast[client]'"
            ) from None
        limits = httpx.Limits(
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE_SECONDS,
        )
        return httpx.AsyncClient(headers=self._headers, limits=limits)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()
