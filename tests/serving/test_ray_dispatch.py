"""How jobs are shared out, with members that live and die by script."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs ray")

from flipfast.errors import QueueFullError, UnavailableError
from flipfast.serving.ray.dispatch import Dispatcher, JobLost, Member, MemberDied
from tests.waiting import PATIENCE_S, until


class Scripted(Member):
    """Answers a job with its own content; dies of b"poison", and waits on b"slow"."""

    def __init__(self, latch: asyncio.Event | None = None) -> None:
        self.latch = latch
        self.groups: list[list[bytes]] = []
        self.dropped: list[int] = []
        self.running = self.most = 0
        self.dead = False

    async def run(self, jobs: Sequence[tuple[int, bytes]]) -> list[Any]:
        contents = [content for _, content in jobs]
        self.groups.append(contents)
        self.running += len(jobs)
        self.most = max(self.most, self.running)
        self.dead = self.dead or b"poison" in contents
        await asyncio.sleep(0)
        if b"slow" in contents and self.latch is not None:
            await self.latch.wait()
        self.running -= len(jobs)
        if self.dead:
            raise MemberDied("by script")
        return contents

    def drop(self, job_id: int) -> None:
        self.dropped.append(job_id)


class House:
    """A dispatcher whose members are replaced as they die."""

    def __init__(self, n: int, replace: bool = True, **limits: int) -> None:
        usual = {"max_queue": 1000, "max_in_flight": 16, "max_group": 4, "max_deaths": 3}
        self.dispatcher = Dispatcher(self._died, **{**usual, **limits})
        self.replaced: list[Scripted] = []
        self.replace = replace
        for _ in range(n):
            self.dispatcher.add(Scripted(asyncio.Event()))

    def _died(self, member: Scripted) -> None:
        self.replaced.append(member)
        if self.replace:
            self.dispatcher.add(Scripted(asyncio.Event()))

    async def run(self, *contents: bytes) -> list[Any]:
        calls = [self.dispatcher.run(content, str(i % 2)) for i, content in enumerate(contents)]
        return await asyncio.gather(*calls, return_exceptions=True)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE_S))


def numbers(n: int) -> list[bytes]:
    return [str(i).encode() for i in range(n)]


def test_all_members_have_the_same_work_and_none_too_much() -> None:
    async def work() -> None:
        house = House(2)
        first, second = house.dispatcher.members
        assert await house.run(*numbers(100)) == numbers(100)
        assert first.most <= 16
        assert second.most <= 16
        assert max(map(len, first.groups + second.groups)) == 4
        done = [sum(map(len, member.groups)) for member in (first, second)]
        assert sum(done) == 100
        assert min(done) >= 40

    run(work())


def test_few_jobs_are_spread() -> None:
    async def work() -> None:
        house = House(2)
        assert await house.run(*numbers(4)) == numbers(4)
        assert [len(member.groups) for member in house.dispatcher.members] == [1, 1]

    run(work())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_poisoned_job_is_found_out_and_no_other_is_lost(n: int) -> None:
    async def work() -> None:
        house = House(n)
        contents = numbers(50)
        contents[7] = contents[31] = b"poison"
        results = await house.run(*contents)
        for content, result in zip(contents, results, strict=True):
            if content == b"poison":
                assert isinstance(result, JobLost)
            else:
                assert result == content
        assert len(house.replaced) <= 6  # at most three each
        last = [member.groups[-1] for member in house.replaced]
        assert last.count([b"poison"]) == 2
        assert house.dispatcher.running == house.dispatcher.queued == 0
        assert len(house.dispatcher.members) == n

    run(work())


def test_jobs_of_a_dead_member_go_to_the_others() -> None:
    async def work() -> None:
        house = House(2, replace=False)
        first, second = house.dispatcher.members
        results = asyncio.ensure_future(house.run(*[b"slow"] * 12))
        await until(lambda: first.running == second.running == 6)
        first.dead = True
        first.latch.set()
        second.latch.set()
        assert await results == [b"slow"] * 12
        assert house.replaced == [first]  # once, though two calls have failed
        assert house.dispatcher.n_resent == 6

    run(work())


def test_suspects_have_a_member_to_themselves() -> None:
    async def work() -> None:
        house = House(1)
        (first,) = house.dispatcher.members
        contents = [b"slow"] * 8 + [b"poison"] + numbers(40)
        results = asyncio.ensure_future(house.run(*contents))
        await until(lambda: first.groups)

        def let_go() -> bool:
            for member in [*house.dispatcher.members, *house.replaced]:
                member.latch.set()
            return results.done()

        await until(let_go)
        done = await results
        assert [one for one in done if not isinstance(one, JobLost)] == [
            one for one in contents if one != b"poison"
        ]
        for member in house.replaced[1:]:  # these died with suspects alone
            assert len(member.groups[-1]) <= 8

    run(work())


def test_the_queue_is_bounded_and_callers_take_turns() -> None:
    async def work() -> None:
        house = House(1, max_queue=6, max_in_flight=1, max_group=1)
        (member,) = house.dispatcher.members
        calls = [house.dispatcher.run(str(i).encode(), "many") for i in range(6)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)  # they wait; one is sent at the next turn
        with pytest.raises(QueueFullError):
            await house.dispatcher.run(b"more", "many")
        await asyncio.sleep(0)
        assert await house.dispatcher.run(b"one", "few") == b"one"
        assert member.groups.index([b"one"]) <= 2
        assert await asyncio.gather(*tasks) == numbers(6)

    run(work())


def test_a_cancelled_job_is_dropped_wherever_it_is() -> None:
    async def work() -> None:
        house = House(1, max_in_flight=1)
        (member,) = house.dispatcher.members
        running = asyncio.ensure_future(house.dispatcher.run(b"slow"))
        waiting = asyncio.ensure_future(house.dispatcher.run(b"waits"))
        await until(lambda: (house.dispatcher.running, house.dispatcher.queued) == (1, 1))
        await until(lambda: member.groups)
        waiting.cancel()
        running.cancel()
        await asyncio.gather(waiting, running, return_exceptions=True)
        assert house.dispatcher.queued == 0
        assert member.dropped == [0]
        member.latch.set()
        assert await house.dispatcher.run(b"next") == b"next"
        assert member.groups == [[b"slow"], [b"next"]]

    run(work())


def test_pausing_waits_for_what_runs_and_keeps_what_waits() -> None:
    async def work() -> None:
        house = House(1, max_in_flight=1)
        (member,) = house.dispatcher.members
        results = asyncio.ensure_future(house.run(b"slow", b"next"))
        await until(lambda: member.groups)
        pause = asyncio.ensure_future(house.dispatcher.pause())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not pause.done()
        member.latch.set()
        await pause
        assert member.groups == [[b"slow"]]
        house.dispatcher.resume()
        assert await results == [b"slow", b"next"]

    run(work())


def test_failing_answers_all() -> None:
    async def work() -> None:
        house = House(1, replace=False, max_in_flight=1)
        (member,) = house.dispatcher.members
        results = asyncio.ensure_future(house.run(b"slow", b"next"))
        await until(lambda: member.groups)
        house.dispatcher.fail(UnavailableError("closed"))
        member.dead = True
        member.latch.set()
        assert [str(one) for one in await results] == ["closed", "closed"]
        with pytest.raises(UnavailableError):
            await house.dispatcher.run(b"more")

    run(work())
