"""Drafts change how many steps an output takes, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from flipfast.engine import drafting
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_costs import Prices, StepCosts
from tests.engine.pages import PagedEngine, expected_output, random_prompts, sequence
from tests.engine.toy_models import END_IDS, SMALL, WIDE, load, prompts, run, save_random_model

START = -1
(END,) = END_IDS
LENGTHS = [1, 31, 32, 33, 64, 90, 130, 7, 50, 200]
Drafts = Callable[[list[int]], tuple[list[int], ...]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("wide"), "Qwen3Config", **WIDE)


@pytest.fixture(scope="module")
def prompt_ids() -> list[list[int]]:
    return prompts(LENGTHS, WIDE["vocab_size"], stem=40)


@pytest.fixture(
    scope="module",
    params=[
        ("cpu", "float32"),
        ("cpu", "bfloat16"),
        pytest.param(("cuda", "bfloat16"), marks=pytest.mark.gpu),
    ],
    ids="-".join,
)
def place(request: pytest.FixtureRequest) -> dict[str, str]:
    """Device and dtype, as options of the engine."""
    device, dtype = request.param
    return {"device": device, "dtype": dtype}


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["greedy", "sampled"])
def params(request: pytest.FixtureRequest) -> SamplingParams:
    return SamplingParams(max_new_tokens=24, temperature=request.param, top_p=0.95)


@pytest.fixture(scope="module")
def undrafted(
    folder: Path, place: dict[str, str], prompt_ids: list[list[int]], params: SamplingParams
) -> list[Any]:
    model = load(folder, **place, drafting=False)
    results = run(model, prompt_ids, params)
    assert model.engine.counters.drafted_tokens == 0
    return results


def poisons(prompt_ids: list[list[int]], outputs: list[list[int]]) -> dict[str, Drafts]:
    """Ways to draft: from the output itself, with holes in it, from another's, at random, not."""
    own = {tuple(ids): output for ids, output in zip(prompt_ids, outputs, strict=True)}
    others = dict(zip(own, [*outputs[1:], outputs[0]], strict=True))
    rng = random.Random(0)

    def holed(ids: list[int]) -> tuple[list[int], ...]:
        right = own[tuple(ids)]
        return ([START, *(t if rng.random() < 0.7 else 5 for t in right)], right)

    return {
        "true": lambda ids: ([START, *own[tuple(ids)]],),
        "holes": holed,
        "another's": lambda ids: ([START, *others[tuple(ids)]],),
        "random": lambda ids: ([START, *(rng.randrange(WIDE["vocab_size"]) for _ in range(40))],),
        "none": lambda ids: (),
    }


@pytest.fixture
def free_rows(cheap_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the engine try every draft, however unlikely it is."""
    monkeypatch.setattr(drafting, "_LEAST_CHANCE", 0.0)


@pytest.mark.usefixtures("free_rows")
@pytest.mark.parametrize("which", ["true", "holes", "another's", "random", "none"])
def test_no_draft_moves_a_bit(
    folder: Path,
    place: dict[str, str],
    prompt_ids: list[list[int]],
    params: SamplingParams,
    undrafted: list[Any],
    which: str,
) -> None:
    drafts = poisons(prompt_ids, [tokens for tokens, *_ in undrafted])[which]
    model = load(folder, **place, max_tokens=300)
    assert run(model, prompt_ids, params, drafts=drafts) == undrafted
    counters = model.engine.counters
    if which == "true":
        assert counters.accepted_tokens > 100
        assert counters.sampling_passes < counters.output_tokens / 2
    if which in ("another's", "random"):
        assert counters.drafted_tokens > counters.accepted_tokens + 30


@pytest.mark.slow
@pytest.mark.usefixtures("free_rows", "batch_dependent_products")
def test_products_that_depend_on_the_batch_are_noticed(
    folder: Path, place: dict[str, str], prompt_ids: list[list[int]]
) -> None:
    """That the check above can fail."""
    ids, params = prompt_ids[:4], SamplingParams(max_new_tokens=12)
    plain = run(load(folder, **place, drafting=False), ids, params)
    assert run(load(folder, **place, drafting=False), ids, params) == plain
    drafts = poisons(ids, [tokens for tokens, *_ in plain])["true"]
    assert run(load(folder, **place), ids, params, drafts=drafts) != plain


@pytest.mark.slow
@pytest.mark.usefixtures("cheap_rows")
def test_a_perfect_inversion_costs_one_pass(folder: Path, prompt_ids: list[list[int]]) -> None:
    params = SamplingParams(max_new_tokens=20)
    outputs = [tokens for tokens, *_ in run(load(folder, drafting=False), prompt_ids, params)]
    model = load(folder)
    for ids, output in zip(prompt_ids, outputs, strict=True):
        before = model.engine.counters
        run(model, [ids], params, drafts=lambda _, output=output: ([START, *output],))
    # Later ones: the first have taught the engine that such drafts are right.
    assert model.engine.counters.steps - before.steps == 1


def sampled(folder: Path, seeds: range, drafts: tuple[list[int], ...], **options: Any) -> Any:
    """Outputs of one prompt under many seeds, and the engine."""
    model = load(folder, **options)
    params = SamplingParams(max_new_tokens=3, temperature=1.0)
    sequences = [Sequence([3, 2], params, seed, drafts) for seed in seeds]
    model.engine.generate(sequences)
    return [tuple(s.output_ids) for s in sequences], model


@pytest.mark.slow
@pytest.mark.usefixtures("free_rows")
def test_drafts_leave_the_distribution_as_it_is(tmp_path: Path) -> None:
    """Pearson's chi-square over all outputs of a small vocabulary, against the exact chances."""
    shape = {**SMALL, "vocab_size": 4, "initializer_range": 0.1, "eos_token_id": None}
    folder = save_random_model(tmp_path, "Qwen3Config", **shape)
    exact = output_chances(folder, [3, 2], 3)
    n = 6000
    likely = list(max(exact, key=exact.__getitem__))
    outputs, model = sampled(folder, range(n), ([START, *likely],), max_seqs=64)
    assert model.engine.counters.accepted_tokens > n / 10
    assert model.engine.counters.accepted_tokens < model.engine.counters.drafted_tokens
    counts = Counter(outputs)
    statistic = sum((counts[o] - n * p) ** 2 / (n * p) for o, p in exact.items())
    assert len(exact) == 40
    assert statistic < 72.1  # 0.1 % of 39 degrees of freedom lie above
    assert outputs[:500] == sampled(folder, range(500), (), drafting=False)[0]


def output_chances(folder: Path, prompt: list[int], n: int) -> dict[tuple[int, ...], float]:
    """The chance of every output of at most n tokens, by transformers in float64."""
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder).double()
    ended, running = {}, {(): 1.0}
    for _ in range(n):
        ids = torch.tensor([[*prompt, *output] for output in running])
        with torch.inference_mode():
            steps = reference(ids).logits[:, -1].softmax(-1).tolist()
        chances = list(zip(running.items(), steps, strict=True))
        ended |= {output: chance * row[END] for (output, chance), row in chances}
        running = {
            (*output, token): chance * p
            for (output, chance), row in chances
            for token, p in enumerate(row)
            if token != END
        }
    return ended | running


@pytest.mark.usefixtures("free_rows")
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_drafts_among_preemptions_and_cancellations(seed: int, overlap: bool) -> None:
    rng = random.Random(seed)
    # Few pages, so that sequences also give way by themselves.
    parts = PagedEngine(n_pages=rng.choice([30, 200]), overlap=overlap, drafting=True)
    expected, sequences = {}, []
    for prompt in random_prompts(rng, 40, 30):
        one = sequence(prompt, rng.randrange(1, 14))
        output, reason = expected_output(prompt, one.sampling.max_new_tokens)
        guess = [t if rng.random() < 0.8 else 7 for t in output]
        one.drafts = rng.choice([(), ([START, *guess, 1],), (output, guess), ([],), ([START],)])
        expected[id(one)] = (output, reason)
        sequences.append(one)
        parts.engine.add(one)
    while not parts.scheduler.idle:
        if parts.scheduler.running and rng.random() < 0.1:
            parts.scheduler._send_back(rng.choice(parts.scheduler.running))
        if rng.random() < 0.05:
            parts.engine.cancel(rng.choice(sequences))
        parts.engine.step()
        parts.check_books()
    parts.check_empty()
    assert parts.engine.counters.accepted_tokens > 20
    done = [s for s in sequences if s.finish_reason != "cancelled"]
    assert len(done) > 15
    assert all((s.output_ids, s.finish_reason) == expected[id(s)] for s in done)


def test_steps_that_fail_with_drafts_are_undone() -> None:
    parts = PagedEngine(drafting=True)
    prompts_ = [[3, 4, 5], [6, 7, 8, 9]]
    outputs = [expected_output(ids, 12) for ids in prompts_]
    sequences = [sequence(ids, 12) for ids in prompts_]
    for one, (output, _) in zip(sequences, outputs, strict=True):
        one.drafts = ([START, *output[:2], 7, *output[3:]],)
        parts.engine.add(one)
    parts.engine.step()
    parts.runner.fail_when, parts.runner.error = {3}, MemoryError("made to fail")
    parts.engine.step()
    parts.check_books()
    parts.runner.fail_when = set()
    while not parts.scheduler.idle:
        parts.engine.step()
    parts.check_empty()
    assert [(s.output_ids, s.finish_reason) for s in sequences] == outputs


@pytest.mark.parametrize("n_sequences", [1, 4, 32])
def test_costs_are_found_in_what_steps_took(n_sequences: int) -> None:
    rng = random.Random(0)
    costs = StepCosts()
    assert costs.prices() is None
    for _ in range(200):
        n, rows, drafted = rng.randrange(1, 33), rng.randrange(33, 900), rng.random() < 0.5
        seconds = (2e-3 + 3e-4 * n + 7e-5 * rows + 1e-3 * drafted) * rng.uniform(0.98, 1.02)
        costs.observe(n, rows, drafted, seconds if rng.random() < 0.98 else 1.0)
    prices = costs.prices()
    assert prices is not None
    assert prices.row == pytest.approx(7e-5, rel=0.2)
    expected = 7e-5 / (2e-3 / n_sequences + 3e-4 + 7e-5)
    assert prices.break_even(n_sequences) == pytest.approx(expected, rel=0.2)


def test_a_device_without_room_gets_no_drafts(
    folder: Path, prompt_ids: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    saturated = Prices(step=0.0, sequence=0.0, row=1e-3, drafted=0.0)
    monkeypatch.setattr(StepCosts, "prices", lambda self: saturated)
    params = SamplingParams(max_new_tokens=20)
    outputs = [tokens for tokens, *_ in run(load(folder, drafting=False), prompt_ids, params)]
    model = load(folder)
    run(model, prompt_ids, params, drafts=poisons(prompt_ids, outputs)["true"])
    assert model.engine.counters.drafted_tokens == 0


@pytest.mark.usefixtures("free_rows")
def test_a_draft_that_went_wrong_is_followed_by_a_short_one() -> None:
    parts = PagedEngine(n_pages=300, max_tokens=200, drafting=True)
    prompt = next(ids for ids in random_prompts(random.Random(1), 200, 20) if lasts(ids, 60))
    output, _ = expected_output(prompt, 60)
    one = sequence(prompt, 60)
    one.drafts = ([START, *output[:3], 7, *output[4:]],)
    lengths = []
    parts.engine.add(one)
    while not parts.scheduler.idle:
        before = parts.engine.counters
        parts.engine.step()
        lengths.append(parts.engine.counters.drafted_tokens - before.drafted_tokens)
    assert one.output_ids == output
    assert lengths[0] > 10
    assert 0 < lengths[1] <= 2 * 3 + 1
    assert max(lengths[2:]) > 2 * 3 + 1  # the next ones were right


def lasts(prompt: list[int], n: int) -> bool:
    return expected_output(prompt, n)[1] == "length"
