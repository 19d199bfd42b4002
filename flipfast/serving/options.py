"""Limits and switches of a server."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flipfast.errors import ConfigError


@dataclass(frozen=True)
class ServerOptions:
    """Limits and switches of the HTTP server.

    Attributes:
        max_queue: maximum number of rows waiting for the engine, over all callers; also the
            maximum number of rows in one request.
        max_requests: maximum number of requests in flight.
        max_body: maximum size of one request's body, in bytes. All bodies in flight together may
            have 16 times that.
        timeout: maximum time for rows, in seconds; a request may ask for less.
        api_key: the bearer token that callers must send; None requires none.
        admin: whether there are routes for sleep, wake and new weights.
        on_failure: FlipConfig's, for rows that never reached the engine or were not done in time.
            A trainer's route, which must return a number, uses 0.0 if it is None.
        log_texts: whether prompts and responses may be logged.

    Raises:
        ConfigError: a value is out of range.
    """

    max_queue: int = 4096
    max_requests: int = 4096
    max_body: int = 16 * 2**20
    timeout: float = 600.0
    api_key: str | None = field(default=None, repr=False)
    admin: bool = False
    on_failure: float | None = None
    log_texts: bool = False

    def __post_init__(self) -> None:
        for name in ("max_queue", "max_requests", "max_body"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"timeout must be a number of seconds above 0, not {self.timeout}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise ConfigError("the API key must be ASCII, and not empty")
