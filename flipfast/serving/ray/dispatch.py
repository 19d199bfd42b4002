"""Assigns jobs to the members of a pool, and retries them when a member dies."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flipfast.errors import QueueFullError, UnavailableError
from flipfast.serving.fair_queue import FairQueue

_POLL_S = 0.02
_SUSPECTS = 8  # jobs sent together if a member has died with each of them once


class MemberDied(Exception):
    """A member is gone or no longer usable; its jobs may go to others."""


class JobLost(UnavailableError):
    """Every member that ran a job died with it, the last one while running only this job."""


class Member(ABC):
    """Runs groups of jobs, several groups at a time."""

    @abstractmethod
    async def run(self, jobs: Sequence[tuple[int, bytes]]) -> list[Any]:
        """Run jobs, pairs of an id and pickled content; a result may be an exception to raise.

        Raises:
            MemberDied: none of the results is known.
        """

    @abstractmethod
    def drop(self, job_id: int) -> None:
        """Cancel a job that nobody waits for any more."""


AnyMember = TypeVar("AnyMember", bound=Member)


@dataclass(eq=False)
class _Job:
    id: int
    content: bytes
    caller: str
    result: asyncio.Future[Any]
    member: Member | None = None
    deaths: int = 0


class Dispatcher(Generic[AnyMember]):
    """Distributes jobs among members, each to the least loaded one; for one event loop.

    A dead member is removed. Its jobs are retried on idle members, first in small groups and
    finally one at a time, so that a job that kills its members is identified without taking
    other jobs down with it.

    Args:
        on_death: called once for each member that has died.
        max_queue: maximum number of waiting jobs.
        max_in_flight: maximum number of jobs per member.
        max_group: maximum number of jobs sent together.
        max_deaths: number of members that may die with one job before it is given up.

    Attributes:
        n_resent: number of jobs sent again.
    """

    def __init__(
        self,
        on_death: Callable[[AnyMember], None],
        *,
        max_queue: int,
        max_in_flight: int,
        max_group: int,
        max_deaths: int,
    ) -> None:
        self._on_death = on_death
        self._max_queue = max_queue
        self._max_in_flight = max_in_flight
        self._max_group = max_group
        self._max_deaths = max_deaths
        self._load: dict[AnyMember, int] = {}
        self._set_apart: set[AnyMember] = set()  # run suspects and nothing else
        self._waiting: FairQueue[_Job] = FairQueue()
        self._suspects: dict[int, _Job] = {}
        self._ids = itertools.count()
        self._calls: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._refusal: Exception | None = None
        self._failed = False
        self._paused = False
        self.n_resent = 0

    @property
    def members(self) -> list[AnyMember]:
        """The members that are alive."""
        return list(self._load)

    @property
    def queued(self) -> int:
        """Number of waiting jobs."""
        return len(self._waiting) + len(self._suspects)

    @property
    def running(self) -> int:
        """Number of jobs sent to members."""
        return sum(self._load.values())

    async def run(self, content: bytes, caller: str = "") -> Any:
        """Run one job; cancelling this call drops the job.

        Raises:
            QueueFullError: too many jobs are waiting.
            Exception: the error passed to `refuse` or `fail`.
            JobLost: `max_deaths` members have died with the job.
        """
        if self._refusal is not None:
            raise self._refusal
        if self.queued >= self._max_queue:
            raise QueueFullError(f"{self.queued} rows wait already: try again later")
        result = asyncio.get_running_loop().create_future()
        job = _Job(next(self._ids), content, caller, result)
        self._waiting.push(caller, job)
        self._schedule()
        try:
            return await result
        finally:
            if result.cancelled():
                self._forget(job)

    def add(self, member: AnyMember) -> None:
        """Add a member."""
        self._load[member] = 0
        self._schedule()

    async def pause(self) -> None:
        """Stop sending jobs, and wait until none is running."""
        self._paused = True
        while self._calls:
            await asyncio.wait(set(self._calls))

    def resume(self) -> None:
        """Undo `pause`."""
        self._paused = False
        self._schedule()

    def refuse(self, error: Exception | None) -> None:
        """Make all new jobs raise this error; None accepts jobs again."""
        self._refusal = error

    async def drain(self) -> None:
        """Wait until no job is waiting or running."""
        while self.queued or self._calls:
            await asyncio.sleep(_POLL_S)

    def fail(self, error: Exception) -> None:
        """Make all waiting and new jobs, and those whose member dies, raise this error."""
        self.refuse(error)
        self._failed = True
        for job in [*self._take(len(self._waiting)), *self._suspects.values()]:
            job.result.set_exception(error)
        self._suspects.clear()

    def bury(self, member: AnyMember) -> None:
        """Remove a dead member; its calls, if there are any, must raise MemberDied."""
        if member in self._load:  # not removed yet
            del self._load[member]
            self._set_apart.discard(member)
            self._on_death(member)

    def _take(self, n: int) -> list[_Job]:
        return [self._waiting.pop() for _ in range(min(n, len(self._waiting)))]

    def _forget(self, job: _Job) -> None:
        self._waiting.remove(job.caller, job)
        self._suspects.pop(job.id, None)
        if job.member is not None:
            job.member.drop(job.id)

    def _schedule(self) -> None:
        """Send soon, so that jobs of the same event loop iteration are sent together."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send_all)

    def _send_all(self) -> None:
        self._scheduled = False
        while not self._paused and (self._send_suspects() or self._send_waiting()):
            pass

    def _send_suspects(self) -> bool:
        idle = next((member for member, load in self._load.items() if not load), None)
        if idle is None or not self._suspects:
            return False
        deaths = next(iter(self._suspects.values())).deaths
        limit = 1 if deaths + 1 >= self._max_deaths else _SUSPECTS
        alike = (job for job in self._suspects.values() if job.deaths == deaths)
        jobs = list(itertools.islice(alike, limit))
        for job in jobs:
            del self._suspects[job.id]
        self.n_resent += len(jobs)
        self._set_apart.add(idle)
        self._send(idle, jobs)
        return True

    def _send_waiting(self) -> bool:
        usual = sorted(
            (m for m in self._load if m not in self._set_apart), key=self._load.__getitem__
        )
        if self._suspects and not self._set_apart:
            usual = usual[1:]  # the least loaded gets no new jobs until idle, then suspects
        usual = [member for member in usual if self._load[member] < self._max_in_flight]
        if not usual or not self._waiting:
            return False
        load = self._load[usual[0]]
        even = -(-(sum(map(self._load.__getitem__, usual)) + len(self._waiting)) // len(usual))
        n = min(max(even - load, 1), self._max_in_flight - load, self._max_group)
        self._send(usual[0], self._take(n))
        return True

    def _send(self, member: AnyMember, jobs: list[_Job]) -> None:
        self._load[member] += len(jobs)
        for job in jobs:
            job.member = member
        call = asyncio.get_running_loop().create_task(self._call(member, jobs))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, member: AnyMember, jobs: list[_Job]) -> None:
        outcomes: list[Any]
        try:
            outcomes = await member.run([(job.id, job.content) for job in jobs])
        except MemberDied as death:
            self.bury(member)
            self._take_back(jobs, death)
        except Exception as error:
            _settle(jobs, [error] * len(jobs))
        else:
            _settle(jobs, outcomes)
        if member in self._load:
            self._load[member] -= len(jobs)
            self._set_apart.discard(member)
        self._schedule()

    def _take_back(self, jobs: list[_Job], death: MemberDied) -> None:
        for job in jobs:
            job.member = None
            job.deaths += 1
            if job.result.done():
                continue
            if self._failed and self._refusal is not None:
                job.result.set_exception(self._refusal)
            elif job.deaths >= self._max_deaths:
                message = f"{job.deaths} actors have died with this row, the last: {death}"
                job.result.set_exception(JobLost(message))
            else:
                self._suspects[job.id] = job


def _settle(jobs: list[_Job], outcomes: list[Any]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        job.member = None
        if job.result.done():
            continue
        if isinstance(outcome, Exception):
            job.result.set_exception(outcome)
        else:
            job.result.set_result(outcome)
