"""A pool of engine processes behind one scorer: one per GPU, or several sharing the CPU."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flipfast.config import FlipConfig
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import (
    ConfigError,
    InputError,
    QueueFullError,
)
from flipfast.prompts.conversation import chat_texts, checked_texts
from flipfast.scores import ScoredRow, failed_row
from flipfast.serving.engine_process import EngineFactory, EngineSpec, native_engine
from flipfast.serving.scorer import Completion, EngineStatus, ServedScorer
from flipfast.serving.supervisor import Supervisor

Texts = tuple[str, str, str | None]


class EnginePool(ServedScorer):
    """The FLIP reward from several engine processes, for asyncio code on one event loop.

    A row goes to the process with the fewest rows. A process that dies is restarted: its rows
    raise UnavailableError, and new rows go to the others meanwhile. All processes have the same
    weights and none answers with stale ones: a restarted process loads those of the last
    `update_weights`. However the parent process ends, they end with it.

    Imports neither torch nor transformers. Call `start` before anything else, and `close` last.

    Args:
        config: of the reward. With CUDA, each process takes its own GPU. Otherwise they share the
            CPU's threads and `memory`; if that is a number of bytes, each process may take it.
        n_workers: number of processes.
        max_queue: maximum number of rows in the pool, waiting or running.
        start_timeout: seconds allowed for loading the model and the latest weights.
        factory: a module-level function, called in each process to create its engine.

    Raises:
        ConfigError: a value is out of range, or several processes cannot share the device.
    """

    def __init__(
        self,
        config: FlipConfig | None = None,
        n_workers: int = 1,
        *,
        max_queue: int = 4096,
        start_timeout: float = 600.0,
        factory: EngineFactory = native_engine,
    ) -> None:
        self.config = config or FlipConfig()
        for name, value in (("n_workers", n_workers), ("max_queue", max_queue)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        device = self.config.device or ""
        if n_workers > 1 and device.startswith("cuda:"):
            raise ConfigError(f"{n_workers} workers cannot share device {device!r}: use 'cuda'")
        self._max_queue = max_queue
        specs = [EngineSpec(self.config, max_queue, i, n_workers) for i in range(n_workers)]
        self._processes = Supervisor(factory, specs, start_timeout)
        self._n_rows = 0
        self._ends: deque[float] = deque(maxlen=64)  # when the last rows ended
        self._refused = 0  # rows of wrong types, which reach no process

    async def start(self) -> None:
        """Start all processes and wait until they can score.

        Raises:
            ConfigError: an option is invalid.
            ModelLoadError: the model cannot be loaded, or a process ended or timed out while
                loading it. No process is left running.
        """
        await self._processes.start()

    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response; see `AsyncScorer.score_row`."""
        return await self._score(checked_texts, instruction, response, context, caller=caller)

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion; see `AsyncScorer.score_chat`."""
        how = self.config.target, self.config.tool_calls
        return await self._score(chat_texts, prompt, completion, *how, caller=caller)

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: SamplingParams,
        *,
        seed: int = 0,
        caller: str = "",
    ) -> Completion:
        """Have the model answer a conversation; see `ServedScorer.complete`."""
        plain = [dict(message) for message in messages]
        answer: Completion = await self._call("complete", plain, sampling, seed=seed, caller=caller)
        return answer

    def status(self) -> EngineStatus:
        """Return the pool's status; counters are sums that include processes that have ended."""
        workers = self._processes.ready
        running = sum(min(w.n_open, w.status.running) for w in workers if w.status is not None)
        counters = self._processes.counters
        counters.update(rewards=self._refused, failed_rewards=self._refused)
        awake = "ready" if workers else "starting"
        return EngineStatus(
            state="asleep" if self._processes.asleep else awake,
            model=self.config.model,
            queued=max(0, self._n_rows - running),
            running=running,
            counters=dict(counters),
        )

    async def sleep(self, *, drop_weights: bool = False) -> None:
        """Finish the rows in the engines, then release memory; see `ServedScorer.sleep`.

        A process that fails to, or is still starting, is killed and restarted after `wake`.
        """
        await asyncio.shield(self._processes.sleep(drop_weights=drop_weights))

    async def wake(self) -> None:
        """Make the engines usable again after `sleep`; does nothing if awake."""
        await asyncio.shield(self._processes.wake())

    async def update_weights(self, folder: str) -> None:
        """Finish the rows in the engines, then load the weights from a folder of safetensors.

        Rows that arrive meanwhile wait and use the new weights. Keep the folder: restarted
        processes load it again.

        Raises:
            FlipfastError: no process could load the weights; all keep their current ones.
            UnavailableError: the engines are asleep, or none is ready.
        """
        await asyncio.shield(self._processes.update_weights(str(Path(folder).absolute())))

    async def close(self) -> None:
        """End all processes immediately; unfinished calls raise UnavailableError."""
        await self._processes.close()

    async def _score(self, read: Callable[..., Texts], *entries: Any, caller: str) -> ScoredRow:
        try:
            texts = read(*entries)
        except InputError as error:
            self._refused += 1
            return failed_row(error, self.config.on_failure)
        # The process may not be able to unpickle a subclass of str.
        plain = [None if text is None else str.__str__(text) for text in texts]
        row: ScoredRow = await self._call("score_row", *plain, caller=caller)
        return row

    async def _call(self, method: str, *args: Any, caller: str, **kwargs: Any) -> Any:
        self._processes.require_ready()
        if self._n_rows >= self._max_queue:
            message = (
                f"{self._n_rows} rows are waiting or running, and no more may: try again later"
            )
            raise QueueFullError(message, self._seconds_to_go())
        self._n_rows += 1
        try:
            await self._processes.settled.wait()
            self._processes.require_ready()
            worker = min(self._processes.ready, key=lambda worker: worker.n_open)
            return await worker.call(method, *args, caller=str.__str__(caller), **kwargs)
        finally:
            self._n_rows -= 1
            self._ends.append(time.monotonic())

    def _seconds_to_go(self) -> float:
        """Estimate when the current rows will be done, from the rate of the last ones."""
        if len(self._ends) < 2 or self._ends[-1] == self._ends[0]:
            return 1.0
        rate = (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])
        return min(max(self._n_rows / rate, 0.1), 60.0)
