"""The HTTP application in Ray Serve: one engine per replica behind Serve's proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import serve

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, UnavailableError
from flipfast.serving.ray.actor import ActorShare, Build
from flipfast.serving.ray.pool import build_engine

if TYPE_CHECKING:
    from fastapi import FastAPI

    from flipfast.serving.options import ServerOptions


class _Replica:
    app: FastAPI  # set by Ray Serve

    def check_health(self) -> None:
        """Raise if the engine has failed; Ray Serve then replaces the replica."""
        if self.app.state.scorer.status().state == "failed":
            raise UnavailableError("the engine has failed")


def deployment(
    config: FlipConfig | None = None,
    options: ServerOptions | None = None,
    *,
    num_replicas: int | None = None,
    share: ActorShare | None = None,
    build: Build = build_engine,
    **serve_options: Any,
) -> serve.Application:
    """Return the application of `flipfast serve`, for `ray.serve.run` and `serve deploy`.

    Args:
        config: of the engines.
        options: limits and switches of each replica; None uses the defaults.
        num_replicas: number of replicas; None takes as many as the cluster has room for.
        share: each replica's share of the cluster.
        build: creates the engine, in the replica.
        serve_options: Ray Serve's other options for a deployment.

    Raises:
        ConfigError: `options.admin` is set: its routes would reach only one replica, and rewards
            would depend on which replica scores.
    """
    from flipfast.serving.app import create_app
    from flipfast.serving.options import ServerOptions

    limits, share = options or ServerOptions(), share or ActorShare()
    config = config or FlipConfig()
    if limits.admin:
        raise ConfigError("admin=True works on one replica alone: deploy again with other weights")

    def build_app() -> FastAPI:
        share.set_threads()
        scorer = build(config)
        app = create_app(scorer, limits)
        app.state.scorer = scorer
        return app

    replica: Any = serve.deployment(
        serve.ingress(build_app)(_Replica),
        name="flipfast",
        num_replicas=share.n_actors(num_replicas),
        ray_actor_options=share.options(),
        # The engine batches, and the application refuses what is too much.
        max_ongoing_requests=limits.max_requests,
        **serve_options,
    )
    application: serve.Application = replica.bind()
    return application
