"""Keeps engine processes running and in the same state."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flipfast.errors import ModelLoadError, UnavailableError
from flipfast.serving.engine_process import EngineFactory, EngineSpec
from flipfast.serving.worker import Worker

_log = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.5  # before a restart; doubles after each failed start
_LONGEST_DELAY_S = 60.0
_NO_TOTALS = ("pages", "peak_pages")  # levels, not totals: dropped with their process


class Supervisor:
    """Starts and restarts engine processes, and changes their state together.

    Rows may go to a process only while it is `ready`; it then has the weights of the last
    `update_weights`, whenever it was started.

    Attributes:
        workers: the existing processes, including those that are starting.
        asleep: whether `sleep` was called and `wake` not yet.
        settled: cleared while weights are being updated: rows should wait.

    Args:
        factory: creates an engine.
        specs: one per process.
        start_timeout: seconds that a process may take to become ready.
    """

    def __init__(
        self, factory: EngineFactory, specs: Sequence[EngineSpec], start_timeout: float
    ) -> None:
        self.workers: set[Worker] = set()
        self.asleep = False
        self.settled = asyncio.Event()
        self.settled.set()
        self._factory = factory
        self._specs = specs
        self._start_timeout = start_timeout
        self._keepers: list[asyncio.Task[None]] = []
        self._past: Counter[str] = Counter()  # totals of processes that have ended
        self._weights: str | None = None  # the folder of the last update
        self._closed = False
        self._changing = asyncio.Lock()  # held while all processes change, or one joins
        self._awake = asyncio.Event()
        self._awake.set()

    @property
    def ready(self) -> list[Worker]:
        """The processes that rows may go to when awake."""
        return [worker for worker in self.workers if worker.ready]

    @property
    def counters(self) -> Counter[str]:
        """Sums over all processes, including those that have ended."""
        counters = Counter(self._past)
        for worker in self.workers:
            if worker.status is not None:
                counters.update(worker.status.counters)
        return counters

    def require_ready(self) -> None:
        """Raise UnavailableError with the reason if there is no process that rows may go to."""
        self._require_awake()
        if not self.ready:
            raise UnavailableError("no engine is ready yet: try again later")

    async def start(self) -> None:
        """Start all processes and wait until they are ready.

        Raises:
            FlipfastError: raised by a factory; ModelLoadError if it raised another exception, or
                if a process ended or timed out. No process is left running.
        """
        launches = [asyncio.create_task(self._launch(spec)) for spec in self._specs]
        try:
            workers = await asyncio.gather(*launches)
        except BaseException as error:
            for launch in launches:
                launch.cancel()
            await asyncio.gather(*launches, return_exceptions=True)
            await self.close()
            if isinstance(error, UnavailableError):
                raise ModelLoadError(f"an engine could not be started: {error}") from None
            raise
        pairs = zip(self._specs, workers, strict=True)
        self._keepers = [asyncio.create_task(self._keep(*pair)) for pair in pairs]

    async def sleep(self, *, drop_weights: bool) -> None:
        """Put all processes to sleep; kill those that fail or are starting, until `wake`."""
        async with self._changing:
            if self.asleep:
                return
            self.require_ready()
            workers = self.ready
            self.asleep = True
            self._awake.clear()
            rest = self.workers.difference(workers)
            for worker in rest:
                worker.kill("the engines went to sleep")
            errors = await _call_all(workers, "sleep", drop_weights=drop_weights)
            for worker, error in errors.items():
                worker.kill(f"sleep has failed: {error}")
            await asyncio.gather(*(worker.ended() for worker in (*rest, *errors)))

    async def wake(self) -> None:
        """Wake all processes and start the missing ones; does nothing if awake."""
        async with self._changing:
            if self.asleep:
                await self._change("wake")
                self.asleep = False
                self._awake.set()

    async def update_weights(self, folder: str) -> None:
        """Have all processes load the weights from a folder.

        Raises:
            FlipfastError: none could; all keep their current weights.
        """
        async with self._changing:
            self.require_ready()
            self.settled.clear()
            try:
                await self._change("update_weights", folder)
                self._weights = folder
            finally:
                self.settled.set()

    async def close(self) -> None:
        """End all processes immediately."""
        self._closed = True
        for keeper in self._keepers:
            keeper.cancel()
        workers = list(self.workers)
        for worker in workers:
            worker.kill("the pool is closed")
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.ended() for worker in workers))

    async def _launch(self, spec: EngineSpec) -> Worker:
        """Start a process and give it the weights that the others have."""
        worker = await Worker.spawn(self._factory, spec)
        self.workers.add(worker)
        late = f"it did not start in {self._start_timeout:g} s"
        timer = asyncio.get_running_loop().call_later(self._start_timeout, worker.kill, late)
        try:
            self._require_awake()  # this may have changed while the process was spawned
            await worker.started()
            async with self._changing:
                self._require_awake()
                if self._weights is not None:
                    await worker.call("update_weights", self._weights)
                worker.ready = worker.alive
        except BaseException:
            worker.kill("it could not be started")
            await self._bury(worker)
            raise
        finally:
            timer.cancel()
        return worker

    async def _keep(self, spec: EngineSpec, worker: Worker) -> None:
        """Keep one process running, restarting it whenever it ends."""
        while True:
            reason = await self._bury(worker)
            _log.error("engine process %d has to be started again: %s", spec.worker, reason)
            worker = await self._relaunch(spec)

    async def _bury(self, worker: Worker) -> str:
        """Wait until a process has ended and keep its totals; returns why it ended."""
        reason = await worker.ended()
        self.workers.discard(worker)
        if worker.status is not None:
            totals = {k: n for k, n in worker.status.counters.items() if k not in _NO_TOTALS}
            self._past.update(totals)
        return reason

    async def _relaunch(self, spec: EngineSpec) -> Worker:
        delay = _FIRST_DELAY_S
        while True:
            await asyncio.sleep(delay)
            await self._awake.wait()  # until then its memory is in use elsewhere
            try:
                return await self._launch(spec)
            except Exception as error:
                _log.error("engine process %d cannot be started: %s", spec.worker, error)
            delay = min(2 * delay, _LONGEST_DELAY_S)

    async def _change(self, method: str, *args: Any) -> None:
        """Call a method of all ready processes; raises if all fail, else kills those that do."""
        workers = self.ready
        errors = await _call_all(workers, method, *args)
        if workers and len(errors) == len(workers):
            raise errors[workers[0]]
        for worker, error in errors.items():
            worker.kill(f"{method} has failed: {error}")

    def _require_awake(self) -> None:
        if self._closed:
            raise UnavailableError("the pool is closed")
        if self.asleep:
            raise UnavailableError("the engines are asleep: wake them first")


async def _call_all(
    workers: Sequence[Worker], method: str, *args: Any, **kwargs: Any
) -> dict[Worker, BaseException]:
    """Call a method of several processes; returns the errors of those that failed."""
    calls = (worker.call(method, *args, **kwargs) for worker in workers)
    results = await asyncio.gather(*calls, return_exceptions=True)
    pairs = zip(workers, results, strict=True)
    return {worker: result for worker, result in pairs if isinstance(result, BaseException)}
