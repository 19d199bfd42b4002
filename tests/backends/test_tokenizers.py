"""Folders without a tokenizer, and tokenizers that are elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from flipfast import FlipReward
from flipfast.backends import load_inverter
from flipfast.errors import ModelLoadError
from tests.engine.models.gguf_files import write_gguf

BACKENDS = ["native", "transformers"]


def bare(folder: Path, target: Path) -> Path:
    """A copy of a model's folder without its tokenizer."""
    return Path(shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*token*")))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral"])
def test_a_folder_without_a_tokenizer_says_so(
    backend: str, family: str, model_folder: Any, tmp_path: Path
) -> None:
    folder = bare(model_folder(family), tmp_path / "m")
    with pytest.raises(ModelLoadError, match=r"holds none.*tokenizer='\.\.\.'") as caught:
        load_inverter(backend, str(folder), device="cpu")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tokenizer_elsewhere(backend: str, model_folder: Any, tmp_path: Path) -> None:
    whole = model_folder("qwen3")
    folder = bare(whole, tmp_path / "m")
    texts = ["Name a river.", "What is rain?"], ["The Ebro flows.", "Rain falls."]
    options: dict[str, Any] = {
        "backend": backend, "device": "cpu", "dtype": "float32", "style": "direct",
        "max_new_tokens": 8,
    }  # fmt: skip
    with FlipReward(str(whole), **options) as reward:
        expected = reward.score(*texts)
    with FlipReward(str(folder), tokenizer=str(whole), **options) as reward:
        found = reward.score(*texts)
    assert list(found.inferred) == list(expected.inferred) != ["", ""]
    assert found.rewards == expected.rewards
    with pytest.raises(ModelLoadError, match="no folder './nowhere'"):
        load_inverter(backend, str(folder), tokenizer="./nowhere", device="cpu")


def test_a_tokenizer_for_a_gguf_file(model_folder: Any, tmp_path: Path) -> None:
    whole = model_folder("llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(whole)
    file = tmp_path / "model.gguf"  # without a tokenizer
    write_gguf(file, model)
    with pytest.raises(ModelLoadError, match=r"holds no tokenizer.*tokenizer='\.\.\.'"):
        load_inverter("native", str(file), device="cpu")
    with load_inverter("native", str(file), tokenizer=str(whole), device="cpu") as inverter:
        ids = inverter.tokenizer("the lazy dog").input_ids
        assert inverter.tokenizer.decode(ids) == "the lazy dog"
        assert inverter.end_ids == {1}


def test_a_tokenizer_that_has_no_file_of_tokens(model_folder: Any, tmp_path: Path) -> None:
    folder = bare(model_folder("llama"), tmp_path / "m")
    other = transformers.ByT5Tokenizer(extra_ids=0)
    other.save_pretrained(tmp_path / "bytes")  # a tokenizer that needs no file with a vocabulary
    with load_inverter(
        "native", str(folder), tokenizer=str(tmp_path / "bytes"), device="cpu"
    ) as inverter:
        assert inverter.tokenizer("ab", add_special_tokens=False).input_ids == [100, 101]


@pytest.mark.parametrize("backend", BACKENDS)
def test_added_tokens_behind_a_gap_are_refused(
    backend: str, model_folder: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder("llama"), tmp_path / "m")
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text("utf-8"))
    n_tokens = len(tokenizer["model"]["vocab"])

    def load_with(ids: list[int]) -> transformers.PreTrainedTokenizerBase:
        added = [{**tokenizer["added_tokens"][0], "id": i, "content": f"<{i}>"} for i in ids]
        added_tokens = tokenizer["added_tokens"] + added
        file.write_text(json.dumps({**tokenizer, "added_tokens": added_tokens}), "utf-8")
        with load_inverter(backend, str(folder), device="cpu") as inverter:
            return inverter.tokenizer

    last = n_tokens + 2
    with pytest.raises(ModelLoadError, match=rf"'<{last}>'.* id {last} .*as {n_tokens}, .*gap"):
        load_with([last])
    filled = load_with([n_tokens, n_tokens + 1, last])
    assert filled.convert_tokens_to_ids(f"<{last}>") == last
