"""Loading with transformers: devices, dtypes, and folders or names that do not work."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from flipfast.backends._loading import context_length
from flipfast.backends.transformers import load
from flipfast.errors import ConfigError, ModelLoadError


@pytest.fixture
def folder(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the Llama folder that a test may spoil."""
    return Path(shutil.copytree(model_folder("llama"), tmp_path / "copy"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **options: Any) -> None:
        raise ConnectionError("no network in this test")

    monkeypatch.setattr(HfApi, "model_info", unreachable)


@pytest.fixture
def no_hub_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **options: Any) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr(HfApi, "model_info", refused)


@pytest.mark.usefixtures("no_hub_call")
@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere", "no/such/folder", ""])
def test_a_path_that_is_not_there_is_no_hub_name(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"no folder.*config\.json") as caught:
        load(name, device="cpu")
    assert repr(name) in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_a_hub_name_without_a_network() -> None:
    with pytest.raises(ModelLoadError, match=r"'nobody/nothing'.*cannot be reached") as caught:
        load("nobody/nothing", device="cpu")
    assert caught.value.__suppress_context__, "the traceback of the hub client would follow"


@pytest.mark.parametrize(
    ("refusal", "complaint"),
    [
        (GatedRepoError, "'some/model' is gated; accept"),
        (RepositoryNotFoundError, "'some/model' is neither a local folder nor a model"),
        (RevisionNotFoundError, "'some/model' has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses(
    refusal: type[HfHubHTTPError], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model_info(*args: Any, **options: Any) -> None:
        raise refusal("no", response=MagicMock())

    monkeypatch.setattr(HfApi, "model_info", model_info)
    with pytest.raises(ModelLoadError, match=complaint):
        load("some/model", device="cpu", revision="v9")


def test_a_device_that_cannot_take_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 MiB")

    monkeypatch.setattr(LlamaForCausalLM, "to", full)
    with pytest.raises(ModelLoadError, match=r"to cpu: OutOfMemoryError: tried.*smaller"):
        load(str(folder), device="cpu")


def test_a_name_the_hub_cannot_have() -> None:
    with pytest.raises(ModelLoadError, match="'bad name\\?' is neither"):
        load("bad name?", device="cpu")


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="is a file"):
        load(str(folder / "config.json"), device="cpu")


@pytest.mark.usefixtures("no_hub_call")
@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file(folder: Path, lost: str) -> None:
    (folder / lost).unlink()
    with pytest.raises(ModelLoadError, match="could not load") as caught:
        load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoilt", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_with_a_broken_file(folder: Path, spoilt: str) -> None:
    (folder / spoilt).write_bytes((folder / spoilt).read_bytes()[:100])
    with pytest.raises(ModelLoadError, match="could not load") as caught:
        load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_all_there(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"lack 1 tensors.*layers\.1\.mlp\.up_proj"):
        load(str(folder), device="cpu")


def test_weights_of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    with pytest.raises(ModelLoadError, match="could not load"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(None, torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_dtype(folder: Path, dtype: str | None, expected: torch.dtype) -> None:
    weights = load_file(folder / "model.safetensors")
    halves = {name: weight.bfloat16() for name, weight in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    model = load(str(folder), device="cpu", dtype=dtype)._model
    loaded = model.get_input_embeddings().weight
    assert loaded.dtype == expected
    assert torch.equal(loaded, halves["model.embed_tokens.weight"].to(expected))


def _quantize_to_fp8(folder: Path) -> dict[str, torch.Tensor]:
    """Turn a folder into an FP8 checkpoint in blocks of 16; the numbers that its weights mean."""
    weights, meant = load_file(folder / "model.safetensors"), {}
    for name, weight in list(weights.items()):
        meant[name] = weights[name] = weight.bfloat16()
        if "_proj" in name:
            rows, columns = weight.shape
            blocks = weight.float().view(rows // 16, 16, columns // 16, 16)
            scales = blocks.abs().amax((1, 3), keepdim=True) / 448
            numbers = (blocks / scales).to(torch.float8_e4m3fn)
            weights[name] = numbers.view_as(weight)
            weights[f"{name}_scale_inv"] = scales[:, 0, :, 0]
            meant[name] = (numbers.float() * scales).view_as(weight)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return meant


@pytest.mark.skipif(torch.cuda.is_available(), reason="transformers keeps FP8 there")
@pytest.mark.parametrize("dtype", [None, "float16"])
def test_fp8_weights_are_dequantized_into_one_dtype(folder: Path, dtype: str | None) -> None:
    meant = _quantize_to_fp8(folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    (folder / "config.json").write_text(json.dumps(config))
    model = load(str(folder), device="cpu", dtype=dtype)._model
    asked = torch.float32 if dtype is None else torch.float16
    assert {parameter.dtype for parameter in model.parameters()} == {asked}
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, meant.get(name, weight).to(asked)), name


def test_scales_that_nothing_applies(folder: Path) -> None:
    _quantize_to_fp8(folder)
    with pytest.raises(ModelLoadError, match=r"21 scales.*down_proj.*no quantization_config"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"device": "toaster"}, "'toaster'"),
        ({"device": "cpu", "dtype": "int3"}, r"'int3'.*float32"),
        ({"device": "cpu", "batch_size": 0}, "batch_size.*0"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load("anything", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        load("anything", device="cuda")


@pytest.mark.parametrize(("tokenizers_limit", "expected"), [(99, 99), (10**30, sys.maxsize)])
def test_a_model_that_names_no_limit_takes_its_tokenizers(
    tokenizer_file: Path, tokenizers_limit: int, expected: int
) -> None:
    config = BloomConfig(vocab_size=8, hidden_size=16, n_layer=1, n_head=2)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), model_max_length=tokenizers_limit
    )
    assert context_length(BloomForCausalLM(config), tokenizer) == expected


def test_transformers_speaks_again_after_loading(folder: Path) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(str(folder), device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
