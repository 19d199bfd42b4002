"""What every backend must do, run over all that are found."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flipfast.backends import (
    Inversion,
    InversionRequest,
    Inverter,
    LikelihoodRequest,
    SamplingParams,
    available_backends,
    load_inverter,
)
from flipfast.backends.transformers import TransformersInverter
from flipfast.errors import ConfigError, MissingDependencyError
from tests.backends.completions_server import completions_server
from tests.backends.conftest import assert_steady
from tests.backends.vllm_stand_in import vllm_stand_in

LENGTHS = [9, 40, 1, 23, 9, 64, 17]
GREEDY = SamplingParams(max_new_tokens=12)
SAMPLED = SamplingParams(max_new_tokens=12, temperature=1.0, top_p=0.95, top_k=100)


@pytest.fixture(scope="module", params=available_backends())
def inverter(
    request: pytest.FixtureRequest, model_folder: Callable[[str], Path]
) -> Iterator[Inverter]:
    """Each backend with the same model; behind those that run on another engine is the native."""
    folder = str(model_folder("qwen3"))
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "batch_size": 4}
    with ExitStack() as stack:
        backend = request.param
        if backend == "vllm":
            stack.enter_context(vllm_stand_in())
        elif backend == "openai_http":
            engine = stack.enter_context(load_inverter("native", folder, **options))
            backend = stack.enter_context(completions_server(engine, folder)).address
            options = {"batch_size": 4}
        try:
            inverter = load_inverter(backend, folder, **options)
        except MissingDependencyError as error:
            pytest.skip(str(error))
        yield stack.enter_context(inverter)


@pytest.fixture(scope="module")
def requests(random_prompts: Callable[..., list[list[int]]]) -> list[InversionRequest]:
    # Seeds whose draws lie clear of the borders between tokens.
    return [InversionRequest(ids, seed=1400 + i) for i, ids in enumerate(random_prompts(LENGTHS))]


def alone(
    inverter: Inverter, requests: list[InversionRequest], sampling: SamplingParams
) -> list[Inversion]:
    return [inverter.generate([request], sampling)[0] for request in requests]


def test_attributes(inverter: Inverter) -> None:
    assert inverter.context_length == 256
    assert inverter.vocab_size == 384
    assert inverter.tokenizer.decode(inverter.tokenizer("the lazy dog")["input_ids"])


def test_no_requests(inverter: Inverter) -> None:
    assert inverter.generate([], GREEDY) == []


def test_results_are_whole(inverter: Inverter, requests: list[InversionRequest]) -> None:
    for result in inverter.generate(requests, GREEDY):
        assert result.error is None
        assert result.finish_reason == ("length" if len(result.output_ids) == 12 else "stop")
        decoded = inverter.tokenizer.decode(result.output_ids, skip_special_tokens=True)
        assert result.text == decoded


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_result_is_its_own_requests_alone(
    inverter: Inverter,
    requests: list[InversionRequest],
    sampling: SamplingParams,
    model_folder: Callable[[str], Path],
) -> None:
    expected = alone(inverter, requests, sampling)
    if isinstance(inverter, TransformersInverter):  # its products change with the batch
        assert_steady(model_folder("qwen3"), requests, expected, sampling)
    assert len({tuple(result.output_ids) for result in expected}) == len(requests)
    assert inverter.generate(requests, sampling) == expected

    order = list(range(len(requests))) * 2
    random.Random(0).shuffle(order)
    shuffled = inverter.generate([requests[i] for i in order], sampling)
    assert shuffled == [expected[i] for i in order]


def test_the_seed_decides_a_sample(inverter: Inverter, requests: list[InversionRequest]) -> None:
    prompt = requests[0].prompt_ids
    seeds = [0, 1, 2**63, 2**64 - 1]
    results = inverter.generate([InversionRequest(prompt, seed) for seed in seeds], SAMPLED)
    assert len({tuple(result.output_ids) for result in results}) == len(seeds)


def test_greedy_ignores_the_seed(inverter: Inverter, requests: list[InversionRequest]) -> None:
    prompt = requests[0].prompt_ids
    first, second = inverter.generate([InversionRequest(prompt, s) for s in (1, 2)], GREEDY)
    assert first == second


@pytest.mark.parametrize(
    ("prompt_ids", "complaint"),
    [
        ([], "empty"),
        ([5, 384], "384"),
        ([5, -1], "-1"),
        ([5] * 250, "250 prompt tokens and 12 new tokens.*256"),
    ],
)
def test_one_bad_row_fails_alone(
    inverter: Inverter, requests: list[InversionRequest], prompt_ids: list[int], complaint: str
) -> None:
    expected = inverter.generate(requests[:3], GREEDY)
    mixed = [requests[0], InversionRequest(prompt_ids), *requests[1:3]]
    first, bad, *rest = inverter.generate(mixed, GREEDY)
    assert [first, *rest] == expected
    assert bad == Inversion([], "", "error", bad.error)
    assert re.search(complaint, bad.error or "")


def test_a_backend_without_likelihoods_says_where_there_are_some(inverter: Inverter) -> None:
    request = LikelihoodRequest([5, 6], [7])
    if inverter.has_likelihoods:
        assert len(inverter.likelihoods([request])[0].logprobs) == 1
    else:
        with pytest.raises(ConfigError, match="backend='native'"):
            inverter.likelihoods([request])


def test_the_context_may_be_filled(inverter: Inverter) -> None:
    (result,) = inverter.generate([InversionRequest([5] * 244)], GREEDY)
    assert result.error is None


def test_progress_ends_at_all(inverter: Inverter, requests: list[InversionRequest]) -> None:
    seen: list[int] = []
    inverter.generate([*requests, InversionRequest([])], GREEDY, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(requests) + 1
    seen.clear()
    inverter.generate([InversionRequest([])], GREEDY, seen.append)
    assert seen == [1]
