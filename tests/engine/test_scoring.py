"""How likely given tokens are: the books over a make-believe model, bits over a real one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from tests.engine.pages import (
    BAD,
    VOCAB,
    PagedEngine,
    expected_output,
    next_score,
    next_token,
    random_prompts,
    sequence,
)
from tests.engine.toy_models import SMALL, WIDE, load, prompts, save_random_model

Case = tuple[list[int], list[int]]
Scores = tuple[list[float], list[int], "str | None"]


def scores_of(seq: Sequence) -> Scores:
    return seq.log_probs, seq.best_ids, seq.finish_reason


def expected(seq: Sequence) -> Scores:
    """What the make-believe model has to give."""
    whole = [*seq.prompt_ids, seq.targets[-1]]
    ends = range(seq.n_prompt - len(seq.targets) + 1, len(whole))
    found = [next_score(whole[:end], whole[end]) for end in ends]
    return found, [next_token(whole[:end]) for end in ends], "stop"


def scoring_sequences(rng: random.Random, n: int) -> list[Sequence]:
    cases = [
        (ids, [rng.randrange(3, VOCAB) for _ in range(rng.randrange(1, 14))])
        for ids in random_prompts(rng, n, 24)
    ]
    return [Sequence.scoring(*case) for case in [*cases, *cases[:3]]]  # some of them twice


def check(paged: PagedEngine, sequences: list[Sequence]) -> None:
    for seq in sequences:
        if seq.targets:
            assert scores_of(seq) == expected(seq)
        else:
            wanted = expected_output(seq.prompt_ids, seq.sampling.max_new_tokens)
            assert (seq.output_ids, seq.finish_reason) == wanted
    paged.check_empty()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_pages", [12, 40, 400])  # far too few, few, plenty
@pytest.mark.parametrize("drafting", [False, True])
def test_scores_are_their_own_prompts(
    overlap: bool, n_pages: int, seed: int, drafting: bool
) -> None:
    """Among sequences that are continued, in chunks, with shared starts and preemptions."""
    rng = random.Random(seed)
    paged = PagedEngine(
        n_pages=n_pages, max_seqs=6, max_tokens=16, overlap=overlap, drafting=drafting
    )
    sequences = [sequence(ids, rng.randrange(1, 20)) for ids in random_prompts(rng, 30, 24)]
    sequences += scoring_sequences(rng, 30)
    rng.shuffle(sequences)
    paged.engine.generate(sequences)
    check(paged, sequences)
    counters = paged.engine.counters
    n_targets = sum(len(s.targets) for s in sequences)
    assert counters.scored_tokens == n_targets or (n_pages < 400 and counters.preemptions > 0)
    assert counters.preemptions > 0 or n_pages > 12
    assert counters.prefix_tokens > 0


def test_rows_to_score_are_never_taken_from_the_cache() -> None:
    paged = PagedEngine()
    ids = list(range(3, 19))  # four pages
    for n_targets in (4, 5, 13):
        paged.engine.generate([sequence(ids, 1)])
        before = paged.engine.counters
        seq = Sequence.scoring(ids[: 17 - n_targets], [*ids[17 - n_targets :], 20])
        assert seq.prompt_ids == ids
        paged.engine.generate([seq])
        after = paged.engine.counters
        assert after.prefix_tokens - before.prefix_tokens == 16 - n_targets
        assert after.computed_tokens - before.computed_tokens == n_targets
        assert scores_of(seq) == expected(seq)


def test_a_prompt_that_was_scored_serves_others() -> None:
    paged = PagedEngine()
    ids = list(range(3, 20))
    paged.engine.generate([Sequence.scoring(ids[:8], ids[8:])])
    seq = sequence(ids, 3)
    paged.engine.generate([seq])
    assert paged.engine.counters.prefix_tokens == 16
    check(paged, [seq])


def test_scoring_takes_one_pass_and_no_token_more() -> None:
    paged = PagedEngine(n_pages=5, max_tokens=64)  # four pages to use
    seq = Sequence.scoring(list(range(3, 11)), list(range(20, 29)))
    paged.engine.generate([seq])
    counters = paged.engine.counters
    assert (counters.steps, counters.computed_tokens, counters.output_tokens) == (1, 16, 0)
    assert scores_of(seq) == expected(seq)
    longer = Sequence.scoring(list(range(3, 11)), list(range(20, 30)))
    paged.engine.generate([longer])
    assert longer.finish_reason == "error"
    assert "17 tokens need 5 pages" in str(longer.error)


def test_bad_logits_end_a_sequence_with_an_error(overlap: bool) -> None:
    paged = PagedEngine(max_tokens=8, overlap=overlap)
    good = scoring_sequences(random.Random(0), 5)
    bad = Sequence.scoring([3, 4], [*range(5, 15), BAD, *range(16, 30)])
    paged.engine.generate([*good[:2], bad, *good[2:]])
    assert bad.finish_reason == "error"
    assert "not finite at target token 11;" in str(bad.error)
    check(paged, good)


def test_a_failed_step_is_tried_again_in_smaller_ones(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap, max_tokens=64)
    sequences = scoring_sequences(random.Random(0), 8)
    guilty = Sequence.scoring([3, 49], [5])
    paged.runner.fail_when = {49}
    sequences = [s for s in sequences if 49 not in s.prompt_ids]
    paged.engine.generate([*sequences, guilty])
    assert (guilty.finish_reason, guilty.error) == ("error", "RuntimeError: made to fail")
    check(paged, sequences)


def test_a_cancelled_sequence_gives_its_pages_back(overlap: bool) -> None:
    paged = PagedEngine(overlap=overlap, max_tokens=4)
    seq, other = Sequence.scoring(list(range(3, 13)), [5, 6, 7]), sequence([3, 4, 5], 4)
    paged.engine.add(seq)
    paged.engine.add(other)
    paged.engine.step()
    paged.engine.cancel(seq)
    while other.finish_reason is None:
        paged.engine.step()
    assert seq.finish_reason == "cancelled"
    check(paged, [other])


# A real model.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("wide"), "Qwen3Config", **WIDE)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Prompts with a common start, and targets of some lengths."""
    lengths = [2, 33, 64, 90, 130, 60]
    ids = prompts(lengths, WIDE["vocab_size"], stem=50)
    rng = random.Random(0)
    cuts = [rng.randrange(1, min(len(row), 48)) for row in ids]
    return [(row[:-cut], row[-cut:]) for row, cut in zip(ids, cuts, strict=True)]


@pytest.fixture(
    scope="module",
    params=[
        ("cpu", "float32"),
        ("cpu", "bfloat16"),
        pytest.param(("cuda", "float32"), marks=pytest.mark.gpu),
        pytest.param(("cuda", "bfloat16"), marks=pytest.mark.gpu),
    ],
    ids="-".join,
)
def place(request: pytest.FixtureRequest) -> dict[str, str]:
    device, dtype = request.param
    return {"device": device, "dtype": dtype}


@pytest.fixture(scope="module")
def alone(folder: Path, place: dict[str, str], cases: list[Case]) -> list[Scores]:
    model = load(folder, **place, prefix_cache=False, max_seqs=64, max_tokens=4096)
    return [score(model, [case])[0] for case in cases]


def score(
    model: LoadedModel, cases: list[Case], disturb: Callable[[], None] = lambda: None
) -> list[Scores]:
    """Scores of the cases, each beside a prompt that is continued."""
    sequences = [Sequence.scoring(*case) for case in cases]
    others = [Sequence(case[0], SamplingParams(max_new_tokens=3)) for case in cases]
    for seq, other in zip(sequences, others, strict=True):
        model.engine.add(seq)
        model.engine.add(other)
    while any(seq.finish_reason is None for seq in (*sequences, *others)):
        disturb()
        model.engine.step()
    return [scores_of(seq) for seq in sequences]


def shuffled(cases: list[Case]) -> list[int]:
    order = [i for i in range(len(cases)) for _ in range(2)]
    random.Random(0).shuffle(order)
    return order


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "least_hits"),
    [
        ({"max_seqs": 64, "max_tokens": 4096, "prefix_cache": False}, 0),
        ({"max_seqs": 32}, 300),  # the head takes its rows 32 at a time
        ({"max_seqs": 5, "max_tokens": 17}, 300),  # chunks that end anywhere
    ],
    ids=["batch", "prefixes", "chunks"],
)
def test_bits_do_not_depend_on_the_company(
    folder: Path,
    place: dict[str, str],
    cases: list[Case],
    alone: list[Scores],
    options: dict[str, Any],
    least_hits: int,
) -> None:
    model, order = load(folder, **place, **options), shuffled(cases)
    for _ in range(2):  # the second time with what the first has left in the cache
        assert score(model, [cases[i] for i in order]) == [alone[i] for i in order]
    assert model.engine.counters.prefix_tokens >= least_hits


def test_bits_survive_preemption(
    folder: Path, place: dict[str, str], cases: list[Case], alone: list[Scores]
) -> None:
    model, order = load(folder, **place, max_tokens=100), shuffled(cases)
    scheduler, rng = model.engine._scheduler, random.Random(0)

    def send_someone_back() -> None:
        if scheduler.running and rng.random() < 0.4:
            scheduler._send_back(rng.choice(scheduler.running))

    found = score(model, [cases[i] for i in order], send_someone_back)
    assert found == [alone[i] for i in order]


@pytest.mark.slow
@pytest.mark.usefixtures("batch_dependent_products")
def test_products_that_depend_on_the_batch_are_noticed(
    folder: Path, place: dict[str, str], cases: list[Case]
) -> None:
    """That the checks above can fail."""
    few = cases[:3]
    model = load(folder, **place, prefix_cache=False, drafting=False)
    by_itself = [score(model, [case])[0] for case in few]
    assert [score(model, [case])[0] for case in few] == by_itself  # by nothing but the batch
    assert score(model, few) != by_itself


@pytest.mark.parametrize("family", ["Qwen3Config", "Gemma3TextConfig"])
def test_log_probabilities_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    extra = {"final_logit_softcapping": 20.0} if family.startswith("Gemma3") else {}
    save_random_model(tmp_path, family, **SMALL, **extra)
    ids = prompts([2, 40, 77], SMALL["vocab_size"])
    cases = [(row[:-cut], row[-cut:]) for row, cut in zip(ids, (1, 39, 20), strict=True)]
    found = score(load(tmp_path, dtype="float32", max_tokens=64, max_seqs=9), cases)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    for (prompt, target), (log_probs, best, _) in zip(cases, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1).gather(-1, torch.tensor(target)[:, None])[:, 0]
        assert log_probs == pytest.approx(wanted.tolist(), rel=1e-5, abs=1e-5)
        first, second = logits.topk(2).values.unbind(-1)
        assert (first - second).min() > 1e-3  # no near tie
        assert best == logits.argmax(-1).tolist()
        assert all(value < 0 and math.isfinite(value) for value in log_probs)
