"""A lock that threads acquire in the order in which they requested it."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """A reentrant lock that serves threads first come, first served.

    A thread that releases a `threading.RLock` and takes it again at once, as one that runs step
    after step does, can starve all others; here it queues behind them.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._owner: int | None = None
        self._depth = 0
        self._queue: deque[tuple[int, threading.Lock]] = deque()

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._mutex:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._queue.append((me, turn))
        try:
            turn.acquire()  # released by the thread that hands the lock over
        except BaseException:  # an interrupt: do not leave an abandoned place in the queue
            with self._mutex:
                waiting = (me, turn) in self._queue
                if waiting:
                    self._queue.remove((me, turn))
            if not waiting:
                self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._depth -= 1
            if self._depth:
                return
            if self._queue:
                self._owner, turn = self._queue.popleft()
                self._depth = 1
                turn.release()
            else:
                self._owner = None
