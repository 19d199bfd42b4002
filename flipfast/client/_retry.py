"""When to send a failed request again."""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from flipfast.errors import QueueFullError, UnavailableError

_FIRST, _LONGEST = 0.25, 10.0  # seconds


class Patience(NamedTuple):
    """How long to keep trying a server that cannot answer now.

    Attributes:
        max_retries: attempts after the first while it is unavailable.
        wait_when_full: whether to retry until the deadline while its queue is full.
    """

    max_retries: int
    wait_when_full: bool


class Retry:
    """The attempts of one request: exponential back-off with full jitter, under a deadline.

    Args:
        end: the deadline, in time.monotonic() seconds.
        patience: how long to keep trying.
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

        The wait is what the server asked for plus a random share of the back-off, so that callers
        that failed together do not all retry at once.

        Raises:
            QueueFullError, UnavailableError: the given error, if there is no next attempt.
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
