"""Recorded steps: padding never shows. Here a recording is the call itself, run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_shapes import ladder, lengths, row_ladder
from tests.engine.toy_models import SMALL, assert_steady, load, prompts, run, save_random_model

PARAMS = SamplingParams(max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A seed of which no continuation here comes near to a tie.
    return save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", seed=14, **SMALL)


def recorded(model: LoadedModel) -> list[int]:
    """Switch recording on; the list takes the rows of each step that is replayed."""
    runner = model._runner
    assert runner is not None
    sizes: list[int] = []

    def record(call):
        def replay():
            hidden, tokens = call()
            sizes.append(len(tokens))
            return hidden, tokens

        return replay

    attend = runner._attention.attend

    def attend_known(query, cache, metadata, out, **options):
        n = int(metadata.cu_seqlens_q[-1])
        attend(query[:n], cache, metadata, out[:n], **options)
        return out

    if runner._attention.__module__.endswith(".cpu"):  # it refuses rows that belong to no sequence
        runner._attention.attend = attend_known
    runner._recorder = lambda: record
    runner.release()
    runner.allocate()
    sizes.clear()
    return sizes


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("n", [1, 3, 5, 13, 20])
def test_recorded_steps_give_what_plain_ones_give(
    folder: Path, n: int, deterministic: bool
) -> None:
    # Sequences of many lengths end at different steps, so that batches shrink on the way.
    ids = prompts([1 + 9 * i for i in range(n)], SMALL["vocab_size"])
    plain = load(folder, max_seqs=20, dtype="float32", deterministic=deterministic, drafting=False)
    model = load(folder, max_seqs=20, dtype="float32", deterministic=deterministic, drafting=False)
    expected = run(plain, ids, PARAMS)
    sizes = recorded(model)
    results = run(model, ids, PARAMS)
    assert [tokens for tokens, *_ in results] == [tokens for tokens, *_ in expected]
    if deterministic:
        assert results == expected
    else:  # padding changes torch's own products
        assert_steady(expected, SMALL["vocab_size"])
    assert len(sizes) > 5
    assert len(sizes) == model.engine.counters.steps  # those with prompts, too


def test_the_ladder_holds_every_batch() -> None:
    for max_seqs in (1, 2, 3, 7, 8, 20, 32, 100, 128, 200, 256, 512):
        sizes = ladder(max_seqs)
        assert sizes[0] == 1
        assert sizes[-1] == max_seqs
        assert sizes == sorted(set(sizes))
    assert lengths(1024) == [1024]
    assert lengths(40960) == [1024, 4096, 16384, 40960]
    for most in (1, 7, 32, 100, 512, 2048, 4608, 5000):
        sizes = row_ladder(most)
        assert sizes[-1] == most
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("n", [1, 5, 12])
def test_recorded_drafts_give_what_plain_ones_give(folder: Path, cheap_rows: None, n: int) -> None:
    """Short and long ones, right and wrong ones, alone and beside prompts: all are recorded."""
    ids = prompts([1 + 9 * i for i in range(n)], SMALL["vocab_size"])
    plain = load(folder, max_seqs=20, dtype="float32", drafting=False)
    expected = run(plain, ids, PARAMS)
    outputs = {tuple(prompt): tokens for prompt, (tokens, *_) in zip(ids, expected, strict=True)}

    def drafts(prompt: list[int]) -> tuple[list[int], ...]:
        right = outputs[tuple(prompt)]
        return ([prompt[-1], *right[: 2 + len(prompt) % 9], 5, *right[-4:]],)

    model = load(folder, max_seqs=20, dtype="float32")
    sizes = recorded(model)
    assert run(model, ids, PARAMS, drafts=drafts) == expected
    assert len(sizes) == model.engine.counters.steps
    assert model.engine.counters.accepted_tokens > n


def test_steps_that_score_run_plainly(folder: Path) -> None:
    """Those that score."""
    model = load(folder, max_seqs=4, dtype="float32")
    sizes = recorded(model)
    prompt = prompts([40], SMALL["vocab_size"])[0]
    model.engine.generate([Sequence.scoring(prompt, [3, 4])])
    assert model.engine.counters.steps == 1
    assert sizes == []


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("n", [1, 3, 20])
def test_cuda_graphs_give_what_eager_steps_give(folder: Path, n: int, deterministic: bool) -> None:
    ids = prompts([1 + 9 * i for i in range(n)], SMALL["vocab_size"])
    options = {"device": "cuda", "max_seqs": 20, "deterministic": deterministic}
    eager = run(load(folder, **options, cuda_graphs=False), ids, PARAMS)
    model = load(folder, **options)
    for _ in range(3):
        results = run(model, ids, PARAMS)
        assert [tokens for tokens, *_ in results] == [tokens for tokens, *_ in eager]
        if deterministic:
            assert results == eager
