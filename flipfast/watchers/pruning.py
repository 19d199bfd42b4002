"""Stops outputs that can no longer win against others of the same instruction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flipfast.metrics.reachable_f1 import ReachableF1
from flipfast.parsing.settled import Settled
from flipfast.watchers.base import Verdict, Watcher


@dataclass(frozen=True)
class OutputRules:
    """How outputs are read.

    Attributes:
        token_bytes: of every token id, see `flipfast.metrics.token_bytes`; None where unknown.
        end_ids: tokens that end an output.
        settled: makes a reader of one output's settled words.
        reward: of a whole output, from the true instruction, the output's tokens and its
            finish_reason; None for none.
        on_failure: the reward of an output without an instruction; None for none.
    """

    token_bytes: Sequence[bytes | None]
    end_ids: frozenset[int]
    settled: Callable[[], Settled]
    reward: Callable[[str, list[int], str], float | None]
    on_failure: float | None


class Race:
    """Candidates that grow side by side: the highest reward wins, of equals the first.

    For one call of an engine, which calls the candidates' watchers one after the other.

    Args:
        reference: the true instruction.
        rules: of the outputs.

    Attributes:
        n_spared: the most tokens that outputs could still have had when they were ended.
    """

    def __init__(self, reference: str, rules: OutputRules) -> None:
        self.reference = reference
        self.rules = rules
        self.n_spared = 0
        self._best: tuple[float, int] | None = None

    def finish(self, place: int, reward: float | None) -> None:
        """Note the reward of a finished candidate."""
        if reward is not None and (self._best is None or (reward, -place) > self._best):
            self._best = (reward, -place)

    def is_lost(self, place: int, highest: float) -> bool:
        """Whether a candidate that reaches this reward at most will not be the winner."""
        return self._best is not None and (highest, -place) < self._best


class Candidate:
    """The watcher of one candidate's output, which ends it once it has lost.

    Args:
        race: which one.
        place: among the candidates, in their order.
        inner: another watcher of the output, which goes first; or None.
    """

    def __init__(self, race: Race, place: int, inner: Watcher | None = None) -> None:
        self._race = race
        self._rules = race.rules
        self._place = place
        self._inner = inner
        self._tokens: list[int] = []
        self._settled = race.rules.settled()
        self._reachable = ReachableF1(race.reference)
        self._unread: bytes | None = b""  # None behind a token whose bytes are not known

    def start(self) -> list[int]:
        """See `Watcher`."""
        written = [] if self._inner is None else self._inner.start()
        self._read(written)
        return written

    def see(self, token: int, n_left: int) -> Verdict | None:
        """See `Watcher`."""
        verdict = None if self._inner is None else self._inner.see(token, n_left)
        verdict = verdict or Verdict()
        is_end = verdict.written is None and token in self._rules.end_ids
        added = [] if is_end else [token] if verdict.written is None else verdict.written
        n_spared = n_left + 1 - len(added)
        self._read(added[: n_left + 1])
        if is_end or verdict.ends:
            self._finish(verdict.reason)
        elif n_spared <= 0:
            self._finish("length")
        elif self._race.is_lost(self._place, self._highest):
            self._race.n_spared += n_spared
            return Verdict(verdict.written, ends=True, reason="pruned")
        return verdict

    def _read(self, tokens: Sequence[int]) -> None:
        self._tokens += tokens
        for token in tokens:
            data = self._rules.token_bytes[token]
            if data is None or self._unread is None:
                self._unread = None
                continue
            self._unread += data
            # A run of tokens that stand for a byte each may end as something else altogether.
            if len(data) > 1:
                self._reachable.add(self._settled.feed(self._unread))
                self._unread = b""

    @property
    def _highest(self) -> float:
        on_failure = self._rules.on_failure
        return max(self._reachable.bound, -math.inf if on_failure is None else on_failure)

    def _finish(self, reason: str) -> None:
        reward = self._rules.reward(self._race.reference, self._tokens, reason)
        self._race.finish(self._place, reward)
