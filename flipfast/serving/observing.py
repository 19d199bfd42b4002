"""Middleware that counts and logs every request, and replies when the application fails."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flipfast.serving.logs import log_failure
from flipfast.serving.metrics import Metrics
from flipfast.serving.options import ServerOptions
from flipfast.serving.replies import Reply, error_reply

_log = logging.getLogger("flipfast.serving.requests")
_CLIENT_GONE = 499  # appears only in logs and metrics
_LONGEST_CALLER = 200
_RECORD = "flipfast.record"


@dataclass
class RequestRecord:
    """What is counted and logged of a request.

    Attributes:
        caller: the header X-Flipfast-Caller, else the peer's address.
        route: its path if it is a known route, else "other".
        code: HTTP status of the reply.
        rows: how many it had.
        texts: their contents, if they may be logged.
    """

    caller: str
    route: str
    code: int = _CLIENT_GONE
    rows: int = 0
    texts: Any = None

    @classmethod
    def of(cls, scope: Scope) -> RequestRecord:
        """Return the record of a request in progress."""
        record: RequestRecord = scope[_RECORD]
        return record


class Observe:
    """Counts and logs requests.

    Args:
        app: the wrapped application.
        metrics: where they are counted.
        options: says whether texts may be logged.
        routes: the known paths; all others are counted together.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, options: ServerOptions, routes: frozenset[str]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._options = options
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        route = scope["path"] if scope["path"] in self._routes else "other"
        record = scope[_RECORD] = RequestRecord(_caller(scope), route)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # the server stops immediately
            await _answer(record, error_reply(503, "the server has stopped", retry_after=5), noting)
        except Exception as error:
            log_failure(_log, "a request failed", error, with_message=self._options.log_texts)
            await _answer(record, error_reply(500, "the server failed on this request"), noting)
        finally:
            self._note(record, scope["method"], time.perf_counter() - started)

    def _note(self, record: RequestRecord, method: str, seconds: float) -> None:
        self._metrics.count_request(record.route, record.code, seconds)
        fields: dict[str, Any] = {
            "route": record.route,
            "code": record.code,
            "rows": record.rows,
            "seconds": round(seconds, 6),
            "caller": record.caller,
        }
        if record.texts is not None:
            fields["texts"] = record.texts
        level = logging.INFO if method == "POST" else logging.DEBUG
        _log.log(level, "request", extra={"fields": fields})


async def _answer(record: RequestRecord, reply: Reply, send: Send) -> None:
    """Send a reply, unless another one has started: that one is cut off."""
    if record.code != _CLIENT_GONE:
        return
    await send(
        {"type": "http.response.start", "status": reply.status_code, "headers": reply.raw_headers}
    )
    await send({"type": "http.response.body", "body": reply.body})


def _caller(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-flipfast-caller":
            return str(value[:_LONGEST_CALLER], "latin-1")
    client = scope.get("client")
    return str(client[0]) if client else ""
