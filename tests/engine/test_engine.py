"""The engine's loop over a make-believe model: every output is what the pages really hold."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from flipfast.engine.fair_lock import FairLock
from flipfast.engine.sequence import Sequence
from flipfast.errors import FlipfastError
from tests.engine.pages import BAD, PagedEngine, expected_output, random_prompts, sequence

MINUTES = 300.0  # no wait takes long, but on a busy machine


def wait_for(event: Callable[[], bool]) -> None:
    """Until something that another thread does has happened."""
    end = time.monotonic() + MINUTES
    while not event():
        assert time.monotonic() < end
        time.sleep(0.001)


def outcome(seq: Sequence) -> tuple[list[int], str | None]:
    return seq.output_ids, seq.finish_reason


def expected(seq: Sequence) -> tuple[list[int], str]:
    return expected_output(seq.prompt_ids, seq.sampling.max_new_tokens)


def make(prompts: list[list[int]], rng: random.Random) -> list[Sequence]:
    return [sequence(prompt, rng.randrange(1, 20)) for prompt in prompts]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_pages", [12, 40, 400])  # far too few, few, plenty
def test_every_output_is_its_own_prompts(overlap: bool, n_pages: int, seed: int) -> None:
    rng = random.Random(seed)
    paged = PagedEngine(n_pages=n_pages, max_seqs=6, max_tokens=16, overlap=overlap)
    sequences = make(random_prompts(rng, 60, 24), rng)
    paged.engine.generate(sequences)
    assert [outcome(s) for s in sequences] == [expected(s) for s in sequences]
    paged.check_empty()
    assert paged.runner.longest_step <= 16
    assert paged.cache.pool.peak_held < n_pages
    counters = paged.engine.counters
    assert counters.preemptions > 0 or n_pages > 12
    assert counters.preemptions == 0 or n_pages < 400
    assert counters.prefix_tokens > 0


def test_the_cache_only_saves_work(overlap: bool) -> None:
    prompts = random_prompts(random.Random(1), 50, 40)
    computed = {}
    for prefix_cache in (True, False):
        paged = PagedEngine(overlap=overlap, prefix_cache=prefix_cache)
        sequences = [sequence(prompt) for prompt in prompts]
        paged.engine.generate(sequences)
        assert [outcome(s) for s in sequences] == [expected(s) for s in sequences]
        computed[prefix_cache] = paged.engine.counters.computed_tokens
    assert computed[True] < 0.8 * computed[False]


def test_a_start_is_shared_within_a_step_and_across_calls() -> None:
    paged = PagedEngine(max_tokens=200)
    stem = list(range(3, 23))  # five pages
    first = [sequence([*stem, 30 + i, 3], 1) for i in range(4)]
    paged.engine.generate(first)
    assert paged.engine.counters.steps == 1
    assert paged.engine.counters.prefix_tokens == 3 * 20
    paged.engine.generate([sequence([*stem, 40], 1)])
    assert paged.engine.counters.prefix_tokens == 4 * 20
    assert [outcome(s) for s in first] == [expected(s) for s in first]


def test_a_whole_prompt_in_the_cache_still_runs_one_token() -> None:
    paged = PagedEngine()
    prompt = list(range(3, 19))  # four pages to the token
    for _ in range(2):
        seq = sequence(prompt, 3)
        paged.engine.generate([seq])
        assert outcome(seq) == expected(seq)
    assert paged.engine.counters.prefix_tokens == 15
    assert paged.engine.counters.computed_tokens == 16 + 2 + 1 + 2


def test_pinned_pages_are_given_up_last() -> None:
    paged = PagedEngine(n_pages=20)
    stem = list(range(3, 11))  # two pages
    paged.engine.pin([*stem, 11])  # and a bit, which is no whole page
    paged.engine.generate([sequence([*stem, 20, 21], 1)])
    rng = random.Random(0)
    for _ in range(30):
        paged.engine.generate([sequence([rng.randrange(3, 50) for _ in range(40)], 1)])
    assert paged.engine.counters.evictions > 100
    before = paged.engine.counters.prefix_tokens
    paged.engine.generate([sequence([*stem, 30], 1)])
    assert paged.engine.counters.prefix_tokens - before == 8
    # Where nothing else is left they go too: a prompt that needs every page still runs.
    long = sequence([rng.randrange(3, 50) for _ in range(70)], 6)
    paged.engine.generate([long])
    assert outcome(long) == expected(long)
    paged.check_empty()


@pytest.mark.parametrize(("n_stem", "n_full"), [(10, 8), (3, 0), (4, 4)])
def test_what_a_pinned_prefix_has_behind_its_full_pages_is_copied(n_stem: int, n_full: int) -> None:
    paged = PagedEngine(n_pages=30)
    stem = list(range(3, 3 + n_stem))
    paged.engine.pin(stem)

    def run(prompt: list[int]) -> tuple[int, int]:
        """Tokens that were found, and pages that were copied."""
        before = paged.engine.counters
        seq = sequence(prompt, 3)
        paged.engine.generate([seq])
        assert outcome(seq) == expected(seq)
        paged.check_books()
        after = paged.engine.counters
        return (
            after.prefix_tokens - before.prefix_tokens,
            after.copied_pages - before.copied_pages,
        )

    copied = int(n_stem > n_full)
    assert run([*stem, *range(20, 27)]) == (0, 0)
    assert run([*stem, *range(30, 37)]) == (n_stem, copied)
    assert run([*stem, 40]) == (n_stem, copied)
    assert run([*stem[:-1], 41, 42, 43, 44]) == (min(n_full, n_stem - 1) // 4 * 4, 0)  # it differs
    # Its last token has to run: of a whole page all others are copied.
    assert run(stem) == ((3, 1) if n_stem == 4 else (n_full, 0))
    # Once the page is gone, another prompt's serves as well.
    rng = random.Random(0)
    for _ in range(30):
        run([rng.randrange(50, 90) for _ in range(60)])
    found, _ = run([*stem, *range(30, 37)])
    assert found in {n_full, n_stem}
    assert run([*stem, *range(45, 49)]) == (n_stem, copied)


def test_two_pins_with_the_same_full_pages() -> None:
    paged = PagedEngine()
    stem = list(range(3, 7))
    for end in ([11], [11, 12], [13, 14]):
        paged.engine.pin([*stem, *end])
    seqs = [sequence([*stem, *rest, 40, 41, 42, 43], 2) for rest in ([11, 12], [13, 14], [11, 30])]
    for seq in seqs:
        paged.engine.generate([seq])
    before = paged.engine.counters.prefix_tokens
    last = [sequence([*stem, *rest, 50], 2) for rest in ([11, 12], [13, 14], [11, 31])]
    for seq in last:
        paged.engine.generate([seq])
    assert [outcome(seq) for seq in [*seqs, *last]] == [expected(seq) for seq in [*seqs, *last]]
    assert paged.engine.counters.prefix_tokens - before == 6 + 6 + 5


def test_the_end_of_a_start_is_given_up_before_its_beginning() -> None:
    paged = PagedEngine(n_pages=31)
    stem = list(range(3, 43))  # ten pages
    paged.engine.generate([sequence([*stem, 45], 1)])
    # 20 pages are free; this takes all of them and four of the ten that were kept.
    paged.engine.generate([sequence([46] * 95, 1)])
    assert paged.engine.counters.evictions == 4
    before = paged.engine.counters.prefix_tokens
    paged.engine.generate([sequence([*stem, 44], 1)])
    assert paged.engine.counters.prefix_tokens - before == 6 * 4


def test_whoever_gave_way_comes_back_first(overlap: bool) -> None:
    paged = PagedEngine(n_pages=11, max_seqs=2, overlap=overlap)
    first, second, third = (sequence([5 + i] * 15, 20) for i in range(3))
    ended: list[Sequence] = []
    paged.engine.generate([first, second, third], ended.append)
    assert paged.engine.counters.preemptions > 0
    assert [s.prompt_ids[0] for s in ended] == [5, 6, 7]


def test_forgotten_pages_are_free() -> None:
    paged = PagedEngine(n_pages=31)
    paged.engine.generate([sequence(range(3, 43), 1)])
    assert paged.cache.kept_pages()
    paged.engine.forget_prefixes()
    assert not paged.cache.kept_pages()
    paged.check_empty()


def test_what_can_never_fit_is_told_at_once(overlap: bool) -> None:
    paged = PagedEngine(n_pages=11, overlap=overlap)
    fits, too_long = sequence(range(3, 33), 10), sequence(range(3, 34), 10)
    paged.engine.generate([too_long, fits])
    assert outcome(fits) == expected(fits)
    assert too_long.finish_reason == "error"
    assert "41 tokens need 11 pages of 4 tokens" in (too_long.error or "")
    assert "has 10" in (too_long.error or "")


def test_bad_logits_end_a_row_alone(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap)
    prompts = random_prompts(random.Random(2), 20, 20)
    prompts[7] = [5, BAD, 6]
    sequences = [sequence(prompt) for prompt in prompts]
    paged.engine.generate(sequences)
    assert [outcome(s) for s in sequences] == [expected(s) for s in sequences]
    assert "not finite at output token 0" in (sequences[7].error or "")
    paged.check_empty()


@pytest.mark.parametrize("seed", range(6))
def test_nothing_leaks_under_random_arrivals_and_cancellations(overlap: bool, seed: int) -> None:
    rng = random.Random(seed)
    paged = PagedEngine(n_pages=rng.choice([14, 30, 100]), max_tokens=12, overlap=overlap)
    prompts = random_prompts(rng, 120, 24)
    sequences, live = make(prompts, rng), []
    waiting = list(sequences)
    while waiting or live:
        for _ in range(rng.randrange(4)):
            if waiting:
                seq = waiting.pop()
                assert paged.engine.add(seq)
                live.append(seq)
        if live and rng.random() < 0.3:
            paged.engine.cancel(rng.choice(live))
        paged.engine.step()
        live = [s for s in live if s.finish_reason is None]
        paged.check_books()
    paged.engine.require_idle("look")
    paged.check_empty()
    cancelled = [s for s in sequences if s.finish_reason == "cancelled"]
    assert 5 < len(cancelled) < len(sequences) - 5
    for seq in sequences:
        if seq.finish_reason != "cancelled":
            assert outcome(seq) == expected(seq)


@pytest.mark.parametrize("error", [RuntimeError("made to fail"), MemoryError("too much")])
def test_a_failing_step_ends_only_the_guilty(overlap: bool, error: Exception) -> None:
    paged = PagedEngine(max_tokens=64, overlap=overlap)
    paged.runner.fail_when, paged.runner.error = {49}, error
    prompts = [[t for t in p if t != 49] + [3] for p in random_prompts(random.Random(3), 30, 24)]
    prompts[4] = [49, *prompts[4]]
    prompts[20] = [*prompts[20], 49]
    sequences = [sequence(prompt) for prompt in prompts]
    paged.engine.generate(sequences)
    for i, seq in enumerate(sequences):
        if i in (4, 20):
            assert seq.finish_reason == "error"
            assert seq.error == f"{type(error).__name__}: {error}"
        else:
            assert outcome(seq) == expected(seq)
    paged.check_empty()
    if isinstance(error, RuntimeError):  # a fault of one sequence leaves the others' steps large
        assert paged.engine.counters.steps < 60
    # The engine lives on, with its limits as before.
    paged.runner.fail_when = set()
    again = [sequence(prompt) for prompt in prompts]
    paged.engine.generate(again)
    assert [outcome(s) for s in again] == [expected(s) for s in again]
    assert paged.runner.longest_step > 32


def test_an_interrupt_leaves_no_page_behind(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap)
    paged.runner.fail_when, paged.runner.error = {49}, KeyboardInterrupt()
    stem = list(range(3, 23))
    sequences = [sequence([*stem, i], 4) for i in range(24, 30)]
    sequences.append(sequence([*stem, 49], 4))
    with pytest.raises(KeyboardInterrupt):
        paged.engine.generate(sequences)
    assert {s.finish_reason for s in sequences} <= {"cancelled", "stop", "length"}
    paged.runner.fail_when = set()
    after = [sequence([*stem, i], 4) for i in range(24, 30)]
    paged.engine.generate(after)  # from nothing: half-computed pages must not be found
    assert [outcome(s) for s in after] == [expected(s) for s in after]
    paged.check_empty()


def test_others_run_along(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap)
    other = sequence([5, 6, 7], 30)
    paged.engine.add(other)
    finished: list[Sequence] = []
    mine = [sequence([8, 9 + i], 5) for i in range(3)]
    paged.engine.generate(mine, finished.append)
    assert {id(s) for s in finished} == {id(s) for s in mine}
    if other.finish_reason is None:
        with pytest.raises(FlipfastError, match="empty the prefix cache with 1 requests running"):
            paged.engine.forget_prefixes()
    while other.finish_reason is None:
        paged.engine.step()
    assert outcome(other) == expected(other)


@pytest.mark.slow
def test_the_books_hold_over_ten_thousand_requests() -> None:
    rng = random.Random(5)
    paged = PagedEngine(n_pages=60, max_seqs=16, max_tokens=64, overlap=True)
    for _ in range(20):
        prompts = random_prompts(rng, 500, 24)
        sequences = [sequence(prompt, 2) for prompt in prompts]
        paged.engine.generate(sequences)
        assert [outcome(s) for s in sequences] == [expected(s) for s in sequences]
        paged.check_books()
    assert paged.cache.pool.peak_held <= 59
    paged.check_empty()


def test_threads_share_the_engines_steps(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap, max_tokens=64)
    prompts = random_prompts(random.Random(6), 90, 30)
    shares = [[sequence(p, 1 + i % 12) for i, p in enumerate(prompts[k::3])] for k in range(3)]
    reported: list[list[Sequence]] = [[], [], []]
    threads = [
        threading.Thread(target=paged.engine.generate, args=(share, seen.append))
        for share, seen in zip(shares, reported, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MINUTES)
    for share, seen in zip(shares, reported, strict=True):
        assert [outcome(s) for s in share] == [expected(s) for s in share]
        assert {id(s) for s in seen} == {id(s) for s in share}
        assert len(seen) == len(share)
    paged.engine.require_idle("look")
    paged.check_empty()


def test_nobody_waits_for_another_callers_end(overlap: bool) -> None:
    paged = PagedEngine(n_pages=100_000, overlap=overlap)
    paged.engine._loop.end_ids = frozenset()
    endless = [sequence([8, 9 + i], 100_000) for i in range(3)]
    caller = threading.Thread(target=paged.engine.generate, args=(endless,), daemon=True)
    caller.start()
    wait_for(lambda: all(s.output_ids for s in endless))
    mine = sequence([5, 6, 7], 5)
    paged.engine.generate([mine])
    assert (mine.finish_reason, len(mine.output_ids)) == ("length", 5)
    assert caller.is_alive()
    paged.engine.cancel_all()  # the other caller learns of it
    caller.join(MINUTES)
    assert not caller.is_alive()
    assert {s.finish_reason for s in endless} == {"cancelled"}
    paged.check_empty()


def test_the_lock_is_handed_on_in_order() -> None:
    lock, order = FairLock(), []

    def ask(name: int) -> None:
        with lock, lock:  # twice by one thread is no deadlock
            order.append(name)

    with lock:
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(5)]
        for i, thread in enumerate(threads):
            thread.start()
            wait_for(lambda i=i: len(lock._queue) > i)
    with lock:  # behind all of them
        order.append(5)
    for thread in threads:
        thread.join(MINUTES)
    assert order == [0, 1, 2, 3, 4, 5]


def test_an_interrupt_does_not_harm_others(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap)
    stem = list(range(3, 23))
    other = sequence([*stem, 30], 12)
    paged.engine.add(other)
    paged.engine.step()
    paged.runner.fail_when, paged.runner.error = {49}, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        paged.engine.generate([sequence([*stem, 31, 49], 4)])
    paged.runner.fail_when = set()
    after = [sequence([*stem, 31, 40 + i], 4) for i in range(5)]
    paged.engine.generate(after)
    while other.finish_reason is None:
        paged.engine.step()
    assert [outcome(s) for s in [*after, other]] == [expected(s) for s in [*after, other]]
    paged.engine.require_idle("look")
    paged.check_empty()
