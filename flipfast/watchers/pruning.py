"""Stops outputs that can no longer win against others for the same instruction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flipfast.metrics.reachable_f1 import ReachableF1
from flipfast.parsing.settled import Settled
from flipfast.watchers.base import Verdict, Watcher


@dataclass(frozen=True)
class OutputRules:
    """How outputs are read and scored.

    Attributes:
        token_bytes: of every token id, see `flipfast.metrics.token_bytes`; None if unknown.
        end_ids: tokens that end an output.
        settled: makes a reader of one output's settled words.
        reward: computes a finished output's reward from the true instruction, the output's tokens
            and its finish_reason; None for none.
        on_failure: the reward of an output without an instruction; None for none.
    """

    token_bytes: Sequence[bytes | None]
    end_ids: frozenset[int]
    settled: Callable[[], Settled]
    reward: Callable[[str, list[int], str], float | None]
    on_failure: float | None


class Race:
    """Candidates that grow side by side: the highest reward wins, the first on a tie.

    For one call of an engine, which calls the candidates' watchers one at a time.

    Args:
        reference: the true instruction.
        rules: for the outputs.

    Attributes:
        n_spared: upper bound on the tokens saved by ending outputs early.
    """

    def __init__(self, reference: str, rules: OutputRules) -> None:
        self.reference = reference
        self.rules = rules
        self.n_spared = 0
        self._best: tuple[float, int] | None = None

    def finish(self, place: int, reward: float | None) -> None:
        """Record the reward of a finished candidate."""
        if reward is not None and (self._best is None or (reward, -place) > self._best):
            self._best = (reward, -place)

    def is_lost(self, place: int, highest: float) -> bool:
        """Return whether a candidate that can reach at most this reward cannot win."""
        return self._best is not None and (highest, -place) < self._best


class Candidate:
    """The watcher of one candidate's output; ends it once it can no longer win.

    Args:
        race: the race it takes part in.
        place: its index among the candidates.
        inner: another watcher of the output, called first; or None.
    """

    def __init__(self, race: Race, place: int, inner: Watcher | None = None) -> None:
        self._race = race
        self._rules = race.rules
        self._place = place
        self._inner = inner
        self._tokens: list[int] = []
        self._settled = race.rules.settled()
        self._reachable = ReachableF1(race.reference)
        self._unread: bytes | None = b""  # None after a token whose bytes are unknown

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
            # A run of single-byte tokens may still decode to something else entirely.
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
