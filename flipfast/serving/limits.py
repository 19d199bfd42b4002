"""Checks that a request must pass before it is parsed, and cancellation of abandoned requests."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flipfast.serving.options import ServerOptions
from flipfast.serving.replies import Reply, error_reply
from flipfast.serving.scorer import ServedScorer

_OPEN_PATHS = {"/health", "/ready", "/docs", "/openapi.json"}  # no key needed
_BODY_SECONDS = 60.0  # for a body to arrive, and for the client to receive a reply
_PART = 2**16  # bytes of a reply sent at a time
_BODIES = 16  # bodies of the largest size that may be in memory together


@dataclass
class Traffic:
    """A server's current load.

    Attributes:
        in_flight: number of requests being processed.
        body_bytes: total size of their bodies.
        draining: whether new work is refused because the server is about to stop.
    """

    in_flight: int = 0
    body_bytes: int = 0
    draining: bool = False


class Limits:
    """Middleware that refuses requests early and cheaply, and cancels abandoned work.

    A POST request is refused for a wrong key (401), while the server drains or the engine is not
    ready (503), when the queue is full or too much is in flight (429), and for a body that is too
    large (413) or too slow (408). If the client disconnects, its work is cancelled.

    Args:
        app: the wrapped application.
        scorer: the scorer whose status is checked.
        options: limits.
        traffic: where requests are counted.
        unhurried: paths that are allowed while the engine is not ready and have no deadline.
    """

    def __init__(
        self,
        app: ASGIApp,
        scorer: ServedScorer,
        options: ServerOptions,
        traffic: Traffic,
        unhurried: frozenset[str],
    ) -> None:
        self._app = app
        self._scorer = scorer
        self._options = options
        self._traffic = traffic
        self._unhurried = unhurried
        self._key = None if options.api_key is None else f"Bearer {options.api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, send)
        elif scope["method"] != "POST":
            await self._app(scope, receive, send)
        else:
            self._traffic.in_flight += 1
            try:
                await self._work(scope, receive, send)
            finally:
                self._traffic.in_flight -= 1

    def _refusal(self, scope: Scope) -> Reply | None:
        if not self._authorized(scope):
            return error_reply(401, "bring the server's key: Authorization: Bearer KEY")
        if scope["method"] != "POST":
            return None
        if self._traffic.draining:
            return error_reply(503, "the server is going to stop", retry_after=5)
        if self._traffic.in_flight >= self._options.max_requests:
            return error_reply(429, "too many requests are in flight", retry_after=1)
        if _declared_length(scope) > self._options.max_body:
            return self._too_large()
        if scope["path"] in self._unhurried:
            return None
        status = self._scorer.status()
        if status.state != "ready":
            return error_reply(503, f"the engine is {status.state}", retry_after=1)
        if status.queued >= self._options.max_queue:
            return error_reply(429, f"{status.queued} rows wait already", retry_after=1)
        return None

    def _authorized(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] in _OPEN_PATHS:
            return True
        return hmac.compare_digest(_header(scope, b"authorization"), self._key)

    def _too_large(self) -> Reply:
        most = self._options.max_body
        return error_reply(413, f"a body may have {most} bytes: send fewer rows at a time")

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            refusal = await asyncio.wait_for(self._read(receive, body), _BODY_SECONDS)
            if refusal is None:
                await self._run(scope, bytes(body), receive, send)
            else:
                await refusal(scope, receive, send)
        except asyncio.TimeoutError:
            await error_reply(408, "the body came too slowly")(scope, receive, send)
        except _ClientGone:
            return
        finally:
            self._traffic.body_bytes -= len(body)

    async def _read(self, receive: Receive, body: bytearray) -> Reply | None:
        """Read the body; returns a reply if the request is refused meanwhile."""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _ClientGone
            chunk = message.get("body", b"")
            body += chunk
            self._traffic.body_bytes += len(chunk)
            if len(body) > self._options.max_body:
                return self._too_large()
            if self._traffic.body_bytes > _BODIES * self._options.max_body:
                return error_reply(429, "too many large bodies are in flight", retry_after=1)
            if not message.get("more_body", False):
                return None

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application, and cancel it if the client disconnects or stops receiving."""
        gone = asyncio.ensure_future(receive())  # after the body, only a disconnect can come

        async def reply(message: Message) -> None:
            gone.cancel()  # the work is done: cancelling it saves nothing
            for part in _parts(message):
                await send(part)

        def client_gone(watched: asyncio.Future[Message]) -> None:
            if not watched.cancelled():
                work.cancel()

        work = asyncio.ensure_future(self._app(scope, _replay(body, gone), reply))
        gone.add_done_callback(client_gone)
        hurried = scope["path"] not in self._unhurried
        limit = self._options.timeout + _BODY_SECONDS if hurried else None
        try:
            await asyncio.wait((work,), timeout=limit)
            if work.done() and not work.cancelled():
                work.result()
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)


class _ClientGone(Exception):
    """The client has disconnected."""


def _replay(body: bytes, end: asyncio.Future[Message]) -> Receive:
    """Return a `receive` for a request whose body has already been read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await asyncio.shield(end)

    return receive


def _parts(message: Message) -> Iterator[Message]:
    """Split a reply message into parts: the server sends the next only when one is received."""
    body = message.get("body", b"")
    while len(body) > _PART:
        yield {"type": "http.response.body", "body": body[:_PART], "more_body": True}
        body = body[_PART:]
    yield {**message, "body": body} if body else message


def _declared_length(scope: Scope) -> int:
    declared = _header(scope, b"content-length")
    return int(declared[:18]) if declared.isdigit() else 0


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
