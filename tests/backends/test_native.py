"""The native engine as an inverter: what it gives, what it hands on to transformers."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from flipfast.backends import (
    InversionRequest,
    Likelihood,
    LikelihoodRequest,
    SamplingParams,
    load_inverter,
)
from flipfast.backends.native import NativeInverter
from flipfast.backends.transformers import TransformersInverter
from flipfast.errors import FlipfastError, ModelLoadError
from tests.backends.conftest import STEADY, assert_steady

FAMILIES = ["llama", "qwen3", "olmo2", "mistral", "gemma3"]
LENGTHS = [9, 150, 1, 23, 64, 17, 33]
GREEDY = SamplingParams(max_new_tokens=20)


def load(folder: Path, **options: Any) -> Any:
    return load_inverter(None, str(folder), **{"device": "cpu", "dtype": "float32", **options})


def edited(folder: Path, target: Path, file: str, **fields: Any) -> Path:
    """A copy of a model's folder with some fields of a JSON file changed."""
    shutil.copytree(folder, target)
    path = target / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **fields}))
    return target


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_token_identical_to_generate(
    family: str, model_folder: Any, random_prompts: Any, generate_alone: Any
) -> None:
    folder, prompts = model_folder(family), random_prompts(LENGTHS)
    inverter = load(folder)
    assert isinstance(inverter, NativeInverter)
    results = inverter.generate([InversionRequest(ids) for ids in prompts], GREEDY)
    expected = [
        ids[: ids.index(1)] if 1 in ids else ids for ids in generate_alone(folder, prompts, 20)
    ]
    assert [result.output_ids for result in results] == expected


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_token_identical_to_generate_on_cuda(
    family: str, model_folder: Any, random_prompts: Any, generate_alone: Any
) -> None:
    folder, prompts = model_folder(family), random_prompts(LENGTHS)
    inverter = load(folder, device="cuda")
    assert isinstance(inverter, NativeInverter)
    results = inverter.generate([InversionRequest(ids) for ids in prompts], GREEDY)
    expected = [
        ids[: ids.index(1)] if 1 in ids else ids
        for ids in generate_alone(folder, prompts, 20, device="cuda")
    ]
    assert [result.output_ids for result in results] == expected


@pytest.mark.slow
def test_samples_are_those_of_the_transformers_backend(
    model_folder: Any, random_prompts: Any
) -> None:
    sampled = SamplingParams(max_new_tokens=12, temperature=0.9, top_p=0.9, top_k=50)
    requests = [InversionRequest(ids, seed=i) for i, ids in enumerate(random_prompts(LENGTHS))]
    native, other = (
        load_inverter(name, str(model_folder("llama")), device="cpu", dtype="float32")
        for name in ("native", "transformers")
    )
    results = native.generate(requests, sampled)
    assert_steady(model_folder("llama"), requests, results, sampled)
    assert results == other.generate(requests, sampled)


def test_samples_of_a_prompt_run_it_once(model_folder: Any, random_prompts: Any) -> None:
    sampled = SamplingParams(max_new_tokens=6, temperature=0.9)
    prompts = random_prompts([40, 70])
    requests = [InversionRequest(list(p), seed=k) for k in range(4) for p in prompts]
    inverter = load(model_folder("llama"))
    results = inverter.generate(requests, sampled)
    assert len({tuple(result.output_ids) for result in results}) > 6
    counters = inverter.counters
    assert counters.copied_pages == 2 * 3
    assert counters.prefix_tokens == 3 * (39 + 69)
    inverter.forget_prefixes()
    assert results == [inverter.generate([request], sampled)[0] for request in requests]


@pytest.mark.slow
def test_the_repetition_penalty_of_the_folder_is_kept(
    model_folder: Any, random_prompts: Any, generate_alone: Any, tmp_path: Path
) -> None:
    folder = edited(
        model_folder("qwen3"), tmp_path / "m", "generation_config.json", repetition_penalty=1.3
    )
    inverter = load(folder, batch_size=3)
    assert isinstance(inverter, NativeInverter)
    prompts = random_prompts([40, 3, 40, 41, 90])
    prompts[2] = list(prompts[0])  # a prefix from the cache counts as seen, too
    results = inverter.generate([InversionRequest(ids) for ids in prompts], GREEDY)
    plain = load(model_folder("qwen3")).generate([InversionRequest(i) for i in prompts], GREEDY)
    assert results != plain
    for _ in range(2):
        for ids, result in zip(generate_alone(folder, prompts, 20), results, strict=True):
            assert result.output_ids == (ids[: ids.index(1)] if 1 in ids else ids)
        results = inverter.generate([InversionRequest(ids) for ids in prompts], GREEDY)


@pytest.mark.parametrize(
    ("file", "fields", "reason"),
    [
        ("config.json", {"architectures": ["StrangeForCausalLM"]}, "StrangeForCausalLM"),
        ("generation_config.json", {"no_repeat_ngram_size": 3}, "no_repeat_ngram_size=3"),
        ("generation_config.json", {"stop_strings": ["User:"]}, "stop_strings="),
        ("config.json", {"hidden_act": "relu"}, "relu"),
        ("config.json", {"architectures": None}, "'architectures' is None"),
    ],
)
def test_what_the_engine_lacks_goes_to_transformers_with_one_line(
    model_folder: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    fields: dict[str, Any],
    reason: str,
) -> None:
    folder = edited(model_folder("llama"), tmp_path / "m", file, **fields)
    with caplog.at_level(logging.WARNING, logger="flipfast"):
        inverter = load(folder, native={"memory": 2**26})
    assert isinstance(inverter, TransformersInverter)
    (record,) = caplog.records
    assert reason in record.message
    assert record.message.endswith("running it with the transformers backend instead")
    with pytest.raises(ModelLoadError, match=reason):
        load_inverter("native", str(folder), device="cpu")


def test_a_tensor_of_another_kind_of_model_goes_to_transformers(
    model_folder: Any, tmp_path: Path, random_prompts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [InversionRequest(ids) for ids in random_prompts([9, 33])]
    expected = load(model_folder("llama")).generate(requests, GREEDY)
    folder = Path(shutil.copytree(model_folder("llama"), tmp_path / "m"))
    tensors = load_file(folder / "model.safetensors")
    kinds = {"v_head.summary.weight": NativeInverter, "c.weight": TransformersInverter}
    for name, kind in kinds.items():
        save_file({**tensors, name: torch.ones(1, 64)}, folder / "model.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
        with caplog.at_level(logging.WARNING, logger="flipfast"):
            inverter = load(folder)
        assert isinstance(inverter, kind)
        assert inverter.generate(requests, GREEDY) == expected
    (record,) = caplog.records
    assert "the tensor c.weight has no place" in record.message


@pytest.mark.parametrize("broken", ["{", '{"max_new_tokens": -1}'])
def test_a_generation_config_that_cannot_be_read(
    model_folder: Any, tmp_path: Path, broken: str
) -> None:
    folder = Path(shutil.copytree(model_folder("llama"), tmp_path / "m"))
    (folder / "generation_config.json").write_text(broken)
    with pytest.raises(ModelLoadError, match=r"generation_config\.json"):
        load_inverter("native", str(folder), device="cpu")


def test_a_broken_model_is_no_case_for_another_backend(model_folder: Any, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model_folder("llama"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors"):
        load(folder)


def test_a_tokenizer_of_another_model_is_refused(model_folder: Any, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    config = transformers.LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_folder("llama") / name, folder)
    with pytest.raises(ModelLoadError, match="embedding 200 rows"):
        load(folder)


def test_not_finite_logits_end_a_row_with_a_status(
    model_folder: Any, random_prompts: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model_folder("llama"), folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.model.embed_tokens.weight[77] = float("nan")
    model.save_pretrained(folder)
    prompts = [[i for i in ids if i != 77] for ids in random_prompts([20, 30, 40])]
    good = load(model_folder("llama")).generate([InversionRequest(i) for i in prompts], GREEDY)
    prompts[1][5] = 77
    results = load(folder).generate([InversionRequest(ids) for ids in prompts], GREEDY)
    assert results[1].finish_reason == "error"
    assert "not finite" in (results[1].error or "")
    # A neighbour that writes the token 77 itself gets the same end, from there on.
    for result, plain in ((results[0], good[0]), (results[2], good[2])):
        assert result == plain or 77 in plain.output_ids


def test_lifecycle_through_the_inverter(
    model_folder: Callable[[str], Path], random_prompts: Any
) -> None:
    requests = [InversionRequest(ids) for ids in random_prompts([10, 50])]
    with load(model_folder("llama")) as inverter:
        before = inverter.generate(requests, GREEDY)
        inverter.keep_prefix([5, 6, 7])
        inverter.sleep()
        with pytest.raises(FlipfastError, match="asleep"):
            inverter.generate(requests, GREEDY)
        inverter.wake()
        assert inverter.generate(requests, GREEDY) == before
        inverter.update_weights(model_folder("llama"))
        inverter.forget_prefixes()
        assert inverter.generate(requests, GREEDY) == before
        assert inverter.counters.output_tokens > 0
    with pytest.raises(FlipfastError, match="closed"):
        inverter.generate(requests, GREEDY)


@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_likelihoods_are_those_of_transformers(
    family: str, model_folder: Any, random_prompts: Any
) -> None:
    folder, prompts = model_folder(family), random_prompts([9, 150, 2, 64])
    requests = [LikelihoodRequest(ids[: len(ids) // 2], ids[len(ids) // 2 :]) for ids in prompts]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    with load(folder) as inverter:
        found = inverter.likelihoods(requests)
        assert [inverter.likelihoods([request])[0] for request in requests] == found
        assert inverter.has_likelihoods
    for ids, request, likelihood in zip(prompts, requests, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, len(request.prompt_ids) - 1 : -1]
        targets = torch.tensor(request.target_ids)[:, None]
        expected = logits.log_softmax(-1).gather(-1, targets)[:, 0].tolist()
        assert likelihood.logprobs == pytest.approx(expected, rel=1e-5, abs=1e-5)
        best, second = logits.topk(2).values.unbind(-1)
        assert (best - second).min() > STEADY  # no near tie
        assert likelihood.best_ids == logits.argmax(-1).tolist()
        assert likelihood.error is None


def test_a_bad_likelihood_request_fails_alone(model_folder: Any) -> None:
    good = LikelihoodRequest([5, 6, 7], [8])
    bad = {
        "the prompt is empty": LikelihoodRequest([], [5]),
        "the target is empty": LikelihoodRequest([5], []),
        "token id 384 is outside": LikelihoodRequest([5], [384]),
        "token id -1 is outside": LikelihoodRequest([-1], [5]),
        "200 prompt tokens and 57 target tokens do not fit": LikelihoodRequest([5] * 200, [5] * 57),
    }
    seen: list[int] = []
    with load(model_folder("qwen3")) as inverter:
        first, *found, last = inverter.likelihoods([good, *bad.values(), good], seen.append)
        (whole,) = inverter.likelihoods([LikelihoodRequest([5] * 200, [5] * 56)])
        assert len(whole.logprobs) == 56
        assert inverter.likelihoods([]) == []
    assert first == last == Likelihood(first.logprobs, first.best_ids)
    for complaint, result in zip(bad, found, strict=True):
        assert result == Likelihood([], [], result.error)
        assert complaint in str(result.error)
    assert (seen[0], seen[-1], len(seen)) == (5, 7, 3)


def test_a_closed_engine_gives_no_likelihoods(model_folder: Any) -> None:
    inverter = load(model_folder("qwen3"))
    inverter.close()
    with pytest.raises(FlipfastError):
        inverter.likelihoods([LikelihoodRequest([5], [6])])
