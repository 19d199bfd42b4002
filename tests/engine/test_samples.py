"""Sequences with the same prompt: one runs it, the others go on from its pages."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from flipfast.engine.model_runner import StepResult
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence, lead_samples
from flipfast.engine.step_plan import StepPlan
from flipfast.errors import FlipfastError
from flipfast.watchers.base import Verdict
from tests.engine.pages import BAD, VOCAB, PagedEngine, expected_output


@dataclass
class Opening:
    """Makes a sample's output differ from the others': it begins with this."""

    tokens: list[int]

    def start(self) -> list[int]:
        return self.tokens

    def see(self, token: int, n_left: int) -> Verdict | None:
        return None


def samples(prompt: list[int], n: int, max_new_tokens: int = 8) -> list[Sequence]:
    """The first begins like any sequence, the others each with a token of their own."""
    params = SamplingParams(max_new_tokens=max_new_tokens)
    return [Sequence(list(prompt), params, watcher=Opening([2 + k] * (k > 0))) for k in range(n)]


def outcome(seq: Sequence) -> tuple[list[int], str | None]:
    return seq.output_ids, seq.finish_reason


def expected(seq: Sequence) -> tuple[list[int], str]:
    start = seq.watcher.start() if seq.watcher is not None else []
    longest = seq.sampling.max_new_tokens - len(start)
    output, reason = expected_output(seq.prompt_ids + start, longest)
    return start + output, reason


class SharedWriteError(BaseException):
    """Not an Exception, which the engine would take for the failure of a step."""


def watch_pages(paged: PagedEngine) -> None:
    """Interrupt a step in which someone writes to a page that others hold, too.

    All pages but those that the prompt fills, which others may read from the first step on.
    """
    plain = paged.runner.run

    def run(plan: StepPlan) -> StepResult:
        written = [target for _, target in plan.copies]
        for chunk in plan.chunks:
            own = max(chunk.start // 4, chunk.sequence.n_prompt // 4)
            written += chunk.sequence.pages[own : -(-(chunk.start + chunk.n_rows) // 4)]
        if {paged.cache.pool.holders(page) for page in written} - {1}:
            raise SharedWriteError
        return plain(plan)

    paged.runner.run = run  # type: ignore[method-assign]


@pytest.fixture(params=[True, False], ids=["prefixes", "no prefixes"])
def prefix_cache(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("n_prompt", [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13])
@pytest.mark.parametrize("max_new_tokens", [1, 3])  # the leader may end before the others come
def test_a_prompt_runs_once(overlap: bool, n_prompt: int, max_new_tokens: int) -> None:
    paged = PagedEngine(overlap=overlap)
    paged.engine._loop.end_ids = frozenset()
    watch_pages(paged)
    params = SamplingParams(max_new_tokens=max_new_tokens)
    group = [Sequence(list(range(3, 3 + n_prompt)), params, seed=k) for k in range(5)]
    paged.engine.generate(group)
    assert [len(s.output_ids) for s in group] == [max_new_tokens] * 5
    assert len({tuple(s.output_ids) for s in group}) == 1
    counters = paged.engine.counters
    assert counters.computed_tokens == n_prompt + 4 + 5 * (max_new_tokens - 1)
    assert counters.steps == 1 + max_new_tokens
    assert counters.prompt_tokens == 5 * n_prompt
    assert counters.prefix_tokens == 4 * (n_prompt - 1)
    assert counters.copied_pages == (4 if (n_prompt - 1) % 4 else 0)
    paged.check_empty()


@pytest.mark.parametrize("max_tokens", [3, 4, 7])
def test_a_prompt_in_chunks_runs_once(overlap: bool, max_tokens: int) -> None:
    paged = PagedEngine(overlap=overlap, max_seqs=3, max_tokens=max_tokens)
    watch_pages(paged)
    group = samples([5, 6, 7, 8, 9, 10, 11, 12, 13, 14], 5)
    paged.engine.generate(group)
    assert [outcome(s) for s in group] == [expected(s) for s in group]
    assert paged.engine.counters.copied_pages == 4


def test_without_the_cache_each_runs_its_own(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap, prefix_cache=False, max_tokens=100)
    group = samples([5, 6, 7, 8, 9, 10], 4, max_new_tokens=3)
    paged.engine.generate(group)
    assert [outcome(s) for s in group] == [expected(s) for s in group]
    assert paged.engine.counters.copied_pages == paged.engine.counters.prefix_tokens == 0


def test_samples_go_on_apart(overlap: bool, prefix_cache: bool) -> None:
    paged = PagedEngine(overlap=overlap, prefix_cache=prefix_cache, max_seqs=6)
    watch_pages(paged)
    groups = [samples(list(range(3, 4 + n)), 6, max_new_tokens=20) for n in range(16)]
    everyone = [s for group in groups for s in group]
    paged.engine.generate(everyone)
    assert [outcome(s) for s in everyone] == [expected(s) for s in everyone]
    assert len({tuple(s.output_ids) for s in groups[5]}) == 6
    paged.check_empty()


@pytest.mark.usefixtures("cheap_rows")
@pytest.mark.parametrize("drafting", [False, True])
def test_drafts_go_on_from_a_leaders_pages(overlap: bool, drafting: bool) -> None:
    paged = PagedEngine(overlap=overlap, drafting=drafting)
    watch_pages(paged)
    groups = [samples(list(range(3, 13 + n)), 4, max_new_tokens=20) for n in range(6)]
    for seq in (everyone := [s for group in groups for s in group]):
        seq.drafts = ([-1, *expected(seq)[0]],)
    paged.engine.generate(everyone)
    assert [outcome(s) for s in everyone] == [expected(s) for s in everyone]
    assert (paged.engine.counters.accepted_tokens > 50) == drafting
    paged.check_empty()


def test_followers_come_before_other_prompts() -> None:
    paged = PagedEngine(max_seqs=8, max_tokens=400)
    groups = [samples([3 + n, *range(3, 44)], 8, max_new_tokens=6) for n in range(5)]
    everyone = [s for group in groups for s in group]
    paged.engine.generate(everyone)
    assert [outcome(s) for s in everyone] == [expected(s) for s in everyone]
    assert paged.engine.counters.copied_pages == 5 * 7
    assert paged.cache.pool.peak_held < 3 * 11 + 8 * 2  # not all five prompts at a time


def test_followers_of_several_leaders_keep_their_order() -> None:
    paged = PagedEngine()
    groups = [samples([5, 6, 7 + g], 3) for g in range(2)]
    for group in groups:
        lead_samples(group)
        for seq in group:
            paged.engine.add(seq)
    paged.engine.step()
    assert paged.scheduler.running == [groups[0][0], groups[1][0]]
    assert list(paged.scheduler.waiting) == [*groups[0][1:], *groups[1][1:]]


def test_a_page_that_the_step_is_yet_to_fill_is_not_copied(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap)
    group = samples([5, 6, 7, 8, 9, 10], 2)
    lead_samples(group)
    everyone = [*group, *samples([5, 6, 7, 8, 9, 10], 1)]  # the last one is from another call
    for seq in everyone:
        paged.engine.add(seq)
    for _ in range(20):
        paged.engine.step()
    assert [outcome(s) for s in everyone] == [expected(s) for s in everyone]
    assert paged.engine.counters.copied_pages == 1


def test_the_rest_of_a_prompt_is_looked_up_where_it_stands() -> None:
    paged = PagedEngine()
    paged.engine.generate(samples([5, 6, 7, 8, 9, 10], 2))
    (longer,) = samples([5, 6, 7, 8, 21, 22, 23, 24, 9, 10], 1)
    before = paged.engine.counters.prefix_tokens
    paged.engine.generate([longer])
    assert outcome(longer) == expected(longer)
    assert paged.engine.counters.prefix_tokens - before == 4


def test_a_page_may_be_copied_and_given_up_in_one_step() -> None:
    paged = PagedEngine(n_pages=6)
    group = samples([5, 6, 7, 8, 9, 10], 2, max_new_tokens=2)  # keeps two pages
    paged.engine.generate(group)
    paged.engine.generate(samples(list(range(11, 20)), 1, max_new_tokens=1))  # and two more
    kept = paged.cache.kept_pages()
    (again,) = samples([5, 6, 7, 8, 9, 10], 1, max_new_tokens=2)
    (other,) = samples([11, 12, 13], 1, max_new_tokens=1)
    plain, copied = paged.runner.run, []

    def run(plan: StepPlan) -> StepResult:
        copied.extend(source for source, _ in plan.copies if source in other.pages)
        return plain(plan)

    paged.runner.run = run  # type: ignore[method-assign]
    paged.engine.generate([again, other])
    assert len(kept & set(copied)) == 1
    assert [outcome(s) for s in (again, other)] == [expected(s) for s in (again, other)]


def test_samples_of_another_call_have_leaders_of_their_own() -> None:
    first, second = samples([5, 6, 7], 3), samples([5, 6, 7], 3)
    lead_samples(first)
    lead_samples([*second, *samples([5, 6], 1)])
    assert [s.leader for s in first] == [None, first[0], first[0]]
    assert [s.leader for s in second] == [None, second[0], second[0]]


@pytest.mark.parametrize("step", range(8))
@pytest.mark.parametrize("how", ["cancelled", "preempted", "step failed"])
def test_followers_outlive_their_leader(
    overlap: bool, prefix_cache: bool, step: int, how: str
) -> None:
    # A prompt takes three steps; then the others of its group come, and a second group.
    paged = PagedEngine(
        overlap=overlap, prefix_cache=prefix_cache, max_seqs=4, max_tokens=4, n_pages=60
    )
    watch_pages(paged)
    groups = [samples([3 + g, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], 4) for g in range(2)]
    everyone = [s for group in groups for s in group]
    for group in groups:
        lead_samples(group)
    for seq in everyone:
        assert paged.engine.add(seq)
    leader = groups[0][0]
    for _ in range(step):
        paged.engine.step()
        paged.check_books()
    if how == "cancelled":
        paged.engine.cancel(leader)
    elif how == "preempted" and leader.slot >= 0:
        paged.engine._loop.take_in()
        paged.scheduler._send_back(leader)
    elif how == "step failed":
        failing, paged.runner.run = paged.runner.run, raise_memory_error  # type: ignore
        paged.engine.step()
        paged.runner.run = failing  # type: ignore[method-assign]
    for _ in range(200):
        paged.engine.step()
        paged.check_books()
    assert None not in {s.finish_reason for s in everyone}
    lost = [s for s in everyone if s.finish_reason in ("cancelled", "error")]
    assert len(lost) <= (how != "preempted")  # a step that fails ends the one that was alone in it
    assert [outcome(s) for s in everyone if s not in lost] == [
        expected(s) for s in everyone if s not in lost
    ]
    assert (paged.engine.counters.copied_pages > 0) == prefix_cache
    paged.check_empty()


def raise_memory_error(plan: object) -> None:
    raise MemoryError("made to fail")


def test_a_prompt_that_fails_fails_for_each_of_its_samples(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap)
    paged.runner.fail_when = {49}
    bad = [samples([5, BAD, 6], 3), samples([5, 49, 6], 3)]
    good = samples([5, 6, 7, 8, 9, 10], 3)
    everyone = [*bad[0], *good, *bad[1]]
    paged.engine.generate(everyone)
    assert [outcome(s) for s in good] == [expected(s) for s in good]
    assert {s.finish_reason for group in bad for s in group} == {"error"}
    assert all(s.error == "RuntimeError: made to fail" for s in bad[1])
    paged.check_empty()


@pytest.mark.parametrize("seed", range(6))
def test_nothing_leaks_under_random_arrivals_and_cancellations(
    overlap: bool, prefix_cache: bool, seed: int
) -> None:
    rng = random.Random(seed)
    paged = PagedEngine(
        n_pages=rng.choice([14, 30, 100]),
        max_tokens=rng.choice([5, 12, 64]),
        max_seqs=rng.choice([3, 8]),
        overlap=overlap,
        prefix_cache=prefix_cache,
        drafting=rng.random() < 0.5,
    )
    watch_pages(paged)
    stem = [rng.randrange(3, VOCAB) for _ in range(20)]
    everyone: list[Sequence] = []
    for _ in range(30):
        prompt = [*stem[: rng.randrange(20)], rng.randrange(3, VOCAB)]
        group = samples(prompt, rng.choice([1, 2, 4, 9]), rng.randrange(2, 14))
        lead_samples(group)
        everyone += group
    live: list[Sequence] = []
    waiting = everyone[::-1]
    while waiting or live:
        for _ in range(rng.randrange(5)):
            if waiting:
                live.append(waiting.pop())
                assert paged.engine.add(live[-1])
        if live and rng.random() < 0.15:
            paged.engine.cancel(rng.choice(live))
        paged.engine.step()
        paged.check_books()
        live = [s for s in live if s.finish_reason is None]
    for seq in everyone:
        if seq.finish_reason != "cancelled":
            assert outcome(seq) == expected(seq)
    assert 5 < sum(s.finish_reason == "cancelled" for s in everyone) < len(everyone) - 20
    assert (paged.engine.counters.copied_pages > 10) == prefix_cache
    paged.check_empty()


def test_whoever_waits_for_a_leader_counts_and_can_be_cancelled(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap)
    group = samples(list(range(3, 23)), 4)
    lead_samples(group)
    for seq in group:
        paged.engine.add(seq)
    paged.engine.step()
    with pytest.raises(FlipfastError, match="1 requests running and 3 waiting"):
        paged.engine.require_idle("look")
    paged.engine.cancel(group[2])
    assert group[2].finish_reason == "cancelled"
    with pytest.raises(FlipfastError, match="1 requests running and 2 waiting"):
        paged.engine.require_idle("look")
    paged.engine.cancel_all()
    assert {s.finish_reason for s in group} == {"cancelled"}
    paged.check_empty()
