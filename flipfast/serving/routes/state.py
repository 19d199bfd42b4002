"""Routes for the server's state: health, readiness and metrics."""

from __future__ import annotations

from fastapi import FastAPI, Response

from flipfast.serving.limits import Traffic
from flipfast.serving.metrics import CONTENT_TYPE, Metrics
from flipfast.serving.replies import Reply
from flipfast.serving.schema import Done
from flipfast.serving.scorer import ServedScorer


def add_state_routes(
    app: FastAPI, scorer: ServedScorer, traffic: Traffic, metrics: Metrics
) -> None:
    """Add `GET /health`, `/ready` and `/metrics`."""

    @app.get("/health", response_model=Done, tags=["state"])
    async def health() -> Reply:
        """Return 200 as long as the process answers."""
        return Reply({"state": _state()})

    @app.get("/ready", response_model=Done, responses={503: {"model": Done}}, tags=["state"])
    async def ready() -> Reply:
        """Return 200 if rows are accepted, else 503."""
        state = _state()
        return Reply({"state": state}, 200 if state == "ready" else 503)

    @app.get("/metrics", response_class=Response, tags=["state"])
    async def all_metrics() -> Response:
        """Return the metrics for Prometheus."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def _state() -> str:
        return "draining" if traffic.draining else scorer.status().state
