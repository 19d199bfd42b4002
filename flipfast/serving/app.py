"""The HTTP application: routes in front of one scorer, with limits, metrics and logs."""

from __future__ import annotations

from fastapi import FastAPI

from flipfast.serving.bodies import BodyRoute
from flipfast.serving.limits import Limits, Traffic
from flipfast.serving.metrics import Metrics
from flipfast.serving.observing import Observe
from flipfast.serving.options import ServerOptions
from flipfast.serving.replies import add_error_handlers
from flipfast.serving.routes.admin import ADMIN_PATHS, add_admin_routes
from flipfast.serving.routes.openai import add_openai_routes
from flipfast.serving.routes.rewards import add_rewards_route
from flipfast.serving.routes.state import add_state_routes
from flipfast.serving.routes.trainers import add_trainer_routes
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
    """Create the application.

    Args:
        scorer: scores the rows. The caller owns and closes it.
        options: limits and switches; None uses the defaults.

    Returns:
        The application. Its `state.traffic` says what is in flight; set its `draining` to refuse
        new work.
    """
    options = options or ServerOptions()
    traffic = Traffic()
    metrics = Metrics(scorer, traffic)
    rows = RowScorer(scorer, options, metrics)
    app = FastAPI(title="flipfast", summary="The FLIP reward.", redoc_url=None)
    app.state.traffic = traffic
    app.router.route_class = BodyRoute
    add_rewards_route(app, scorer, rows)
    add_trainer_routes(app, rows, options)
    add_openai_routes(app, scorer, options)
    add_state_routes(app, scorer, traffic, metrics)
    if options.admin:
        add_admin_routes(app, scorer)
    add_error_handlers(app)
    app.add_middleware(
        Limits, scorer=scorer, options=options, traffic=traffic, unhurried=ADMIN_PATHS
    )
    app.add_middleware(Observe, metrics=metrics, options=options, routes=frozenset(PATHS))
    return app
