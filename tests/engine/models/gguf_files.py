"""Writes models of transformers as GGUF files, as llama.cpp's convert_hf_to_gguf.py does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


Numbers = np.ndarray[Any, Any]


def write_gguf(
    path: Path,
    model: Any,
    kind: str = "F32",
    shards: int = 1,
    kinds: Mapping[str, str] | None = None,
    **own: Any,
) -> None:
    """Write a model.

    Args:
        path: of the file; where it is split, of the first one, with "-00001-of-0000N" in its name.
        model: of a transformers class that is served.
        kind: how matrices are stored.
        shards: number of files.
        kinds: how some matrices are stored instead, by a part of their name in the file.
        own: fields that replace or add to those of the model; None leaves one out.
    """
    c, arch = model.config, architecture(model)
    fields = {
        "general.architecture": arch,
        f"{arch}.context_length": c.max_position_embeddings,
        f"{arch}.embedding_length": c.hidden_size,
        f"{arch}.feed_forward_length": c.intermediate_size,
        f"{arch}.block_count": c.num_hidden_layers,
        f"{arch}.attention.head_count": c.num_attention_heads,
        f"{arch}.attention.head_count_kv": c.num_key_value_heads,
        f"{arch}.attention.key_length": c.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": float(c.rms_norm_eps),
        f"{arch}.vocab_size": c.vocab_size,
        f"{arch}.rope.dimension_count": c.head_dim,
        **_rope_fields(arch, c),
        **own,
    }
    tensors = _tensors(model, arch)
    per_file = -(-len(tensors) // shards)
    for shard in range(shards):
        name = path.name.replace("-00001-of-", f"-{shard + 1:05d}-of-")
        writer = GGUFWriter(path.with_name(name), arch)
        for key, value in fields.items() if shard == 0 else ():
            _add(writer, key, value)
        for key, values in tensors[shard * per_file : (shard + 1) * per_file]:
            found = [other for part, other in (kinds or {}).items() if part in key]
            stored = [*found, kind][0] if values.ndim == 2 else "F32"
            raw_dtype = GGMLQuantizationType[stored]
            writer.add_tensor(key, quantised(values, stored), raw_dtype=raw_dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def quantised(values: Numbers, kind: str) -> Numbers:
    """Rows of float32 in a file's bytes, by gguf's own rule where it has one."""
    if kind == "Q4_K":
        return _q4_k(values.reshape(-1, 8, 32)).reshape(len(values), -1)
    if kind == "Q6_K":
        return _q6_k(values.reshape(-1, 16, 16)).reshape(len(values), -1)
    return gguf.quants.quantize(values, GGMLQuantizationType[kind])


def dequantised(values: Numbers, kind: str) -> Numbers:
    """What a file of this kind holds of rows of float32."""
    blocks = quantised(values, kind)
    return gguf.quants.dequantize(blocks, GGMLQuantizationType[kind]).reshape(values.shape)


def _q4_k(groups: Numbers) -> Numbers:
    """Blocks of 8 groups of 32 numbers: 4 bits each, times a scale, less a minimum."""
    least = np.maximum(-groups.min(2), 0)
    wide = (groups.max(2) + least) / 15
    d, scales = _of_bytes(wide, 63)
    dmin, mins = _of_bytes(least, 63)
    size, low = (a * b.astype(np.float32) for a, b in ((d, scales), (dmin, mins)))
    q = np.rint((groups + low[..., None]) / np.maximum(size, 1e-30)[..., None])
    q = q.clip(0, 15).astype(np.uint8)
    early, late = scales[:, :4], scales[:, 4:]
    packed = [
        early | late >> 4 << 6,
        mins[:, :4] | mins[:, 4:] >> 4 << 6,
        late & 15 | (mins[:, 4:] & 15) << 4,
    ]
    nibbles = q[:, ::2] | q[:, 1::2] << 4
    return np.hstack([_half(d), _half(dmin), *packed, nibbles.reshape(len(q), -1)])


def _q6_k(groups: Numbers) -> Numbers:
    """Blocks of 16 groups of 16 numbers: 6 bits each, times a scale."""
    d, scales = _of_bytes(np.abs(groups).max(2) / 31, 127)
    size = d * scales.astype(np.float32)
    q = np.rint(groups / np.maximum(size, 1e-30)[..., None]).clip(-32, 31) + 32
    halves = q.astype(np.uint8).reshape(-1, 2, 4, 32)  # the quarters of each half
    lower = halves[:, :, :2] & 15 | (halves[:, :, 2:] & 15) << 4
    upper = np.bitwise_or.reduce([halves[:, :, i] >> 4 << 2 * i for i in range(4)], axis=0)
    n = len(halves)
    return np.hstack([lower.reshape(n, -1), upper.reshape(n, -1), scales, _half(d)])


def _of_bytes(sizes: Numbers, most: int) -> tuple[Numbers, Numbers]:
    """Sizes, (blocks, groups), as a float16 of each block times bytes up to `most`."""
    d = (sizes.max(1, keepdims=True) / most).astype(np.float16).astype(np.float32)
    return d, np.rint(sizes / np.maximum(d, 1e-30)).clip(0, most).astype(np.uint8)


def _half(d: Numbers) -> Numbers:
    return d.astype(np.float16).view(np.uint8)


def architecture(model: Any) -> str:
    return {"gemma3_text": "gemma3"}.get(model.config.model_type, model.config.model_type)


def _rope_fields(arch: str, c: Any) -> dict[str, Any]:
    rope = c.rope_parameters
    fields: dict[str, Any] = {}
    if arch == "gemma3":
        fields["gemma3.attention.sliding_window"] = c.sliding_window
        rope = rope["full_attention"]
    fields[f"{arch}.rope.freq_base"] = float(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        fields[f"{arch}.rope.scaling.type"] = rope["rope_type"]
        fields[f"{arch}.rope.scaling.factor"] = float(rope["factor"])
    if rope["rope_type"] == "yarn":
        original = rope["original_max_position_embeddings"]
        fields[f"{arch}.rope.scaling.original_context_length"] = original
    return fields


def _tensors(model: Any, arch: str) -> list[tuple[str, Numbers]]:
    c = model.config
    found = []
    for full_name, weight in model.state_dict().items():
        if full_name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        stem, _, kind = full_name.rpartition(".")
        values = weight.float()
        if arch == "llama" and ".q_proj" in full_name:
            values = _permuted(values, c.num_attention_heads)
        if arch == "llama" and ".k_proj" in full_name:
            values = _permuted(values, c.num_key_value_heads)
        if arch == "gemma3" and "norm" in full_name:
            values = values + 1
        if stem in NAMES:
            name = NAMES[stem]
        else:
            block, _, part = stem.removeprefix("model.layers.").partition(".")
            name = f"blk.{block}.{NAMES.get(part) or _post_attention(arch)}"
        found.append((f"{name}.{kind}", values.numpy()))
    rope = c.rope_parameters
    if rope.get("rope_type") == "llama3":
        found.append(("rope_freqs.weight", _llama3_factors(rope, c.head_dim)))
    return found


def _post_attention(arch: str) -> str:
    """transformers gives this name to two things: the norm before the MLP, or after attention."""
    return "post_attention_norm" if arch in ("gemma3", "olmo2") else "ffn_norm"


def _permuted(values: torch.Tensor, n_heads: int) -> torch.Tensor:
    halves = values.reshape(n_heads, 2, -1, *values.shape[1:])
    return halves.transpose(1, 2).reshape(values.shape).contiguous()


def _llama3_factors(rope: dict[str, Any], head_dim: int) -> Numbers:
    """What the published scaling divides each frequency by."""
    factors = []
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if key == "general.architecture" or value is None:
        return  # the writer has added it
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
