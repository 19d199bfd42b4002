"""An engine in a Ray actor, and the driver's handle to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, UnavailableError
from flipfast.serving.ray.dispatch import Member, MemberDied
from flipfast.serving.scorer import ServedScorer

Build = Callable[[FlipConfig], ServedScorer]


@dataclass(frozen=True)
class ActorShare:
    """One actor's share of the cluster.

    Attributes:
        num_cpus: CPU cores.
        num_gpus: GPUs, or a fraction of one (then give the engine a `memory` that fits); None
            takes a whole one if the cluster has any.
        threads: of torch and of the engine; None means num_cpus, but at least one.
        ray_options: Ray's other options for an actor: `resources`, `runtime_env`.
    """

    num_cpus: float = 1
    num_gpus: float | None = None
    threads: int | None = None
    ray_options: Mapping[str, Any] | None = None

    def options(self) -> dict[str, Any]:
        """Return the options for Ray; queries the cluster if num_gpus is None."""
        gpus = self.num_gpus
        if gpus is None:
            gpus = 1 if ray.cluster_resources().get("GPU") else 0
        return {"num_cpus": self.num_cpus, "num_gpus": gpus, **(self.ray_options or {})}

    def n_actors(self, wanted: int | None) -> int:
        """Return the number of actors: as wanted, or as many as the cluster has room for.

        Raises:
            ConfigError: fewer than one is wanted.
        """
        if wanted is not None:
            if wanted < 1:
                raise ConfigError(f"there must be at least one actor, not {wanted}")
            return wanted
        options, have = self.options(), ray.cluster_resources()
        amounts = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
        fits = [int(have.get(name, 0) / amount) for name, amount in amounts.items() if amount]
        return max(1, min(fits, default=1))

    def set_threads(self) -> None:
        """Set torch's number of threads; call in the actor before creating the engine."""
        import torch

        torch.set_num_threads(self.threads or max(1, int(self.num_cpus)))


class EngineActor:
    """Runs in the actor: an engine that handles many calls concurrently."""

    def __init__(self, build: Build, config: FlipConfig, share: ActorShare) -> None:
        self._build, self._config, self._share = build, config, share
        self._tasks: dict[int, asyncio.Task[Any]] = {}

    async def start(self) -> None:
        """Load the model; not in the constructor, so that its errors arrive unchanged."""
        self._share.set_threads()
        self._engine = self._build(self._config)

    async def run(self, jobs: Sequence[tuple[int, bytes]]) -> tuple[list[Any], dict[str, int]]:
        """Run jobs; returns their results, which may be exceptions, and the engine's counters."""
        tasks = [asyncio.ensure_future(self._one(content)) for _, content in jobs]
        ids = [job_id for job_id, _ in jobs]
        self._tasks.update(zip(ids, tasks, strict=True))
        try:
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for job_id in ids:
                del self._tasks[job_id]
        # Nobody waits for the dropped jobs.
        known = [None if isinstance(one, asyncio.CancelledError) else one for one in outcomes]
        return known, dict(self._engine.status().counters)

    async def drop(self, job_id: int) -> None:
        if job_id in self._tasks:
            self._tasks[job_id].cancel()

    async def control(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call `sleep`, `wake` or `update_weights`."""
        await getattr(self._engine, method)(*args, **kwargs)

    async def _one(self, content: bytes) -> Any:
        method, args, kwargs = cloudpickle.loads(content)
        return await getattr(self._engine, method)(*args, **kwargs)


class ActorMember(Member):
    """The driver's handle to an EngineActor.

    Attributes:
        counters: the engine's, as of its last answer.
    """

    def __init__(
        self, build: Build, config: FlipConfig, share: ActorShare, max_concurrency: int
    ) -> None:
        options = {"max_restarts": 0, "max_concurrency": max_concurrency, **share.options()}
        remote: Any = ray.remote(EngineActor)
        self._actor = remote.options(**options).remote(build, config, share)
        self.counters: dict[str, int] = {}

    async def start(self) -> None:
        """Wait until the actor is ready.

        Raises:
            MemberDied: the actor died.
            FlipfastError: raised when creating the engine.
        """
        await self._call(self._actor.start.remote())

    async def run(self, jobs: Sequence[tuple[int, bytes]]) -> list[Any]:
        outcomes, self.counters = await self._call(self._actor.run.remote(list(jobs)))
        for outcome in outcomes:
            if isinstance(outcome, UnavailableError):  # its engine crashed or is closed
                raise MemberDied(str(outcome))
        return list(outcomes)

    def drop(self, job_id: int) -> None:
        self._actor.drop.remote(job_id)

    async def control(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call `sleep`, `wake` or `update_weights` of the engine."""
        await self._call(self._actor.control.remote(method, *args, **kwargs))

    def kill(self) -> None:
        """Kill the actor if it is still alive."""
        ray.kill(self._actor)

    @staticmethod
    async def _call(reference: Any) -> Any:
        try:
            return await reference
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise MemberDied(str(error).strip().split("\n")[0]) from error
