"""Recorded decode steps: padding never shows. Here a recording is the call itself, run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flipfast.engine.cuda_graphs import ladder, lengths
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.sampling import SamplingParams
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
            logits = call()
            sizes.append(len(logits))
            return logits

        return replay

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
    assert set(sizes) <= set(ladder(20))


def test_the_ladder_holds_every_batch() -> None:
    for max_seqs in (1, 2, 3, 7, 8, 20, 32, 100, 128, 200, 256, 512):
        sizes = ladder(max_seqs)
        assert sizes[0] == 1
        assert sizes[-1] == max_seqs
        assert sizes == sorted(set(sizes))
    assert lengths(1024) == [1024]
    assert lengths(40960) == [1024, 4096, 16384, 40960]


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
