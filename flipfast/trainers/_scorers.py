"""What all trainer modules share: an engine or a client, on any thread, with a time limit."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from flipfast import env
from flipfast.config import FlipConfig, resolve
from flipfast.errors import ConfigError
from flipfast.scores import ScoreBatch, ScoredRow, failed
from flipfast.scoring import background
from flipfast.scoring.async_scoring import AsyncScorer

_log = logging.getLogger(__name__)

Target = str | FlipConfig | AsyncScorer | None
_Server = tuple[str, tuple[tuple[str, Any], ...]]

_lock = threading.Lock()
_scorers: dict[FlipConfig | _Server, AsyncScorer] = {}


def scorer_of(target: Target = None, **options: Any) -> AsyncScorer:
    """Return the scorer for a target: one engine or client per process and configuration.

    Args:
        target: a server's address, starting with http:// or https://; a FlipConfig, a model name
            or a folder, for an engine in this process; or an AsyncScorer, which is returned
            unchanged. None means the server at FLIPFAST_URL if that is set, else the embedded
            model.
        options: options of AsyncFlipClient for a server, otherwise of FlipConfig.

    Raises:
        ConfigError: an option is invalid.
        ModelLoadError: the model cannot be loaded.
    """
    if isinstance(target, AsyncScorer):
        if options:
            raise ConfigError(f"a scorer that exists takes no options, got {', '.join(options)}")
        return target
    key = _key(target, options)
    with _lock:
        if key not in _scorers:
            _scorers[key] = _make(key)
        return _scorers[key]


class TrainerScorer:
    """Scores for a trainer, from coroutines or threads, with a reward for every row.

    Holds no engine and no connection, so it can be pickled and survives a fork; the scoring
    process creates them for its first row.

    Args:
        target: see `scorer_of`.
        timeout: seconds that a call may take. Rows that are not done by then get the status
            "error", so a stuck row does not stop the training.
        on_failure: the reward of a row without one; None leaves it None.
        options: see `scorer_of`.
    """

    def __init__(
        self,
        target: Target = None,
        *,
        timeout: float = 300.0,
        on_failure: float | None = 0.0,
        **options: Any,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._on_failure = on_failure
        self._options = options

    async def chats(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[ScoredRow]:
        """Score completions in the trainers' format; see `FlipReward.__call__`.

        Raises:
            UnavailableError: the server or the engine cannot be reached; no reward is invented.
        """
        scorer = await self._scorer()
        batch = await scorer.score_chats(prompts, completions, timeout=self._timeout)
        return self._rows(batch)

    async def texts(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None],
    ) -> list[ScoredRow]:
        """Score texts; see `FlipReward.score`. Raises the same errors as `chats`."""
        scorer = await self._scorer()
        batch = await scorer.score(instructions, responses, contexts, timeout=self._timeout)
        return self._rows(batch)

    def chats_now(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[ScoredRow]:
        """Blocking version of `chats`, callable from any thread."""
        return background.run(self.chats(prompts, completions))

    async def _scorer(self) -> AsyncScorer:
        if isinstance(self._target, AsyncScorer):
            return self._target
        ready = _scorers.get(_key(self._target, self._options))
        if ready is not None:
            return ready
        # Loading a model takes long and must not block the caller's event loop.
        return await asyncio.to_thread(scorer_of, self._target, **self._options)

    def _rows(self, batch: ScoreBatch) -> list[ScoredRow]:
        errors = [error for error in batch.errors if error is not None]
        if errors:
            _log.warning("%d of %d rows have no reward: %s", len(errors), len(batch), errors[0])
        return [
            {**row, "reward": self._on_failure} if row["reward"] is None else row
            for row in batch.to_dicts()
        ]


def figures(row: ScoredRow) -> dict[str, float]:
    """Return the numbers that a trainer can log for a row; every row has the same keys."""
    return {
        "flip_failed": float(failed(row["status"])),
        "flip_precision": row["precision"] or 0.0,
        "flip_recall": row["recall"] or 0.0,
    }


def _key(target: Target, options: dict[str, Any]) -> FlipConfig | _Server:
    if target is None:
        target = env.server_url()
    if isinstance(target, str) and target.startswith(("http://", "https://")):
        return target, tuple(sorted(options.items()))
    assert not isinstance(target, AsyncScorer)
    return resolve(target, None, options)


def _make(key: FlipConfig | _Server) -> AsyncScorer:
    if isinstance(key, FlipConfig):
        from flipfast.serving.async_engine import (
            AsyncFlipEngine,  # imports torch, which a client does without
        )

        return AsyncFlipEngine(key, max_queue=sys.maxsize)  # callers wait in this process anyway
    from flipfast.client import AsyncFlipClient

    url, options = key
    return AsyncFlipClient(url, **{"wait_when_full": True, **dict(options)})


def _forget() -> None:
    """Drop all scorers: a forked child has the engines, but not the threads that step them."""
    global _lock
    _lock = threading.Lock()
    _scorers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
