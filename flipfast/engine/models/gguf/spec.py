"""From a GGUF file's metadata to the decoder that it describes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.families import read_spec
from flipfast.engine.models.families._rope import FULL, SLIDING
from flipfast.engine.models.gguf.reader import GgufFile
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.ops.blocks import widened
from flipfast.errors import ModelLoadError

_GEMMA3_FULL_EVERY = 6  # llama.cpp's constant; files do not hold it
_GEMMA3_LOCAL_BASE = 10000.0
_GEMMA3_27B_LAYERS = 62
_ROPE_FACTORS = "rope_freqs.weight"


def read_gguf_spec(file: GgufFile) -> DecoderSpec:
    """The decoder that a file describes.

    Raises:
        UnsupportedModelError: an architecture or a setting that is not served.
        ModelLoadError: a field is missing or makes no sense.
    """
    config = read_gguf_config(file)
    try:
        spec = read_spec(config)
    except ModelLoadError as error:
        raise type(error)(f"{file.path}: {error}") from error
    return _with_rope_factors(file, spec)


def read_gguf_config(file: GgufFile) -> dict[str, Any]:
    """What transformers' config.json of the same model holds, scaling by rope_freqs aside.

    Raises:
        UnsupportedModelError: an architecture or a setting that is not served.
        ModelLoadError: a field is missing or makes no sense.
    """
    architecture = file.field("general.architecture", str)
    if architecture not in _FAMILIES:
        served = ", ".join(_FAMILIES)
        raise UnsupportedModelError(
            f"{file.path}: the architecture {architecture!r} is not served; served are {served}"
        )
    if file.fields.get(f"{architecture}.expert_count"):
        raise UnsupportedModelError(f"{file.path}: mixtures of experts are not served")
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    if len(shapes.get("token_embd.weight", ())) != 2:
        raise ModelLoadError(f"{file.path}: there is no token_embd.weight of two dimensions")
    config = _common(file, architecture, shapes)
    _FAMILIES[architecture](file, config, shapes)
    return config


def _common(
    file: GgufFile, architecture: str, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    def number(name: str, default: int | None = None) -> int:
        value: int = file.field(f"{architecture}.{name}", int, default)
        return value

    n_layers = len({name.split(".")[1] for name in shapes if name.startswith("blk.")})
    if number("block_count") != n_layers:
        raise ModelLoadError(
            f"{file.path}: the field '{architecture}.block_count' is {number('block_count')}, "
            f"there are tensors of {n_layers} blocks"
        )
    hidden_size = number("embedding_length")
    n_heads = number("attention.head_count")
    return {
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": hidden_size,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": number("attention.head_count_kv", n_heads),
        "head_dim": number("attention.key_length", hidden_size // max(n_heads, 1)),
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": file.field(f"{architecture}.attention.layer_norm_rms_epsilon", float),
        "rope_parameters": _rope(file, architecture),
        "tie_word_embeddings": "output.weight" not in shapes,
    }


def _rope(file: GgufFile, architecture: str) -> dict[str, Any]:
    base = file.field(f"{architecture}.rope.freq_base", float, 10000.0)
    kind = file.field(f"{architecture}.rope.scaling.type", str, "none")
    if kind == "none":
        return {"rope_type": "default", "rope_theta": base}
    if kind not in ("linear", "yarn"):
        raise UnsupportedModelError(f"{file.path}: rope scaling of the type {kind!r} is not served")
    scaled = {
        "rope_type": kind,
        "rope_theta": base,
        "factor": file.field(f"{architecture}.rope.scaling.factor", float),
    }
    if kind == "yarn":
        scaled["original_max_position_embeddings"] = file.field(
            f"{architecture}.rope.scaling.original_context_length", int
        )
    return scaled


def _llama(file: GgufFile, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    config["architectures"] = ["LlamaForCausalLM"]
    config["attention_bias"] = "blk.0.attn_q.bias" in shapes
    config["mlp_bias"] = "blk.0.ffn_gate.bias" in shapes


def _qwen2(file: GgufFile, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    config["architectures"] = ["Qwen2ForCausalLM"]


def _qwen3(file: GgufFile, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    config["architectures"] = ["Qwen3ForCausalLM"]


def _olmo2(file: GgufFile, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    config["architectures"] = ["Olmo2ForCausalLM"]


def _gemma3(file: GgufFile, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """Settings that files leave out are constants of llama.cpp's src/models/gemma3.cpp."""
    n_layers, n_heads = config["num_hidden_layers"], config["num_attention_heads"]
    local = file.field("gemma3.rope.freq_base_swa", float, _GEMMA3_LOCAL_BASE)
    big = n_layers == _GEMMA3_27B_LAYERS
    config |= {
        "architectures": ["Gemma3ForCausalLM"],
        "sliding_window": file.field("gemma3.attention.sliding_window", int),
        "layer_types": [
            FULL if (i + 1) % _GEMMA3_FULL_EVERY == 0 else SLIDING for i in range(n_layers)
        ],
        "query_pre_attn_scalar": config["hidden_size"] // n_heads if big else config["head_dim"],
        "rope_parameters": {
            FULL: config["rope_parameters"],
            SLIDING: {"rope_type": "default", "rope_theta": local},
        },
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
    }


_FAMILIES: dict[str, Callable[[GgufFile, dict[str, Any], dict[str, tuple[int, ...]]], None]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3": _gemma3,
    "olmo2": _olmo2,
}


def _with_rope_factors(file: GgufFile, spec: DecoderSpec) -> DecoderSpec:
    """Llama 3's scaling is a tensor here: what each frequency is divided by."""
    factors = next((t for t in file.tensors if t.name == _ROPE_FACTORS), None)
    if factors is None:
        return spec
    rope = spec.ropes[FULL]
    if factors.shape != (len(rope.inv_freq),):
        raise ModelLoadError(
            f"{file.path}: {_ROPE_FACTORS} has shape {factors.shape}, not ({len(rope.inv_freq)},)"
        )
    divided = zip(rope.inv_freq, widened(factors.read()).tolist(), strict=True)
    scaled = replace(rope, inv_freq=tuple(frequency / factor for frequency, factor in divided))
    return replace(spec, ropes={**spec.ropes, FULL: scaled})
