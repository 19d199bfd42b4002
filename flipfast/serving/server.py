"""Runs the application until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from types import FrameType

import uvicorn

from flipfast.errors import ConfigError
from flipfast.serving.app import create_app
from flipfast.serving.limits import Traffic
from flipfast.serving.options import ServerOptions
from flipfast.serving.scorer import ServedScorer

_log = logging.getLogger(__name__)
_BACKLOG = 2048


class DrainingServer(uvicorn.Server):
    """A server that drains on the first signal and stops immediately on the second.

    While draining it finishes the requests in flight and still listens: new work gets a 503, and
    `/ready` says "draining".

    Args:
        config: uvicorn's.
        traffic: the application's.
    """

    def __init__(self, config: uvicorn.Config, traffic: Traffic) -> None:
        super().__init__(config)
        self._traffic = traffic

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._traffic.draining:
            self.should_exit = self.force_exit = True
        self._traffic.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop now; uvicorn calls this ten times a second."""
        if self._traffic.draining and not self._traffic.in_flight:
            self.should_exit = True
        return await super().on_tick(counter)


async def serve(
    scorer: ServedScorer,
    options: ServerOptions,
    *,
    host: str,
    port: int,
    start: Awaitable[None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then close the scorer.

    Args:
        scorer: scores the rows.
        options: limits and switches.
        host: the address to listen on.
        port: the port; 0 picks a free one, which is logged.
        start: makes the scorer ready; the server already answers meanwhile.

    Raises:
        ConfigError: the address cannot be used.
        FlipfastError: raised by `start`.
    """
    starting = asyncio.ensure_future(_nothing() if start is None else start)
    try:
        with _listen(host, port) as listener:
            await _run(scorer, options, listener, starting)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await scorer.close()


async def _run(
    scorer: ServedScorer,
    options: ServerOptions,
    listener: socket.socket,
    starting: asyncio.Future[None],
) -> None:
    app = create_app(scorer, options)
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = DrainingServer(config, app.state.traffic)
    serving = asyncio.ensure_future(server.serve([listener]))
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    _log.info("listening", extra={"fields": {"url": url}})
    await asyncio.wait((starting, serving), return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and starting.exception() is None:
        _log.info("ready", extra={"fields": {"model": scorer.status().model}})
    elif starting.done():
        server.should_exit = True
    await serving
    if starting.done():
        starting.result()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}") from error


async def _nothing() -> None:
    pass
