"""HTTP client of an OpenAI-compatible server: its list of models and its completions."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx

from flipfast.errors import ConfigError, FlipfastError, UnavailableError

_TIMEOUT = httpx.Timeout(600.0, connect=10.0, pool=None)
_WAITS_S = (0.5, 1.0, 2.0, 4.0)  # between attempts, unless the server says how long
_LONGEST_WAIT_S = 30.0
_LONGEST_REASON = 300  # characters of a server's message


class CompletionsServer:
    """Sends requests to one server, from any thread, over persistent connections.

    Retries connection errors and status 503, nothing else.

    Args:
        address: "http://host:8000", with or without a trailing "/v1".
        api_key: sent as a bearer key; None for none.
        n_connections: maximum number of concurrent requests.

    Raises:
        ConfigError: the address is not a valid URL.
    """

    def __init__(self, address: str, api_key: str | None, n_connections: int) -> None:
        self.address = address.rstrip("/").removesuffix("/v1")
        limits = httpx.Limits(
            max_connections=n_connections, max_keepalive_connections=n_connections
        )
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        try:
            self._client = httpx.Client(
                base_url=self.address, headers=headers, timeout=_TIMEOUT, limits=limits
            )
        except httpx.InvalidURL as error:
            raise ConfigError(f"{address!r} is no address of a server: {error}") from error

    def models(self) -> list[dict[str, Any]]:
        """The cards of the served models; `id` is the name of each.

        Raises:
            FlipfastError: no answer, or one that is not a list of models.
        """
        return _entries(self._answer("GET", "/v1/models", None), "data")

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The first choice of POST /v1/completions, with the answer's `usage`, {} if it has none.

        Raises:
            UnavailableError: no connection, or status 503, at every attempt.
            FlipfastError: the server refuses the request, or answers with something else.
        """
        answer = self._answer("POST", "/v1/completions", body)
        return {**_entries(answer, "choices")[0], "usage": answer.get("usage") or {}}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        for wait in (*_WAITS_S, None):
            try:
                response = self._client.request(method, path, json=body)
            except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout) as error:
                reason = f"no connection to {self.address}: {type(error).__name__}: {error}"
            except httpx.HTTPError as error:
                raise FlipfastError(
                    f"the request to {self.address} failed: {type(error).__name__}: {error}"
                ) from error
            else:
                if response.status_code != 503:
                    return self._content(response)
                reason = _refusal(self.address, response)
                wait = wait and _asked_wait(response, wait)
            if wait is not None:
                time.sleep(wait)
        raise UnavailableError(f"{reason} (tried {len(_WAITS_S) + 1} times)")

    def _content(self, response: httpx.Response) -> Any:
        if not response.is_success:
            raise FlipfastError(_refusal(self.address, response))
        try:
            return response.json()
        except ValueError:
            raise _not_openai(response.text) from None


class Call:
    """The requests of one call, which fail at once when the server is known to be unreachable."""

    def __init__(self, server: CompletionsServer) -> None:
        self._server = server
        self._gone = threading.Event()
        self._error = UnavailableError("")

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """See CompletionsServer.complete; fails at once if another request found no server."""
        if self._gone.is_set():
            raise self._error
        try:
            return self._server.complete(body)
        except UnavailableError as error:
            self._error = error
            self._gone.set()
            raise


def _entries(answer: Any, name: str) -> list[dict[str, Any]]:
    entries = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(entries, list) or not (entries and isinstance(entries[0], dict)):
        raise _not_openai(answer)
    return entries


def _not_openai(answer: Any) -> FlipfastError:
    return FlipfastError(f"not the answer of an OpenAI-compatible server: {answer!r:.200}")


def _asked_wait(response: httpx.Response, usual: float) -> float:
    """Seconds that a Retry-After header asks for, up to a limit; `usual` if it holds no number."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT_S) if asked.isdecimal() else usual


def _refusal(address: str, response: httpx.Response) -> str:
    """The server's own message, from `error.message`, `message` or the whole body."""
    try:
        content = response.json()
        error = content.get("error", content)
        said = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        said = response.text
    return f"{address} answered {response.status_code}: {str(said)[:_LONGEST_REASON]}"
