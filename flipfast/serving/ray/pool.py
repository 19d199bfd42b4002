"""A pool of engines in Ray actors behind one scorer."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import cloudpickle

from flipfast.config import FlipConfig
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import FlipfastError, InputError, UnavailableError
from flipfast.scores import ScoredRow, failed, failed_row
from flipfast.serving.ray.actor import ActorMember, ActorShare, Build
from flipfast.serving.ray.dispatch import Dispatcher, JobLost, MemberDied
from flipfast.serving.scorer import Completion, EngineStatus, ServedScorer

_log = logging.getLogger(__name__)

_MAX_DEATHS = 3  # actors that may die with one row
_PAUSES_S = (0.0, 1.0, 5.0, 20.0)  # before each attempt to start an actor that dies on start
_IN_FLIGHT = {"cpu": 128, "cuda": 1024}  # rows per actor: a few times what its engine runs at once
_GROUPS = 8  # calls that these are split into, so that one slow row delays few others


def build_engine(config: FlipConfig) -> ServedScorer:
    """Create the engine of an actor."""
    from flipfast.serving.async_engine import AsyncFlipEngine

    return AsyncFlipEngine(config=config)


class RayPool(ServedScorer):
    """Scores rows in Ray actors, each with its own engine; for one event loop.

    A row goes to the actor with the fewest rows. When an actor dies, its rows go to others and a
    new actor takes its place; every row gets one result. A row with which three actors have died,
    the last while running no other row, gets the status "error". Connects to Ray if `ray.init` was
    not called.

    Args:
        config: of the engines.
        n_actors: number of actors; None takes as many as the cluster has room for.
        share: each actor's share of the cluster.
        max_queue: maximum number of rows waiting here; beyond it calls raise QueueFullError.
        max_in_flight: maximum number of rows per actor; None chooses by device.
        build: creates the engine, in the actor.
    """

    def __init__(
        self,
        config: FlipConfig | None = None,
        *,
        n_actors: int | None = None,
        share: ActorShare | None = None,
        max_queue: int = 100_000,
        max_in_flight: int | None = None,
        build: Build = build_engine,
    ) -> None:
        if not ray.is_initialized():
            ray.init()
        self._config = config or FlipConfig()
        self._share = share or ActorShare()
        self._n_actors = self._share.n_actors(n_actors)
        device = "cuda" if self._share.options()["num_gpus"] else "cpu"
        self._max_in_flight = max_in_flight or _IN_FLIGHT[device]
        self._build = build
        self._dispatcher: Dispatcher[ActorMember] = Dispatcher(
            self._replace,
            max_queue=max_queue,
            max_in_flight=self._max_in_flight,
            max_group=max(1, self._max_in_flight // _GROUPS),
            max_deaths=_MAX_DEATHS,
        )
        self._begun = self._closed = False
        self._starts: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None  # why an actor could not be started
        self._changing = asyncio.Lock()  # held while engines sleep, wake or take weights
        self._asleep: dict[str, Any] | None = None  # what `sleep` was called with
        self._weights: str | None = None
        self._n_rewards = self._n_failed = self._n_deaths = 0
        self._past: Counter[str] = Counter()  # counters of dead actors

    async def __aenter__(self) -> RayPool:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self, n_ready: int = 1) -> None:
        """Start the actors, as the first call would, and wait until some are ready.

        Args:
            n_ready: how many to wait for, not counting those that cannot be started.

        Raises:
            Exception: raised when creating the engines, if that failed in all actors.
            UnavailableError: all actors die before they are ready.
        """
        self._begin()
        while self._starts and len(self._dispatcher.members) < n_ready:
            await asyncio.wait(self._starts, return_when=asyncio.FIRST_COMPLETED)
        if not self._dispatcher.members and self._failure is not None:
            raise self._failure

    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response; see `AsyncScorer.score_row`."""
        return await self._row("score_row", caller, instruction, response, context)

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion; see `AsyncScorer.score_chat`."""
        return await self._row("score_chat", caller, prompt, completion)

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: SamplingParams,
        *,
        seed: int = 0,
        caller: str = "",
    ) -> Completion:
        """Have the model answer a conversation; see `ServedScorer.complete`."""
        found: Completion = await self._job("complete", caller, messages, sampling, seed=seed)
        return found

    def status(self) -> EngineStatus:
        """Return the pool's status; the engines' counters are as of their last answers."""
        members = self._dispatcher.members
        totals = sum((Counter(member.counters) for member in members), Counter(self._past))
        state = "ready" if members else "starting"
        own = {
            "rewards": self._n_rewards,
            "failed_rewards": self._n_failed,
            "actors": len(members),
            "actor_deaths": self._n_deaths,
            "resent_rows": self._dispatcher.n_resent,
        }
        return EngineStatus(
            state="asleep" if self._asleep is not None else state,
            model=self._config.model,
            queued=self._dispatcher.queued,
            running=self._dispatcher.running,
            counters={**totals, **own},
        )

    async def sleep(self, *, drop_weights: bool = False) -> None:
        """Finish all accepted rows, then release memory; see `ServedScorer.sleep`."""
        self._dispatcher.refuse(UnavailableError("the engines are asleep: wake them first"))
        try:
            await self._dispatcher.drain()
            await self._control("sleep", drop_weights=drop_weights)
        except FlipfastError:
            self._dispatcher.refuse(None)
            raise
        self._asleep = {"drop_weights": drop_weights}

    async def wake(self) -> None:
        """Make the engines usable again after `sleep`; does nothing if awake."""
        if self._asleep is not None:
            await self._control("wake")
            self._asleep = None
            self._dispatcher.refuse(None)

    async def update_weights(self, folder: str) -> None:
        """Finish the actors' rows, then load the weights from a folder that all of them can see."""
        await self._dispatcher.pause()
        try:
            await self._control("update_weights", folder)
        finally:
            self._dispatcher.resume()

    async def close(self) -> None:
        """Stop immediately; unfinished calls raise UnavailableError."""
        self._begun = self._closed = True
        self._dispatcher.fail(UnavailableError("the pool is closed"))
        for member in self._dispatcher.members:
            self._dispatcher.bury(member)
        starts = list(self._starts)
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        await self._dispatcher.pause()

    async def _row(self, method: str, caller: str, *args: Any) -> ScoredRow:
        try:
            row: ScoredRow = await self._job(method, caller, *args)
        except (JobLost, InputError) as error:
            row = failed_row(error, self._config.on_failure)
        self._n_rewards += 1
        self._n_failed += failed(row["status"])
        return row

    async def _job(self, method: str, caller: str, *args: Any, **kwargs: Any) -> Any:
        self._begin()
        try:
            content = cloudpickle.dumps((method, args, {**kwargs, "caller": caller}))
        except Exception as error:  # pickled by itself, a bad row does not block others
            raise InputError(f"cannot be sent to an actor: {error}") from error
        return await self._dispatcher.run(content, caller)

    async def _control(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of all engines; replace those that fail if others succeed."""
        async with self._changing:
            members = self._dispatcher.members
            calls = [member.control(method, *args, **kwargs) for member in members]
            results = await asyncio.gather(*calls, return_exceptions=True)
            failures = [one for one in results if isinstance(one, Exception)]
            known = [one for one in failures if not isinstance(one, MemberDied)]
            if known and len(failures) == len(members):
                raise known[0]
            if method == "update_weights":
                (self._weights,) = args
            for member, result in zip(members, results, strict=True):
                if result is not None:
                    self._dispatcher.bury(member)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            for _ in range(self._n_actors):
                self._fill_place()

    def _fill_place(self) -> None:
        start = asyncio.get_running_loop().create_task(self._start_member())
        self._starts.add(start)
        start.add_done_callback(self._started)

    async def _start_member(self) -> None:
        for pause in _PAUSES_S:
            await asyncio.sleep(pause)
            member = ActorMember(self._build, self._config, self._share, self._max_in_flight)
            try:
                await member.start()
                await self._join(member)
                return
            except MemberDied as error:
                _log.warning("a Ray actor died before it was ready: %s", error)
                last = error
            except BaseException:
                member.kill()
                raise
        raise UnavailableError(f"Ray actors die before they are ready: {last}")

    async def _join(self, member: ActorMember) -> None:
        """Bring a new actor to the others' state and add it."""
        async with self._changing:
            if self._weights is not None:
                await member.control("update_weights", self._weights)
            if self._asleep is not None:
                await member.control("sleep", **self._asleep)
            self._dispatcher.add(member)

    def _started(self, start: asyncio.Task[None]) -> None:
        self._starts.discard(start)
        error = None if start.cancelled() else start.exception()
        if not isinstance(error, Exception):
            return
        self._failure = error
        _log.error("a Ray actor cannot be started: %s", error)
        if not self._starts and not self._dispatcher.members:
            self._dispatcher.fail(error)

    def _replace(self, member: ActorMember) -> None:
        """Replace a dead actor with a new one."""
        self._past.update(member.counters)
        member.kill()
        if not self._closed:
            self._n_deaths += 1
            self._fill_place()
