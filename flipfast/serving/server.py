"""Runs the application until a signal ends it."""

from __future__ import annotations

from types import FrameType

import uvicorn

from flipfast.serving.app import create_app
from flipfast.serving.limits import Traffic
from flipfast.serving.options import ServerOptions
from flipfast.serving.scorer import ServedScorer


class DrainingServer(uvicorn.Server):
    """The first signal lets what is in flight end, the second one stops at once.

    While it drains the server still listens: new work is answered with 503, and `/ready` says so.

    Args:
        config: of uvicorn.
        traffic: of the application.
    """

    def __init__(self, config: uvicorn.Config, traffic: Traffic) -> None:
        super().__init__(config)
        self._traffic = traffic

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self._traffic.draining:
            self.should_exit = self.force_exit = True
        self._traffic.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now; uvicorn asks ten times a second."""
        if self._traffic.draining and not self._traffic.in_flight:
            self.should_exit = True
        return await super().on_tick(counter)


async def serve(scorer: ServedScorer, options: ServerOptions, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then close the scorer.

    Args:
        scorer: scores the rows.
        options: limits and switches.
        host: the address to listen on.
        port: 0 takes a free one; the log says which.
    """
    app = create_app(scorer, options)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    try:
        await DrainingServer(config, app.state.traffic).serve()
    finally:
        await scorer.close()
