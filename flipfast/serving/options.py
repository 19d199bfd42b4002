"""What a server allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flipfast.errors import ConfigError


@dataclass(frozen=True)
class ServerOptions:
    """Limits and switches of the HTTP server.

    Attributes:
        max_queue: rows that may wait for the engine, of all callers together; also the most rows
            of one request.
        max_requests: requests that may be in flight.
        max_body: of one request, in bytes. All bodies in flight together may be 16 times that.
        timeout: the longest that rows may take, in seconds; a request may ask for less.
        api_key: what a caller must bring as bearer token; None asks for nothing.
        admin: whether there are routes for sleep, wake and new weights.
        on_failure: FlipConfig's, for rows that the engine never saw or did not end in time. Where
            a trainer's route must give a number and there is none, it is 0.0.
        log_texts: whether prompts and responses may stand in the log.

    Raises:
        ConfigError: a value outside its range.
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
