"""A Qwen 3 checkpoint as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import safetensors


def write_gguf(folder: Path, path: Path) -> None:
    """Write a checkpoint's weights in float32, which loses nothing, and a vocabulary of names.

    Raises:
        ValueError: another architecture.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config["model_type"] != "qwen3":
        raise ValueError(f"{folder} has a {config['model_type']}: expected a qwen3")
    writer = gguf.GGUFWriter(path, "qwen3")
    _write_shape(writer, config)
    _write_vocabulary(writer, config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for file in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no mapping
                tensor = weights.get_tensor(name).float().numpy()
                writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: Any, config: dict[str, Any]) -> None:
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


def _write_vocabulary(writer: Any, size: int) -> None:
    """Prompts come as ids, so that names and merges are never looked at."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"token{i}" for i in range(size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
