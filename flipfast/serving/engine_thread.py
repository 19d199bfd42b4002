"""The thread that steps an engine on behalf of callers on other threads' event loops."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flipfast.errors import FlipfastError, QueueFullError, UnavailableError
from flipfast.scoring.streaming import RewardLoop, Ticket
from flipfast.serving.fair_queue import FairQueue

_log = logging.getLogger(__name__)

Begin = Callable[[Callable[[Any], None]], Ticket]


@dataclass(eq=False)
class _Job:
    """Work for the engine, and the future that waits for its result."""

    begin: Begin
    caller: str
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    ticket: Ticket | None = None


@dataclass(frozen=True)
class _Task:
    """A call to make while the engine is idle; if `last`, only once the queue is empty too."""

    call: Callable[[], object]
    last: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class EngineThread:
    """Takes jobs from any event loop and delivers each result to the loop it came from.

    A job waits in a fair queue until the engine has room, and joins the engine at the next step.

    Attributes:
        closed_for: why no jobs are accepted, or None; set it under `lock`.
        failed: whether the engine raised an unexpected error and can no longer be used.
        lock: held while the thread looks for work.

    Args:
        loop: used only on the thread.
        max_queue: maximum number of waiting jobs.
        max_open: maximum number of jobs in the engine.
    """

    def __init__(self, loop: RewardLoop, *, max_queue: int, max_open: int) -> None:
        self.closed_for: str | None = None
        self.failed = False
        self.lock = threading.Condition()
        self._loop = loop
        self._max_queue = max_queue
        self._max_open = max_open
        self._queue: FairQueue[_Job] = FairQueue()
        self._running: set[_Job] = set()
        self._dropped: deque[_Job] = deque()
        self._tasks: deque[_Task] = deque()
        self._answers: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        self._ends: deque[float] = deque(maxlen=64)  # when the last jobs ended
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="flipfast-engine", daemon=True)
        self._thread.start()

    @property
    def n_queued(self) -> int:
        """Number of waiting jobs."""
        return len(self._queue)

    @property
    def n_running(self) -> int:
        """Number of jobs in the engine."""
        return len(self._running)

    async def do(self, begin: Begin, caller: str) -> Any:
        """Run a job and return its result.

        Args:
            begin: called on the thread with a callback for the result; returns the job's ticket.
            caller: whom the job is for; callers take turns.

        Raises:
            QueueFullError: too many jobs are waiting.
            UnavailableError: no jobs are accepted, or the engine stopped meanwhile.
            FlipfastError: whatever `begin` raises.
        """
        loop = asyncio.get_running_loop()
        job = _Job(begin, caller, loop, loop.create_future())
        with self.lock:
            self.require_open()
            if len(self._queue) >= self._max_queue:
                raise QueueFullError(
                    f"{len(self._queue)} rows are waiting, and no more may: try again later",
                    self._seconds_to_go(),
                )
            self._queue.push(caller, job)
            self.lock.notify()
        try:
            return await job.future
        except asyncio.CancelledError:
            self._drop(job)
            raise

    async def when_idle(self, call: Callable[[], object], *, last: bool = False) -> Any:
        """Make a call on the thread while no job is in the engine; waiting jobs keep waiting.

        Args:
            call: its exceptions are raised here.
            last: run all waiting jobs first.
        """
        loop = asyncio.get_running_loop()
        task = _Task(call, last, loop, loop.create_future())
        with self.lock:
            if self._stopping:
                self.require_open()
            self._tasks.append(task)
            self.lock.notify()
        return await task.future

    def require_open(self) -> None:
        """Raise UnavailableError if no jobs are accepted."""
        if self.closed_for is not None:
            raise UnavailableError(self.closed_for)

    def stop(self) -> None:
        """End the thread; unfinished jobs raise UnavailableError."""
        with self.lock:
            self._stopping = True
            self.closed_for = "the engine is closed"
            self.lock.notify()
        self._thread.join()

    def _drop(self, job: _Job) -> None:
        with self.lock:
            if not self._queue.remove(job.caller, job):
                self._dropped.append(job)
                self.lock.notify()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as error:
            _log.exception("the engine has failed")
            self.failed = True
            self.closed_for = f"the engine has failed: {type(error).__name__}: {error}"
        with self.lock:
            self._stopping = True
            jobs = [*self._running, *(self._queue.pop() for _ in range(len(self._queue)))]
            for job in jobs:
                if job.ticket is not None:
                    self._loop.cancel(job.ticket)
            left: list[_Job | _Task] = [*jobs, *self._tasks]
            for one in left:
                self._answer(one, UnavailableError(self.closed_for or ""))
        self._hand_out()

    def _turn(self) -> bool:
        """Admit new jobs, run a step, deliver results; returns False when stopping."""
        with self.lock:
            while not (self._stopping or self._dropped or self._tasks or self._busy()):
                self.lock.wait()
            if self._stopping:
                return False
            dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
            begun = self._next_jobs()
            task = self._next_task()
        for job in dropped:
            self._running.discard(job)
            if job.ticket is not None:
                self._loop.cancel(job.ticket)
        for job in begun:
            self._begin(job)
        if task is not None:
            self._make(task)
        if self._loop.n_open:
            self._loop.step()
        self._hand_out()
        return True

    def _busy(self) -> bool:
        return bool(len(self._queue) or self._running)

    def _next_jobs(self) -> list[_Job]:
        """Take the jobs that may enter the engine now; none while a task waits for it to empty."""
        if self._tasks and not self._tasks[0].last:
            return []
        room = min(self._max_open - len(self._running), len(self._queue))
        jobs = [self._queue.pop() for _ in range(room)]
        self._running.update(jobs)
        return jobs

    def _next_task(self) -> _Task | None:
        return self._tasks.popleft() if self._tasks and not self._running else None

    def _begin(self, job: _Job) -> None:
        def end(result: Any) -> None:
            self._running.discard(job)
            self._ends.append(time.monotonic())
            self._answer(job, result)

        try:
            job.ticket = job.begin(end)
        except FlipfastError as error:
            end(error)

    def _make(self, task: _Task) -> None:
        try:
            self._answer(task, task.call())
        except Exception as error:  # for the caller to handle
            self._answer(task, error)

    def _answer(self, one: _Job | _Task, result: Any) -> None:
        self._answers.setdefault(one.loop, []).append(partial(_settle, one.future, result))

    def _hand_out(self) -> None:
        """Deliver results, waking each event loop once."""
        for loop, answers in self._answers.items():
            try:
                loop.call_soon_threadsafe(_call_all, answers)
            except RuntimeError:  # the event loop is closed: nobody is waiting
                _log.debug("%d results have come too late", len(answers))
        self._answers = {}

    def _seconds_to_go(self) -> float:
        """Estimate when the waiting jobs will be done, from the rate of the last ones."""
        if len(self._ends) < 2 or self._ends[-1] == self._ends[0]:
            return 1.0
        rate = (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])
        return min(max(len(self._queue) / rate, 0.1), 60.0)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # cancelled
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()
