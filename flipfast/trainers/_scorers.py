"""What every trainer's file is made of: an engine or a client, on any thread, with a time limit."""

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
    """Return what scores for a target: one engine or client a process for each configuration.

    Args:
        target: a server's address, which begins with http:// or https://; a FlipConfig, the name
            of a model or a folder, for an engine in this process; an AsyncScorer, which is
            returned as it is. None is the server at FLIPFAST_URL where that is set, else the
            embedded model.
        options: those of AsyncFlipClient for a server, else of FlipConfig.

    Raises:
        ConfigError: an option that cannot be used.
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
    """Scores for a trainer: from coroutines or threads, with a reward for every row.

    Holds no engine and no connection, so that it can be pickled and survives a fork: these are
    made in the process that scores, with the first row.

    Args:
        target: see `scorer_of`.
        timeout: seconds that a call may take. Rows that are not done by then have the status
            "error": a stuck row does not stop the training.
        on_failure: the reward of a row that has none; None leaves it None.
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
        """Score completions as trainers have them; see `FlipReward.__call__`.

        Raises:
            UnavailableError: the server or the engine cannot be reached. No reward is made up.
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
        """Score texts; see `FlipReward.score`, and `chats` for what it raises."""
        scorer = await self._scorer()
        batch = await scorer.score(instructions, responses, contexts, timeout=self._timeout)
        return self._rows(batch)

    def chats_now(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[ScoredRow]:
        """`chats` for code that blocks, from any thread."""
        return background.run(self.chats(prompts, completions))

    async def _scorer(self) -> AsyncScorer:
        if isinstance(self._target, AsyncScorer):
            return self._target
        ready = _scorers.get(_key(self._target, self._options))
        if ready is not None:
            return ready
        # Loading a model takes long: the caller's event loop has other things to do.
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
    """What a trainer can log of a row: numbers, the same keys for every row."""
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
            AsyncFlipEngine,  # torch, which a client goes without
        )

        return AsyncFlipEngine(key, max_queue=sys.maxsize)  # who asks waits in this very process
    from flipfast.client import AsyncFlipClient

    url, options = key
    return AsyncFlipClient(url, **{"wait_when_full": True, **dict(options)})


def _forget() -> None:
    """A fork's child has the parent's engines, but not the threads that step them."""
    global _lock
    _lock = threading.Lock()
    _scorers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
