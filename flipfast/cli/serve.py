"""`flipfast serve`: the HTTP server in front of engine processes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from flipfast import env
from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, MissingDependencyError
from flipfast.serving.pool import EnginePool

try:
    from flipfast.serving.logs import configure_logging
    from flipfast.serving.options import ServerOptions
    from flipfast.serving.server import serve
except ImportError as error:
    raise MissingDependencyError(
        f"flipfast serve needs {error.name}: pip install 'flipfast[serve]'"
    ) from error

_log = logging.getLogger(__name__)
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def run_server(
    *, host: str, port: int, workers: int, limits: dict[str, Any], options: dict[str, Any]
) -> None:
    """Serve until a signal arrives.

    Args:
        host, port: where to listen.
        workers: number of engine processes.
        limits: of ServerOptions; a missing API key is taken from the environment.
        options: of FlipConfig.

    Raises:
        ConfigError: an option is invalid, or anybody could call the admin routes.
        ModelLoadError: the model cannot be loaded.
        MissingDependencyError: the server's packages are not installed.
    """
    config = FlipConfig().with_options(options)
    limits["api_key"] = limits.get("api_key") or env.api_key()
    allowed = ServerOptions(on_failure=config.on_failure, **limits)
    if allowed.api_key is None and host not in _LOOPBACK:
        if allowed.admin:
            raise ConfigError(f"--admin on {host} lets anybody in: give --api-key, too")
        _log.warning("whoever reaches %s can use the server: it has no --api-key", host)
    configure_logging()
    _allow_many_connections()
    _run(_serve(config, allowed, host, port, workers))


async def _serve(
    config: FlipConfig, options: ServerOptions, host: str, port: int, workers: int
) -> None:
    pool = EnginePool(config, n_workers=workers, max_queue=options.max_queue)
    await serve(pool, options, host=host, port=port, start=pool.start())


def _run(main: Any) -> None:
    """Run on uvloop if it is installed, which halves the time per request."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _allow_many_connections() -> None:
    """Raise the soft limit on open files to the hard limit; it usually starts lower."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
