"""When a failed request is sent again."""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from flipfast.errors import QueueFullError, UnavailableError

_FIRST, _LONGEST = 0.25, 10.0  # seconds


class Patience(NamedTuple):
    """How long to go on with a server that cannot answer now.

    Attributes:
        max_retries: attempts after the first where it is unavailable.
        wait_when_full: whether to try again, until the deadline, where its queue is full.
    """

    max_retries: int
    wait_when_full: bool


class Retry:
    """The attempts of one request: exponential back-off with full jitter, under a deadline.

    Args:
        end: the deadline, on time.monotonic()'s clock.
        patience: with the server.
    """

    def __init__(self, end: float, patience: Patience) -> None:
        self._end = end
        self._patience = patience
        self._n_unavailable = 0
        self._backoff = _FIRST

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def delay(self, error: QueueFullError | UnavailableError) -> float:
        """Return the seconds to wait before the next attempt.

        The wait is what the server asked for and a random share of the back-off: callers that
        failed together do not come back together.

        Raises:
            QueueFullError, UnavailableError: the error that was given: there is no next attempt.
        """
        if isinstance(error, UnavailableError):
            self._n_unavailable += 1
            again = self._n_unavailable <= self._patience.max_retries
        else:
            again = self._patience.wait_when_full
        seconds = error.retry_after + random.random() * self._backoff
        self._backoff = min(_LONGEST, 2 * self._backoff)
        if not again or seconds >= self.left:
            raise error
        return seconds
