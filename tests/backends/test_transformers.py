"""The transformers backend against `model.generate` on one prompt at a time."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flipfast.backends import Inversion, InversionRequest, SamplingParams
from flipfast.backends.transformers import TransformersInverter, _left_padded, load
from flipfast.errors import FlipfastError

LENGTHS = [1, 2, 5, 15, 16, 17, 33, 60, 100]  # below, at and beyond the sliding window of 16
GREEDY = SamplingParams(max_new_tokens=28)
END = 1
Prompts = Callable[[list[int]], list[list[int]]]
Oracle = Callable[..., list[list[int]]]


def outputs(inverter: TransformersInverter, prompts: list[list[int]]) -> list[list[int]]:
    results = inverter.generate([InversionRequest(prompt) for prompt in prompts], GREEDY)
    assert [result.error for result in results] == [None] * len(prompts)
    return [result.output_ids for result in results]


def up_to(ends: set[int], ids: list[int]) -> list[int]:
    return ids[: next((i for i, token_id in enumerate(ids) if token_id in ends), None)]


@pytest.fixture
def edited_folder(model_folder: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the Llama folder with other values in its generation config."""

    def edit(**generation_config: Any) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(model_folder("llama"), folder)
        path = folder / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **generation_config}))
        return folder

    return edit


@pytest.fixture
def llama(model_folder: Callable[[str], Path]) -> TransformersInverter:
    return load(str(model_folder("llama")), device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "olmo2", "mistral", "gemma3", "phi3-longrope"]
)
def test_greedy_is_generate_on_each_prompt_alone(
    family: str,
    device: str,
    model_folder: Callable[[str], Path],
    random_prompts: Prompts,
    generate_alone: Oracle,
) -> None:
    folder, prompts = model_folder(family), random_prompts(LENGTHS)
    expected = [up_to({END}, ids) for ids in generate_alone(folder, prompts, 28, device)]
    assert len({tuple(ids) for ids in expected}) == len(prompts)
    assert sum(len(set(ids)) for ids in expected) > 4 * len(prompts), "the model babbles"
    assert outputs(load(str(folder), device=device, dtype="float32"), prompts) == expected


@pytest.mark.slow
def test_generation_config_keeps_its_processors_and_loses_its_sampling(
    edited_folder: Callable[..., Path],
    random_prompts: Prompts,
    generate_alone: Oracle,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prompts = random_prompts(LENGTHS)
    folder = edited_folder(
        do_sample=True, temperature=0.6, top_p=0.9, top_k=20, min_p=0.1, max_length=20,
        repetition_penalty=1.4, suppress_tokens=[7, 9], pad_token_id=None,
    )  # fmt: skip
    plain = [up_to({END}, ids) for ids in generate_alone(folder, prompts, 28)]
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outputs(load(str(folder), device="cpu"), prompts) == plain
    assert capfd.readouterr() == ("", "")


def test_one_plain_greedy_path_whatever_the_folder_asks_for(
    edited_folder: Callable[..., Path],
    model_folder: Callable[[str], Path],
    random_prompts: Prompts,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prompts = random_prompts(LENGTHS)
    expected = outputs(load(str(model_folder("llama")), device="cpu"), prompts)
    folder = edited_folder(
        num_beams=3, num_return_sequences=2, early_stopping=True, length_penalty=2.0,
        return_dict_in_generate=True, output_scores=True, use_cache=False, max_new_tokens=3,
        max_time=1e-9, token_healing=True, prompt_lookup_num_tokens=2, penalty_alpha=0.5, top_k=4,
        dola_layers="low", stop_strings=[],
    )  # fmt: skip
    capfd.readouterr()  # saving the model showed its progress
    assert outputs(load(str(folder), device="cpu"), prompts) == expected
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_output_ends_before_any_of_several_end_tokens(
    edited_folder: Callable[..., Path],
    model_folder: Callable[[str], Path],
    random_prompts: Prompts,
    generate_alone: Oracle,
) -> None:
    prompts = random_prompts(LENGTHS)
    free = generate_alone(model_folder("llama"), prompts, 28)
    ends = [END, free[2][10], free[5][20]]
    inverter = load(str(edited_folder(eos_token_id=ends)), device="cpu")
    results = inverter.generate([InversionRequest(prompt) for prompt in prompts], GREEDY)
    expected = [up_to(set(ends), ids) for ids in free]
    assert [result.output_ids for result in results] == expected
    assert [result.finish_reason for result in results] == [
        "length" if len(ids) == 28 else "stop" for ids in expected
    ]
    assert results[2].finish_reason == results[5].finish_reason == "stop"


def test_a_model_without_an_end_token_fills_the_length(
    edited_folder: Callable[..., Path], random_prompts: Prompts
) -> None:
    folder = edited_folder(eos_token_id=None, pad_token_id=None)
    for name, field in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, field: None}))
    results = outputs(load(str(folder), device="cpu"), random_prompts(LENGTHS))
    assert {len(ids) for ids in results} == {28}


def test_text_leaves_out_special_tokens_and_ids_without_a_token(
    llama: TransformersInverter,
) -> None:
    ids = [0, *llama.tokenizer("the lazy dog .")["input_ids"], 383]
    assert llama._inversion(ids, -1) == Inversion(ids, "the lazy dog .", "length")


def test_random_state_is_left_alone(llama: TransformersInverter) -> None:
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    llama.generate([InversionRequest([5, 6, 7])], SamplingParams(4, temperature=1.0))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state


def test_padding_holds_no_token_that_the_prompt_lacks() -> None:
    ids, mask = _left_padded([[5, 6, 7], [8, 9]])
    assert ids.tolist() == [[5, 6, 7], [8, 8, 9]]
    assert mask.tolist() == [[1, 1, 1], [0, 1, 1]]


def test_batches_are_cut_by_rows(llama: TransformersInverter, random_prompts: Prompts) -> None:
    llama._batch_size = 4
    seen: list[int] = []
    requests = [InversionRequest(prompt) for prompt in random_prompts(LENGTHS)]
    llama.generate(requests, SamplingParams(2), seen.append)
    assert seen == [4, 8, 9]


@pytest.mark.parametrize(("longest", "n_rows"), [(10, 16), (1990, 8), (40_000, 1)])
def test_long_prompts_make_small_batches(
    llama: TransformersInverter, longest: int, n_rows: int
) -> None:
    assert len(next(llama._batches(dict.fromkeys(range(50), longest), 10))) == n_rows


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("kernel"), torch.OutOfMemoryError("memory")])
def test_a_failing_row_takes_no_other_with_it(
    llama: TransformersInverter,
    random_prompts: Prompts,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    requests = [InversionRequest(prompt) for prompt in random_prompts(LENGTHS)]
    expected = llama.generate(requests, GREEDY)
    generate = llama._model.generate
    guilty = requests[3].prompt_ids[-1]

    def picky(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        if guilty in input_ids[:, -1]:
            raise error
        return generate(input_ids, **options)

    monkeypatch.setattr(llama._model, "generate", picky)
    results = llama.generate(requests, GREEDY)
    assert results[3].finish_reason == "error"
    assert results[3].error == f"{type(error).__name__}: {error}"
    assert results[:3] + results[4:] == expected[:3] + expected[4:]


@pytest.mark.slow
def test_too_little_memory_for_a_batch_is_enough_for_its_parts(
    llama: TransformersInverter, random_prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [InversionRequest(prompt) for prompt in random_prompts(LENGTHS)]
    expected = llama.generate(requests, GREEDY)
    generate = llama._model.generate

    def small_device(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        if input_ids.shape[0] > 2:
            raise torch.OutOfMemoryError("no room")
        return generate(input_ids, **options)

    monkeypatch.setattr(llama._model, "generate", small_device)
    assert llama.generate(requests, GREEDY) == expected


def test_logits_that_are_not_numbers_fail_their_row(llama: TransformersInverter) -> None:
    good = InversionRequest([5, 6, 7])
    expected = llama.generate([good], GREEDY)
    with torch.no_grad():
        llama._model.get_input_embeddings().weight[11] = float("nan")
    for sampling in (GREEDY, SamplingParams(28, temperature=1.0)):
        bad, _ = llama.generate([InversionRequest([5, 11]), good], sampling)
        assert bad.finish_reason == "error"
        assert bad.error is not None
        assert "not finite at output token 0" in bad.error
    assert llama.generate([InversionRequest([5, 11]), good], GREEDY)[1:] == expected


def test_a_closed_inverter_says_so(llama: TransformersInverter) -> None:
    llama.close()
    with pytest.raises(FlipfastError, match="closed"):
        llama.generate([InversionRequest([5])], GREEDY)
