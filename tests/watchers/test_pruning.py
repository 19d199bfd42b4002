"""Candidates that are ended early: the same winner with the same reward, in any order of steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence as EngineSequence
from flipfast.metrics.word_f1_py import word_f1
from flipfast.parsing import parse_plain
from flipfast.parsing.settled import SettledPlain
from flipfast.watchers.base import Verdict, Watcher
from flipfast.watchers.pruning import Candidate, OutputRules, Race

END = 0
TABLE: list[bytes | None] = [
    b"",
    b" ",
    b" x",
    b" y",
    b" z",
    b"x",
    b" the",
    b"?",
    b" w",
    None,
    b"\n",
]
MAX_NEW = 12
REFERENCE = "x y z y"


def decode(tokens: Sequence[int]) -> str:
    return b"".join(TABLE[token] or b"\xc3\xa9" for token in tokens).decode()


def reward(reference: str, tokens: Sequence[int], on_failure: float | None) -> float | None:
    text, status = parse_plain(decode(tokens), think_open=False)
    return on_failure if status == "empty" else word_f1(text, reference)[0]


def make_race(on_failure: float | None, finished: list[list[int]] | None = None) -> Race:
    def noted(reference: str, tokens: list[int], finish_reason: str) -> float | None:
        assert finish_reason == ("length" if len(tokens) == MAX_NEW else "stop")
        if finished is not None:
            finished.append(list(tokens))
        return reward(reference, tokens, on_failure)

    rules = OutputRules(TABLE, frozenset([END]), SettledPlain, noted, on_failure)
    return Race(REFERENCE, rules)


def run(
    race: Race, outputs: list[list[int]], rng: random.Random, inner: Any = None
) -> list[EngineSequence]:
    """Say outputs token by token, in a random order of steps."""
    sampling = SamplingParams(MAX_NEW)
    sequences = [
        EngineSequence([1], sampling, watcher=Candidate(race, place, inner and inner()))
        for place in range(len(outputs))
    ]
    said = [iter([*output, END]) for output in outputs]
    while running := [at for at, s in enumerate(sequences) if s.finish_reason is None]:
        for at in rng.sample(running, rng.randint(1, len(running))):
            sequences[at].accept(next(said[at]), frozenset([END]))
    return sequences


def make_output(rng: random.Random) -> list[int]:
    """Something like the reference, or nothing like it."""
    words = [2, 3, 4, 3] if rng.random() < 0.4 else [8] * rng.choice([0, 3, 11])
    odd = rng.choices(range(1, len(TABLE)), k=rng.randint(0, 3))
    output = [*words, *odd][: MAX_NEW - 1]
    rng.shuffle(output)
    return output if rng.random() < 0.9 else [*output, *[8] * MAX_NEW][:MAX_NEW]


@pytest.mark.slow
@pytest.mark.parametrize("on_failure", [None, 0.0, 0.7])
def test_the_winner_is_the_same(on_failure: float | None) -> None:
    rng = random.Random(8)
    n_pruned = n_spared = 0
    for _ in range(1_000):
        outputs = [make_output(rng) for _ in range(rng.randint(1, 6))]
        rewards = [reward(REFERENCE, output, on_failure) for output in outputs]
        ranked = [(r, -at) for at, r in enumerate(rewards) if r is not None]
        finished: list[list[int]] = []
        race = make_race(on_failure, finished)
        sequences = run(race, outputs, rng)
        pruned = [s for s in sequences if s.finish_reason == "pruned"]
        n_pruned += len(pruned)
        n_spared += race.n_spared
        assert race.n_spared == sum(MAX_NEW - len(s.output_ids) for s in pruned)
        for sequence, output in zip(sequences, outputs, strict=True):
            assert sequence.output_ids == output[: len(sequence.output_ids)]
            if sequence not in pruned:
                assert sequence.output_ids == output
                assert output in finished
        if ranked:
            assert sequences[-max(ranked)[1]] not in pruned
    assert n_pruned > 200
    assert n_spared > 1_000


def see_all(watcher: Watcher, tokens: Sequence[int]) -> list[Verdict | None]:
    return [watcher.see(token, MAX_NEW - 1 - at) for at, token in enumerate(tokens)]


def pruned_at(watcher: Watcher, tokens: Sequence[int]) -> int | None:
    reasons = [verdict.reason if verdict else "" for verdict in see_all(watcher, tokens)]
    return reasons.index("pruned") if "pruned" in reasons else None


def test_one_is_ended_as_soon_as_it_has_lost() -> None:
    race = make_race(None)
    see_all(Candidate(race, 1), [2, 3, 4, 3, 8, END])  # 8/9
    # One wrong word before the end, then another, known only by the white space behind it.
    assert pruned_at(Candidate(race, 2), [8, 2, 8, 3]) == 1
    assert pruned_at(Candidate(race, 0), [8, 2, 8, 3]) == 3
    assert pruned_at(Candidate(race, 0), [2, 3, 4, 3, 8, END]) is None


def test_an_equal_one_wins_only_from_before() -> None:
    for place, lost in ((0, None), (2, 0)):
        race = make_race(None)
        see_all(Candidate(race, 1), [2, 3, 4, 3, END])
        assert pruned_at(Candidate(race, place), [2, 3]) == lost
    race = make_race(None)
    for place in (3, 1):
        see_all(Candidate(race, place), [2, 3, 4, 3, END])
    assert pruned_at(Candidate(race, 2), [2, 3]) == 0


def test_a_failure_may_still_win() -> None:
    for on_failure, lost in ((None, 2), (0.9, None)):
        race = make_race(on_failure)
        see_all(Candidate(race, 1), [2, 3, 4, 3, 8, END])
        assert pruned_at(Candidate(race, 0), [8, 8, 8]) == lost


def test_tokens_of_unknown_bytes_settle_nothing_more() -> None:
    race = make_race(None)
    see_all(Candidate(race, 1), [2, 3, 4, 3, END])
    assert pruned_at(Candidate(race, 0), [9, 8, 8, 8]) is None
    # The line break may be gone if what follows is no UTF-8.
    assert pruned_at(Candidate(race, 0), [8, 10, 9, 8]) is None
    assert pruned_at(Candidate(race, 0), [8, 10, 8]) == 2


class Stopping:
    """A watcher that doubles a token, lets the end come only with another, and writes for it."""

    def start(self) -> list[int]:
        return [2]

    def see(self, token: int, n_left: int) -> Verdict | None:
        if token in (3, END):
            return Verdict([token or 4] * 2)
        return Verdict(ends=True) if token == 7 else None


def test_another_watcher_goes_first() -> None:
    race = make_race(None)
    first = Candidate(race, 1, Stopping())
    assert first.start() == [2]
    assert see_all(first, [3, 4, 7])[::2] == [Verdict([3, 3]), Verdict(ends=True)]
    assert race.is_lost(2, 1.0)  # "x y y z?" has all words
    second = Candidate(race, 2, Stopping())
    assert second.see(3, 5) == Verdict([3, 3], ends=True, reason="pruned")
    assert race.n_spared == 4


def test_what_another_watcher_writes_counts() -> None:
    for output, said in (([3, 4, END, 7], [2, 3, 3, 4, 4, 4, 7]), ([3] * 6, [2, *[3] * 11])):
        finished: list[list[int]] = []
        [sequence] = run(make_race(None, finished), [output], random.Random(1), Stopping)
        assert finished == [said]
        assert sequence.output_ids == said
