"""What ends an output: the tokenizer's end token, and texts that a generation config names."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from flipfast.backends import Inversion, InversionRequest, SamplingParams, load_inverter
from flipfast.backends._stopping import before_stop
from flipfast.backends.transformers import TransformersInverter

GREEDY = SamplingParams(max_new_tokens=20)
LENGTHS = [9, 64, 23, 17, 33]


def edited(folder: Path, target: Path, file: str, **fields: Any) -> Path:
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**content, **fields}))
    return target


def run(backend: str | None, folder: Path, prompts: list[list[int]]) -> list[Inversion]:
    with load_inverter(backend, str(folder), device="cpu", dtype="float32") as inverter:
        return inverter.generate([InversionRequest(ids) for ids in prompts], GREEDY)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "transformers"])
def test_the_tokenizers_end_token_is_one(
    backend: str, model_folder: Any, random_prompts: Any, tmp_path: Path
) -> None:
    whole, prompts = model_folder("llama"), random_prompts(LENGTHS)
    free = run(backend, whole, prompts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole)
    end = next(i for i in free[0].output_ids[4:] if i < len(tokenizer))
    folder = edited(
        whole, tmp_path / "m", "tokenizer_config.json",
        eos_token=tokenizer.convert_ids_to_tokens(end),
    )  # fmt: skip
    assert transformers.AutoTokenizer.from_pretrained(folder).eos_token_id == end
    found = run(backend, folder, prompts)
    assert found[0].finish_reason == "stop" != free[0].finish_reason
    for result, before in zip(found, free, strict=True):
        ids = before.output_ids
        assert result.output_ids == (ids[: ids.index(end)] if end in ids else ids)
        stops = end in ids or before.finish_reason == "stop"  # the generation config's still does
        assert result.finish_reason == ("stop" if stops else "length")


@pytest.mark.slow
def test_stop_strings_end_an_output_before_them(
    model_folder: Any, random_prompts: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, prompts = model_folder("llama"), random_prompts(LENGTHS)
    free = run("transformers", whole, prompts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole)
    model = transformers.AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    stops = [re.findall("[a-z ]{4}", str(free[row].text))[0] for row in (2, 3)]
    folder = edited(whole, tmp_path / "m", "generation_config.json", stop_strings=stops)
    with caplog.at_level(logging.WARNING, logger="flipfast"):
        found = run(None, folder, prompts)
    assert "stop_strings" in caplog.text
    assert "running it with the transformers backend instead" in caplog.text
    assert found[2].finish_reason == found[3].finish_reason == "stop"
    for ids, result, before in zip(prompts, found, free, strict=True):
        alone = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False,
            max_new_tokens=20, stop_strings=stops, tokenizer=tokenizer,
        )  # fmt: skip
        text = tokenizer.decode(alone[0, len(ids) :], skip_special_tokens=True)
        ends = [text.find(stop) for stop in stops if stop in text]
        assert result.error is None
        assert result.text == text[: min(ends, default=None)]
        assert result.output_ids == before.output_ids[: len(result.output_ids)]
        if not ends:
            assert result == before


def test_one_stop_string(model_folder: Any, tmp_path: Path) -> None:
    folder = edited(
        model_folder("llama"), tmp_path / "m", "generation_config.json", stop_strings="any"
    )
    with load_inverter("transformers", str(folder), device="cpu") as inverter:
        assert isinstance(inverter, TransformersInverter)
        assert inverter._stop_strings == ("any",)


@pytest.mark.parametrize(
    ("text", "stops", "left", "whole_tokens"),
    [
        ("the lazy dog", [" dog"], "the lazy", True),
        ("the lazy dog", ["y d"], "the laz", False),
        ("the lazy dog", ["dog", "lazy"], "the ", False),
        ("the lazy dog", ["the"], "", True),
        ("the lazy dog", ["fox"], "the lazy dog", True),
        ("the lazy</s> dog", ["</s>"], "the lazy", True),
        ("<s>the lazy\n</s>", ["\n</s>"], "the lazy", True),
        ("<s>the<s> lazy dog", [" dog"], "the lazy", True),
        ("caf\u00e9 the fox", ["\u00e9"], "caf", True),
    ],
)
def test_the_part_before_a_stop(
    text: str, stops: list[str], left: str, whole_tokens: bool, model_folder: Any
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder("llama"))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    kept, found = before_stop(tokenizer, ids, stops)
    assert found == left
    assert kept == ids[: len(kept)]
    decoded = tokenizer.decode(kept, skip_special_tokens=True)
    assert (decoded == left) == whole_tokens
    assert decoded.startswith(left)
    assert not tokenizer.decode(kept[:-1], skip_special_tokens=True).startswith(left) or not left
