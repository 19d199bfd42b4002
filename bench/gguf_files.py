"""GGUF files for comparisons of engines: a real model in other types, shapes of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

from bench.shapes import SHAPES
from flipfast.engine.ops.blocks import Blocks, quantised, widened

_EMBEDDING = "token_embd.weight"  # the head as well, where they are tied
_EMBEDDING_TYPE = "Q8_0"
_WEIGHT = 0.02  # standard deviation of random weights
_DEVIATIONS = {"Q4_0": 4.6, "Q8_0": 74.0}  # of random integers of a type


def requantise(source: Path, target: Path, kind: str) -> None:
    """Write a file's model with the matrices of its layers in another type.

    The metadata, the tokenizer among it, the embedding and the norms stay as they are.

    Args:
        source: a GGUF file in one piece.
        target: the file to write.
        kind: one of `FLOAT_KINDS`.
    """
    reader, wanted = GGUFReader(source), GGMLQuantizationType[kind]
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture)
    # The writer adds the first two by itself; the third names the types that were.
    own = ("GGUF.", "general.architecture", "general.file_type")
    for name, field in reader.fields.items():
        if not name.startswith(own):
            of = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=of)
    for tensor in reader.tensors:
        data, stored = tensor.data, tensor.tensor_type
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            blocks = Blocks(stored.name, shape, torch.from_numpy(np.array(data)))
            data, stored = quantised(widened(blocks), kind).data.numpy(), wanted
        writer.add_tensor(tensor.name, data, raw_dtype=stored)
    finish(writer)


def write_random(path: Path, shape: str, kind: str) -> None:
    """Write a Qwen 3 shape of bench.shapes with random blocks, the embedding's of Q8_0.

    Args:
        path: the file to write.
        shape: name of the shape.
        kind: type of the layers' matrices, "Q4_0" or "Q8_0".
    """
    config = transformers.AutoConfig.for_model("qwen3", **SHAPES[shape].config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config.num_hidden_layers)
    writer, rng = qwen3_writer(path, config.to_dict()), np.random.default_rng(0)
    for full_name, tensor in model.named_parameters():  # tied ones once
        name = names.get_name(full_name, try_suffixes=(".weight",))
        if tensor.dim() == 1:
            writer.add_tensor(name, np.ones(tensor.shape, np.float32))
            continue
        stored = _EMBEDDING_TYPE if name == _EMBEDDING else kind
        blocks = random_blocks(tuple(tensor.shape), stored, rng)
        writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType[stored])
    finish(writer)


def random_blocks(shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> Any:
    """A file's bytes, uint8 (rows, bytes of a row), of random integers with one scale for all.

    Args:
        shape: rows and numbers of each.
        kind: a type whose blocks are a float16 scale and integers, "Q4_0" or "Q8_0".
        rng: draws the integers.
    """
    rows, width = shape
    numbers, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (rows, width // numbers, size), np.uint8)
    blocks[..., :2] = np.array([_WEIGHT / _DEVIATIONS[kind]], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def qwen3_writer(path: Path, config: Mapping[str, Any]) -> GGUFWriter:
    """A writer that has a Qwen 3's metadata, from what its config.json holds.

    Prompts come as ids, so that the vocabulary's names and merges are never looked at.

    Raises:
        ValueError: another architecture.
    """
    if config["model_type"] != "qwen3":
        raise ValueError(f"the model is a {config['model_type']}: expected a qwen3")
    writer = GGUFWriter(path, "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"token{i}" for i in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    return writer


def finish(writer: GGUFWriter) -> None:
    """Write the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
