"""The bits of a result depend on its own request alone.

Compared are all logits of every output token, bit for bit: tokens alone would hide most changes.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.ops.blocks import KINDS
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ConfigError, MissingDependencyError
from tests.engine.models.gguf_files import write_gguf
from tests.engine.toy_models import WIDE, load, prompts, run, save_random_model

LENGTHS = [1, 2, 31, 32, 33, 64, 65, 90, 97, 130, 7, 160, 128, 3, 50, 200]
GREEDY = SamplingParams(max_new_tokens=6)
SAMPLED = SamplingParams(max_new_tokens=6, temperature=1.0, top_p=0.95)

Results = list[tuple[list[int], Any, bytes]]


# Blocks of every kind that has a kernel.
MIXED = {"attn_k.": "Q8_0", "attn_v": "Q6_K", "attn_output": "Q4_0", "ffn_up": "Q4_1"}


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("wide"), "Qwen3Config", **WIDE)


@pytest.fixture(scope="module")
def folder(place: dict[str, Any], floats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, in floats or in blocks, as `place` says."""
    if place["weights"] == "float":
        return floats
    return in_blocks(floats, tmp_path_factory.mktemp("blocks") / "mixed.gguf", "Q4_K", MIXED)


def in_blocks(floats: Path, path: Path, kind: str, kinds: dict[str, str]) -> Path:
    model = transformers.AutoModelForCausalLM.from_pretrained(floats)
    write_gguf(path, model, kind, kinds=kinds)
    return path


@pytest.fixture(
    scope="module",
    params=[
        ("cpu", "float32"),
        ("cpu", "bfloat16"),
        ("cpu", "blocks"),
        pytest.param(("cuda", "float32"), marks=pytest.mark.gpu),
        pytest.param(("cuda", "bfloat16"), marks=pytest.mark.gpu),
        pytest.param(("cuda", "float16"), marks=pytest.mark.gpu),
    ],
    ids="-".join,
)
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the model runs and in what numbers, as options of the engine."""
    device, numbers = request.param
    if numbers == "blocks":
        return {"device": device, "dtype": "float32", "weights": None}
    return {"device": device, "dtype": numbers, "weights": "float"}


@pytest.fixture(scope="module")
def prompt_ids() -> list[list[int]]:
    return prompts(LENGTHS, WIDE["vocab_size"], stem=70)


@pytest.fixture(scope="module", params=[GREEDY, SAMPLED], ids=["greedy", "sampled"])
def params(request: pytest.FixtureRequest) -> SamplingParams:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def alone(
    folder: Path, place: dict[str, Any], prompt_ids: list[list[int]], params: SamplingParams
) -> Results:
    """Every request by itself, in one piece, with nothing in the cache."""
    model = load(folder, **place, prefix_cache=False, max_seqs=1)
    return [run(model, [ids], params)[0] for ids in prompt_ids]


def differing(
    model: LoadedModel, alone: Results, ids: list[list[int]], params: SamplingParams, **how: Any
) -> list[int]:
    """Which of the requests, each given twice and all shuffled, have other bits than alone."""
    order = [i for i in range(len(ids)) for _ in range(2)]
    random.Random(0).shuffle(order)
    results = run(model, [ids[i] for i in order], params, **how)
    return [i for i, got in zip(order, results, strict=True) if got != alone[i]]


@pytest.mark.parametrize(
    ("options", "least_hits"),
    [
        ({"max_seqs": 32, "max_tokens": 4096, "prefix_cache": False}, 0),
        ({"max_seqs": 32, "max_tokens": 4096}, 500),
        ({"max_seqs": 5, "max_tokens": 17}, 500),  # chunks that end anywhere
    ],
    ids=["batch", "prefixes", "chunks"],
)
def test_bits_do_not_depend_on_the_company(
    folder: Path,
    place: dict[str, Any],
    prompt_ids: list[list[int]],
    params: SamplingParams,
    alone: Results,
    options: dict[str, Any],
    least_hits: int,
) -> None:
    model = load(folder, **place, **options)
    assert differing(model, alone, prompt_ids, params) == []
    assert model.engine.counters.prefix_tokens >= least_hits


def test_bits_do_not_depend_on_what_went_before(
    folder: Path,
    place: dict[str, Any],
    prompt_ids: list[list[int]],
    params: SamplingParams,
    alone: Results,
) -> None:
    model = load(folder, **place)
    for _ in range(3):
        assert differing(model, alone, prompt_ids, params) == []
    assert [run(model, [ids], params)[0] for ids in prompt_ids] == alone


def test_bits_survive_preemption(
    folder: Path,
    place: dict[str, Any],
    prompt_ids: list[list[int]],
    params: SamplingParams,
    alone: Results,
) -> None:
    model = load(folder, **place, max_tokens=100)
    scheduler, rng = model.engine._scheduler, random.Random(0)

    def send_someone_back() -> None:
        if scheduler.running and rng.random() < 0.4:
            scheduler._send_back(rng.choice(scheduler.running))

    assert differing(model, alone, prompt_ids, params, disturb=send_someone_back) == []


SAMPLES = [ids for ids in prompts([20, 47, 64], WIDE["vocab_size"], stem=40) for _ in range(3)]


@pytest.fixture(scope="module")
def samples_alone(folder: Path, place: dict[str, Any]) -> Results:
    model = load(folder, **place, prefix_cache=False, max_seqs=1)
    return [run(model, [ids], SAMPLED, seeds=[seed])[0] for seed, ids in enumerate(SAMPLES)]


@pytest.mark.parametrize(
    ("options", "share_sent_back"),
    [({}, 0.0), ({"max_seqs": 4, "max_tokens": 19}, 0.0), ({"max_tokens": 30}, 0.7)],
    ids=["whole", "chunks", "preemption"],
)
def test_bits_of_a_sample_do_not_depend_on_its_leader(
    folder: Path,
    place: dict[str, Any],
    samples_alone: Results,
    options: dict[str, Any],
    share_sent_back: float,
) -> None:
    model = load(folder, **place, **options)
    scheduler, rng = model.engine._scheduler, random.Random(0)

    def send_someone_back() -> None:
        if scheduler.running and rng.random() < share_sent_back:
            scheduler._send_back(rng.choice(scheduler.running))

    assert (
        run(model, SAMPLES, SAMPLED, send_someone_back, seeds=range(len(SAMPLES))) == samples_alone
    )
    assert len({tuple(output) for output, *_ in samples_alone}) > 6
    counters = model.engine.counters
    if share_sent_back:
        assert counters.copied_pages > 6
    else:
        assert counters.copied_pages == 6  # each prompt's two followers
        n_prefill = sum(len(ids) for ids in SAMPLES[::3])
        n_decode = len(SAMPLES) * SAMPLED.max_new_tokens + counters.drafted_tokens
        assert counters.computed_tokens <= n_prefill + n_decode


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_the_threads(
    floats: Path, prompt_ids: list[list[int]], dtype: str
) -> None:
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(run(load(floats, dtype=dtype), prompt_ids, GREEDY))
        finally:
            torch.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_company_with_any_blocks(
    floats: Path, prompt_ids: list[list[int]], kind: str, tmp_path: Path
) -> None:
    path = in_blocks(floats, tmp_path / "model.gguf", kind, {})
    model = load(path, prefix_cache=False, max_seqs=1)
    alone = [run(model, [ids], GREEDY)[0] for ids in prompt_ids]
    assert differing(load(path, max_tokens=300), alone, prompt_ids, GREEDY) == []


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["flash_attn", "torch_varlen"])
def test_bits_do_not_depend_on_the_company_with_other_attention(
    floats: Path, prompt_ids: list[list[int]], attention: str
) -> None:
    place = {"device": "cuda", "dtype": "bfloat16", "attention": attention}
    try:
        model = load(floats, **place, prefix_cache=False)
    except (ConfigError, MissingDependencyError) as error:
        pytest.skip(str(error))
    alone = [run(model, [ids], GREEDY)[0] for ids in prompt_ids]
    assert differing(load(floats, **place, max_tokens=300), alone, prompt_ids, GREEDY) == []


@pytest.mark.slow
@pytest.mark.usefixtures("batch_dependent_products")
def test_products_that_depend_on_the_batch_are_noticed(
    folder: Path, place: dict[str, Any], prompt_ids: list[list[int]]
) -> None:
    """That the checks above can fail."""
    ids = prompt_ids[:6]
    model = load(folder, **place, prefix_cache=False, drafting=False)
    alone = [run(model, [one], GREEDY)[0] for one in ids]
    assert [run(model, [one], GREEDY)[0] for one in ids] == alone  # by nothing but the batch
    assert set(differing(model, alone, ids, GREEDY)) == set(range(len(ids)))
