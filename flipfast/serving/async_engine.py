"""The in-process engine for many concurrent asyncio callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flipfast.backends import Inversion, Inverter, SamplingParams
from flipfast.config import FlipConfig, resolve
from flipfast.errors import FlipfastError
from flipfast.scores import ScoredRow, failed
from flipfast.scoring.prose_warning import ProseWarning
from flipfast.scoring.streaming import RewardLoop, Ticket
from flipfast.serving.engine_thread import EngineThread
from flipfast.serving.scorer import Completion, EngineStatus, ServedScorer

_BATCH = 32  # rows that are looked at together for the warning of prose
_AHEAD = 2  # the engine holds this many times the rows that can run, so it never runs dry


class AsyncFlipEngine(ServedScorer):
    """The FLIP reward for asyncio code: calls from many tasks share the same engine steps.

    A dedicated thread steps the engine (continuous batching): a new row joins the running batch
    at the next step. Callers take turns. Methods may be called from any event loop in any thread.

    Args:
        model, config, options: as for FlipReward.
        inverter: a loaded inverter to share; it is not closed with the engine.
        max_queue: maximum number of waiting rows, not counting those in the engine.

    Raises:
        ConfigError, ModelLoadError: as for FlipReward.
    """

    def __init__(
        self,
        model: str | Path | FlipConfig | None = None,
        *,
        config: FlipConfig | None = None,
        inverter: Inverter | None = None,
        max_queue: int = 4096,
        **options: Any,
    ) -> None:
        self.config = resolve(model, config, options)
        self._owns_inverter = inverter is None
        self._loop = RewardLoop(self.config, inverter)
        max_open = _AHEAD * self.inverter.max_running
        self._thread = EngineThread(self._loop, max_queue=max_queue, max_open=max_open)
        self._asleep = False
        self._rewards = self._failed = 0
        self._prose = ProseWarning(self.config.model)
        self._statuses: list[str] = []

    @property
    def inverter(self) -> Inverter:
        """The inverter that runs the model."""
        return self._loop.inverter

    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response; see `AsyncScorer.score_row`."""
        return await self._row(partial(self._loop.add, instruction, response, context), caller)

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion; see `AsyncScorer.score_chat`."""
        return await self._row(partial(self._loop.add_chat, prompt, completion), caller)

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: SamplingParams,
        *,
        seed: int = 0,
        caller: str = "",
    ) -> Completion:
        """Have the model answer a conversation; see `ServedScorer.complete`."""

        def begin(on_done: Callable[[Any], None]) -> Ticket:
            return self._loop.complete(messages, sampling, seed, lambda *found: on_done(found))

        inversion: Inversion
        inversion, n_prompt = await self._thread.do(begin, caller)
        if inversion.error is not None:
            raise FlipfastError(inversion.error)
        n_output = len(inversion.output_ids)
        return Completion(inversion.text or "", inversion.finish_reason, n_prompt, n_output)

    def status(self) -> EngineStatus:
        """Return the engine's state, queue lengths and counters."""
        counters = getattr(self.inverter, "counters", None)
        totals = {"rewards": self._rewards, "failed_rewards": self._failed}
        return EngineStatus(
            state="failed" if self._thread.failed else "asleep" if self._asleep else "ready",
            model=self.config.model,
            queued=self._thread.n_queued,
            running=self._thread.n_running,
            counters=totals if counters is None else {**asdict(counters), **totals},
        )

    async def sleep(self, *, drop_weights: bool = False) -> None:
        """Finish all accepted rows, then release memory; see `ServedScorer.sleep`."""
        put_to_sleep = partial(self._native("sleep"), drop_weights=drop_weights)
        with self._thread.lock:
            self._thread.require_open()
            self._thread.closed_for = "the engine is asleep: wake it first"
            self._asleep = True
        try:
            await self._thread.when_idle(put_to_sleep, last=True)
        except FlipfastError:
            self._open()
            raise

    async def wake(self) -> None:
        """Make the engine usable again after `sleep`; does nothing if awake."""
        if self._asleep:
            await self._thread.when_idle(self._native("wake"))
            self._open()

    async def update_weights(self, folder: str) -> None:
        """Finish the rows in the engine, then load the weights from a folder of safetensors."""
        await self._thread.when_idle(partial(self._native("update_weights"), folder))

    async def close(self) -> None:
        """Stop immediately; unfinished calls raise UnavailableError."""
        await asyncio.get_running_loop().run_in_executor(None, self.shut_down)

    def shut_down(self) -> None:
        """Blocking version of `close`."""
        self._thread.stop()
        if self._owns_inverter:
            self.inverter.close()

    def _open(self) -> None:
        with self._thread.lock:
            self._thread.closed_for = None
            self._asleep = False

    async def _row(
        self, add: Callable[[Callable[[ScoredRow], None]], Ticket], caller: str
    ) -> ScoredRow:
        def begin(on_done: Callable[[Any], None]) -> Ticket:
            def count(row: ScoredRow) -> None:
                self._rewards += 1
                self._failed += failed(row["status"])
                self._look_at(row["status"])
                on_done(row)

            return add(count)

        row: ScoredRow = await self._thread.do(begin, caller)
        return row

    def _look_at(self, status: str) -> None:
        self._statuses.append(status)
        if len(self._statuses) == _BATCH:
            self._prose.check(self._statuses)
            self._statuses.clear()

    def _native(self, method: str) -> Callable[..., object]:
        found: Callable[..., object] | None = getattr(self.inverter, method, None)
        if found is None:
            backend = type(self.inverter).__module__.rpartition(".")[2]
            raise FlipfastError(f"{method} needs backend='native': {backend!r} does not have it")
        return found
