"""GGUF files: values, names and settings, against gguf and transformers; and broken ones."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

from flipfast.backends import load_inverter
from flipfast.engine.models import hub
from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.gguf.reader import PLAIN_TYPES, QUANTISED_TYPES, open_gguf
from flipfast.engine.models.gguf.tokenizer import read_gguf_tokenizer
from flipfast.engine.ops.blocks import widened
from flipfast.errors import ModelLoadError
from tests.engine.models.gguf_files import architecture, write_gguf
from tests.engine.models.paged import SHAPE, Paged, load_decoder, random_model
from tests.engine.models.test_parity import CASES as PARITY

CASES = [
    "llama", "llama-biases", "llama-tied", "llama-linear", "llama-llama3", "llama-one-kv-head",
    "qwen2", "qwen3", "qwen3-yarn", "gemma3-file", "olmo2",
]  # fmt: skip
# What a file cannot say, llama.cpp sets so: every sixth layer sees everything.
GEMMA3 = {
    "num_hidden_layers": 7,
    "sliding_window": 16,
    "query_pre_attn_scalar": 24,
    "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
}


def model_of(case: str, **shape: Any) -> Any:
    family, own = ("Gemma3Text", GEMMA3) if case == "gemma3-file" else PARITY[case]
    if case == "qwen3-yarn":  # files do not hold an attention factor
        own = {"rope_parameters": {**own["rope_parameters"], "attention_factor": None}}
    return random_model(getattr(transformers, f"{family}Config")(**{**SHAPE, **own, **shape}))


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_model(
    case: str, tmp_path: Path, prompt: Callable[[int], list[int]]
) -> None:
    model = model_of(case)
    write_gguf(tmp_path / "model.gguf", model)
    tokens = prompt(300)
    logits = Paged(load_decoder(tmp_path), 1).step([(0, tokens)], all_rows=True)
    with torch.no_grad():
        expected = model.double()(torch.tensor([tokens])).logits[0]
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("case", ["llama", "llama-tied", "qwen2", "qwen3", "gemma3-file"])
def test_weights_are_those_that_transformers_reads(case: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    # transformers 5.23 reads no key_length but Gemma's: heads as wide as it takes them to be.
    model = model_of(case, head_dim=128 if case == "qwen3" else 16)
    write_gguf(path, model, "Q8_0", **tokenizer_fields())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    )
    weights = {name.removeprefix("model."): w for name, w in theirs.state_dict().items()}
    _, checkpoint = read_model(str(path))
    ours = dict(checkpoint.tensors())
    assert set(weights) - set(ours) <= {"lm_head.weight"}
    assert all(torch.equal(weights[name], widened(rows)) for name, rows in ours.items())


def tokenizer_fields() -> dict[str, Any]:
    """A vocabulary, as transformers wants one to be there."""
    tokens = [f"t{i}" for i in range(SHAPE["vocab_size"] - 1)] + ["t0t1"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.merges": ["t0 t1"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }


@pytest.mark.parametrize("kind", [*PLAIN_TYPES, *QUANTISED_TYPES])
def test_numbers_are_those_of_gguf(kind: str, tmp_path: Path) -> None:
    stored = GGMLQuantizationType[kind]
    numbers = np.random.default_rng(0).standard_normal((6, 512), dtype=np.float32)
    try:
        data = quantize(numbers, stored)
    except NotImplementedError:  # gguf reads these and does not write them: any bytes will do
        n_block, n_bytes = GGML_QUANT_SIZES[stored]
        data = np.random.default_rng(0).integers(0, 120, (6, 512 // n_block * n_bytes), np.uint8)
    writer = GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("x", data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tensor,) = open_gguf(tmp_path / "one.gguf").tensors
    found = widened(tensor.read())
    assert found.dtype == PLAIN_TYPES.get(kind, torch.float32)
    expected = dequantize(data.view(np.uint8).reshape(6, -1), stored)
    assert np.array_equal(found.float().numpy(), expected.reshape(6, 512))


def test_a_file_a_folder_and_split_files_are_one_model(tmp_path: Path) -> None:
    model = model_of("qwen3")
    write_gguf(tmp_path / "whole.gguf", model)
    parts = tmp_path / "parts"
    parts.mkdir()
    write_gguf(parts / "m-00001-of-00003.gguf", model, shards=3)
    names = [tmp_path / "whole.gguf", tmp_path, parts, parts / "m-00002-of-00003.gguf"]
    read = [read_model(str(name)) for name in names]
    whole = dict(read[0][1].tensors())
    for spec, checkpoint in read:
        assert spec == read[0][0]
        found = dict(checkpoint.tensors())
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], values) for name, values in whole.items())
    (parts / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelLoadError, match=r"one of 3 files, and m-00003-of-00003\.gguf"):
        read_model(str(parts))
    write_gguf(tmp_path / "other.gguf", model)
    with pytest.raises(ModelLoadError, match=r"several GGUF models: name one of other\.gguf,"):
        read_model(str(tmp_path))


def test_a_file_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m-00001-of-00002.gguf", model_of("qwen3"), shards=2)
    asked = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    spec, _ = read_model("some/repo:m-00001-of-00002.gguf", "v2")
    assert len(spec.layers) == 3
    assert asked == [("some/repo", "v2", ["m-*-of-00002.gguf"])]
    with pytest.raises(ModelLoadError, match=r"'some/repo' has no file 'other\.gguf'"):
        read_model("some/repo:other.gguf")


@pytest.mark.parametrize("name", ["nowhere.gguf", "/nowhere/model.gguf", "a/b/c:model.gguf"])
def test_a_name_that_is_no_file(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"there is no file .*'REPO:FILE\.gguf'"):
        read_model(name)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"llama.embedding_length": None}, "'llama.embedding_length' is None"),
        ({"llama.block_count": "three"}, "'llama.block_count' is 'three'"),
        ({"llama.block_count": 2**31}, "is 2147483648, there are tensors of 3 blocks"),
        ({"llama.rope.scaling.type": "longrope"}, "rope scaling of the type 'longrope'"),
        ({"llama.expert_count": 8}, "mixtures of experts"),
        ({"llama.attention.head_count_kv": 3}, "num_key_value_heads 3"),
    ],
)
def test_fields_that_cannot_be_used(own: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", model_of("llama"), **own)
    with pytest.raises(ModelLoadError, match=message) as caught:
        read_model(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"chat_template": "a"}, "a"),
        ({"chat_templates": ["rag"], "chat_template.rag": "b", "chat_template": "a"}, "a"),
        ({"chat_templates": ["rag"], "chat_template.rag": "b"}, {"rag": "b"}),
    ],
)
def test_chat_templates(fields: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    own = {f"tokenizer.{name}": value for name, value in fields.items()}
    write_gguf(tmp_path / "model.gguf", model_of("llama-one-layer"), **tokenizer_fields(), **own)
    tokenizer = read_gguf_tokenizer(open_gguf(tmp_path / "model.gguf"))
    assert tokenizer.chat_template == expected
    assert tokenizer.name_or_path == str(tmp_path / "model.gguf")


def test_unknown_architectures_and_types(tmp_path: Path) -> None:
    model = model_of("llama")
    model.config.model_type = "mamba"
    assert architecture(model) == "mamba"
    write_gguf(tmp_path / "mamba.gguf", model)
    with pytest.raises(UnsupportedModelError, match="'mamba' is not served; served are llama"):
        read_model(str(tmp_path / "mamba.gguf"))
    wide = model_of("llama", hidden_size=256, intermediate_size=256, head_dim=64)
    write_gguf(tmp_path / "ternary.gguf", wide, "TQ1_0")
    with pytest.raises(UnsupportedModelError, match=r"the tensor token_embd\.weight is TQ1_0"):
        read_model(str(tmp_path / "ternary.gguf"))


def test_no_other_backend_takes_its_place(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", model_of("llama"), **{"llama.expert_count": 8})
    with pytest.raises(UnsupportedModelError, match="mixtures of experts"):
        load_inverter(None, str(tmp_path / "model.gguf"))
    with pytest.raises(ModelLoadError, match="GGUF files, .* are for the native engine"):
        load_inverter("transformers", str(tmp_path / "model.gguf"))


def test_files_that_are_none(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write_gguf(whole, model_of("llama"), **tokenizer_fields())
    content = whole.read_bytes()
    broken = tmp_path / "broken.gguf"
    for n in (0, 3, 20, 300, 5000, len(content) // 2, len(content) - 100):
        broken.write_bytes(content[:n])
        with pytest.raises(ModelLoadError, match=r"broken\.gguf is cut off, or no GGUF file"):
            read_model(str(broken))
    broken.write_text("{}" * 500)
    with pytest.raises(ModelLoadError, match="magic"):
        read_model(str(broken))


@pytest.mark.slow
def test_mutated_headers_end_in_a_model_or_an_error(tmp_path: Path) -> None:
    """Counts, lengths, types and offsets at random: no crash, no hang, no other error."""
    path = tmp_path / "whole.gguf"
    write_gguf(path, model_of("llama-one-layer"), **tokenizer_fields())
    content = path.read_bytes()
    header = content.index(b"blk.0.attn_norm") + 1000
    rng = random.Random(0)
    refusals = []
    for _ in range(1000):
        mutated = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            at, size = rng.randrange(4, header), rng.choice([1, 4, 8])
            value = rng.choice([0, 1, 7, 255, 2**31, 2**63, 2**64 - 1, rng.getrandbits(64)])
            mutated[at : at + size] = struct.pack("<Q", value)[:size]
        path.write_bytes(mutated)
        try:
            _, checkpoint = read_model(str(path))
            for _name, values in checkpoint.tensors():
                assert widened(values).is_floating_point()
            read_gguf_tokenizer(checkpoint.file)
        except ModelLoadError as error:
            refusals.append(str(error))
    assert 100 < len(refusals) < 1000
    assert all(str(path) in refusal for refusal in refusals)
