"""The HTTP application: routes in front of one scorer, with limits, metrics and logs."""

from __future__ import annotations

from fastapi import FastAPI

from flipfast.serving.limits import Limits, Traffic
from flipfast.serving.metrics import Metrics
from flipfast.serving.observing import Observe
from flipfast.serving.options import ServerOptions
from flipfast.serving.replies import add_error_handlers
from flipfast.serving.routes.admin import ADMIN_PATHS, admin_router
from flipfast.serving.routes.openai import openai_router
from flipfast.serving.routes.rewards import rewards_router
from flipfast.serving.routes.state import state_router
from flipfast.serving.routes.trainers import trainers_router
from flipfast.serving.rows import RowScorer
from flipfast.serving.scorer import ServedScorer

PATHS = ADMIN_PATHS | {
    "/v1/rewards",
    "/v1/chat/completions",
    "/v1/models",
    "/get_reward",
    "/remote_rm",
    "/health",
    "/ready",
    "/metrics",
}


def create_app(scorer: ServedScorer, options: ServerOptions | None = None) -> FastAPI:
    """Make the application.

    Args:
        scorer: scores the rows. It stays the caller's, who closes it.
        options: limits and switches; None takes the usual ones.

    Returns:
        The application. Its `state.traffic` says what is in flight, and refuses new work where
        `draining` is set.
    """
    options = options or ServerOptions()
    traffic = Traffic()
    metrics = Metrics(scorer, traffic)
    rows = RowScorer(scorer, options, metrics)
    app = FastAPI(title="flipfast", summary="The FLIP reward.", redoc_url=None)
    app.state.traffic = traffic
    app.include_router(rewards_router(scorer, rows))
    app.include_router(trainers_router(rows, options))
    app.include_router(openai_router(scorer, options))
    app.include_router(state_router(scorer, traffic, metrics))
    if options.admin:
        app.include_router(admin_router(scorer))
    add_error_handlers(app)
    app.add_middleware(
        Limits, scorer=scorer, options=options, traffic=traffic, unhurried=ADMIN_PATHS
    )
    app.add_middleware(Observe, metrics=metrics, options=options, routes=frozenset(PATHS))
    return app
