"""Outputs that somebody ends, or writes into, on their way through the engine."""

from __future__ import annotations

import random

import pytest

from flipfast.watchers.base import Verdict
from tests.engine.pages import END, PagedEngine, next_token, random_prompts, sequence


class Meddler:
    """Writes a few tokens in place of some, keeps others, ends the output at some."""

    def __init__(self, opening: list[int]) -> None:
        self._opening = opening
        self.seen: list[tuple[int, int]] = []

    def start(self) -> list[int]:
        return self._opening

    def see(self, token: int, n_left: int) -> Verdict | None:
        self.seen.append((token, n_left))
        if token % 5 == 0:
            return Verdict(written=[token + 1, 3, 4][: 1 + token % 3])
        if token % 11 == 0:
            return Verdict(ends=True)
        if token == 13:
            return Verdict(written=[], ends=True)
        return Verdict(written=[40]) if token == END and n_left > 2 else None


def expected(prompt: list[int], watcher: Meddler, most: int) -> tuple[list[int], str]:
    """What has to come out, worked out without an engine."""
    output = watcher.start()[:most]
    while len(output) < most:
        token = next_token([*prompt, *output])
        verdict = watcher.see(token, most - len(output) - 1)
        if verdict is not None and verdict.written is not None:
            output = [*output, *verdict.written][:most]
        elif token == END:
            return output, "stop"
        else:
            output = [*output, token]
        if verdict is not None and verdict.ends:
            return output, "stop"
    return output, "length"


@pytest.mark.usefixtures("cheap_rows")
@pytest.mark.parametrize("drafting", [False, True])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_what_watchers_want_is_done(seed: int, overlap: bool, drafting: bool) -> None:
    rng = random.Random(seed)
    parts = PagedEngine(n_pages=rng.choice([30, 200]), overlap=overlap, drafting=drafting)
    wanted, watchers, sequences = [], [], []
    for prompt in random_prompts(rng, 30, 30):
        most, opening = rng.randrange(2, 16), [rng.randrange(3, 9) for _ in range(rng.randrange(3))]
        watcher, twin = Meddler(opening[: most - 1]), Meddler(opening[: most - 1])
        one = sequence(prompt, most, watcher)
        wanted.append((*expected(prompt, twin, most), twin.seen))
        one.drafts = ([-1, *wanted[-1][0]],)
        watchers.append(watcher)
        sequences.append(one)
        parts.engine.add(one)
    while not parts.scheduler.idle:
        if parts.scheduler.running and rng.random() < 0.1:
            parts.scheduler._send_back(rng.choice(parts.scheduler.running))
        parts.engine.step()
        parts.check_books()
    parts.check_empty()
    got = [
        (one.output_ids, one.finish_reason, watcher.seen)
        for one, watcher in zip(sequences, watchers, strict=True)
    ]
    assert got == wanted
    assert any(one.epoch > 1 for one in sequences)
    assert not drafting or parts.engine.counters.accepted_tokens > 20
