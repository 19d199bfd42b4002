"""Engine processes behind one scorer: one a GPU, or several that share a CPU."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flipfast.backends import SamplingParams
from flipfast.config import FlipConfig
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
    """The FLIP reward from several engine processes, for the asyncio code of one event loop.

    A row goes to the process with the fewest rows. A process that ends is started again: its rows
    raise UnavailableError, new ones go to the others meanwhile. All processes have the same
    weights, and none answers with older ones: one that is started again takes the last that
    `update_weights` was given. They end with this one, however it ends.

    Imports neither torch nor transformers. Call `start` before anything else, and `close` last.

    Args:
        config: of the reward. Each process takes a GPU of its own where CUDA is; else they share
            the CPU's threads and `memory`, unless that is a number of bytes, which each may take.
        n_workers: how many processes.
        max_queue: most rows that may be in the pool, waiting or running.
        start_timeout: seconds that loading the model, and the last weights, may take.
        factory: what a process runs, a function of a module; it is called there.

    Raises:
        ConfigError: a value outside its range, or a device that several processes cannot have.
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
        self._refused = 0  # rows of wrong types, which no process has seen

    async def start(self) -> None:
        """Start all processes, and wait until they can score.

        Raises:
            ConfigError: an option that cannot be used.
            ModelLoadError: the model cannot be loaded, or a process ended or took too long over
                it. No process is left behind.
        """
        await self._processes.start()

    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response; see `AsyncScorer.score_row`."""
        return await self._score(checked_texts, instruction, response, context, caller=caller)

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion; see `AsyncScorer.score_chat`."""
        return await self._score(chat_texts, prompt, completion, self.config.target, caller=caller)

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
        """How all of it is doing; counters are sums, and outlive a process."""
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
        """Let what is in the engines end, then give their memory back; see `ServedScorer.sleep`.

        A process that cannot, or is just being started, is ended, and started again after `wake`.
        """
        await asyncio.shield(self._processes.sleep(drop_weights=drop_weights))

    async def wake(self) -> None:
        """Be usable again after `sleep`; does nothing if awake."""
        await asyncio.shield(self._processes.wake())

    async def update_weights(self, folder: str) -> None:
        """Let what is in the engines end, then take the weights of a folder with safetensors.

        Rows that come meanwhile wait, and get the new weights. The folder has to stay, for
        processes that are started again.

        Raises:
            FlipfastError: no process could take them; all keep what they have.
            UnavailableError: the engines are asleep, or none is ready.
        """
        await asyncio.shield(self._processes.update_weights(str(Path(folder).absolute())))

    async def close(self) -> None:
        """End all processes at once; what has not ended raises UnavailableError."""
        await self._processes.close()

    async def _score(self, read: Callable[..., Texts], *entries: Any, caller: str) -> ScoredRow:
        try:
            texts = read(*entries)
        except InputError as error:
            self._refused += 1
            return failed_row(str(error), self.config.on_failure)
        # What derives from str may not be known to the process.
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
        """An estimate, from how fast the last rows ended, for those there are now."""
        if len(self._ends) < 2 or self._ends[-1] == self._ends[0]:
            return 1.0
        rate = (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])
        return min(max(self._n_rows / rate, 0.1), 60.0)
