"""The HTTP application in Ray Serve: its proxy in front, an engine a replica."""

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
        """Called by Ray Serve, which replaces a replica where this raises."""
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
    """What `flipfast serve` serves, for `ray.serve.run` and `serve deploy`.

    Args:
        config: of the engines.
        options: limits and switches of each replica; None takes the usual ones.
        num_replicas: how many; None takes as many as the cluster has room for.
        share: what each takes of the cluster.
        build: makes the engine, in the replica.
        serve_options: others of Ray Serve's options for a deployment.

    Raises:
        ConfigError: `options.admin`; its routes would reach one replica alone, and rewards would
            depend on which.
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
        # The engine batches, and the application says when it is too much.
        max_ongoing_requests=limits.max_requests,
        **serve_options,
    )
    application: serve.Application = replica.bind()
    return application
