"""Shapes of models that are benchmarked with random weights."""

from __future__ import annotations

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """A model's shape: `model_type` as in config.json, and its other fields."""

    model_type: str
    config: dict[str, Any]


def _shape(
    model_type: str, hidden: int, inner: int, layers: int, heads: tuple[int, int, int], **more: Any
) -> Shape:
    """Heads are those of queries, those of keys and values, and the size of each."""
    names = ("num_attention_heads", "num_key_value_heads", "head_dim")
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return Shape(model_type, {**sizes, **dict(zip(names, heads, strict=True)), **more})


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


_QWEN3 = {"vocab_size": 151936, "max_position_embeddings": 40960, **_rope(1e6)}
_LLAMA3 = {
    **{"vocab_size": 128256, "max_position_embeddings": 131072},
    "rope_parameters": {
        **{"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_position_embeddings": 8192,
    },
}
_OLMO2 = {"vocab_size": 100352, "max_position_embeddings": 4096, **_rope(5e5)}
_MISTRAL = {"vocab_size": 32768, "max_position_embeddings": 32768, **_rope(1e6)}
_GEMMA3 = {"vocab_size": 262144, "max_position_embeddings": 32768, "query_pre_attn_scalar": 256}
_TINY = {"vocab_size": 4096, "max_position_embeddings": 32768, **_rope(1e4)}
_TIED, _UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}

# The published configurations of models that the reward was published with, and Llama 3.1; and the
# embedded model's, with room for long prompts.
SHAPES = {
    "qwen3-0.6b": _shape("qwen3", 1024, 3072, 28, (16, 8, 128), **_QWEN3, **_TIED),
    "qwen3-1.7b": _shape("qwen3", 2048, 6144, 28, (16, 8, 128), **_QWEN3, **_TIED),
    "qwen3-4b": _shape("qwen3", 2560, 9728, 36, (32, 8, 128), **_QWEN3, **_TIED),
    "qwen3-8b": _shape("qwen3", 4096, 12288, 36, (32, 8, 128), **_QWEN3, **_UNTIED),
    "llama-3.2-1b": _shape("llama", 2048, 8192, 16, (32, 8, 64), **_LLAMA3, **_TIED),
    "llama-3.2-3b": _shape("llama", 3072, 8192, 28, (24, 8, 128), **_LLAMA3, **_TIED),
    "llama-3.1-8b": _shape("llama", 4096, 14336, 32, (32, 8, 128), **_LLAMA3, **_UNTIED),
    "olmo2-1b": _shape("olmo2", 2048, 8192, 16, (16, 16, 128), **_OLMO2, **_UNTIED),
    "olmo2-7b": _shape("olmo2", 4096, 11008, 32, (32, 32, 128), **_OLMO2, **_UNTIED),
    "gemma3-1b": _shape(
        "gemma3_text", 1152, 6912, 26, (4, 1, 256), sliding_window=512, **_GEMMA3, **_TIED
    ),
    "mistral-7b-v0.3": _shape(
        "mistral", 4096, 14336, 32, (32, 8, 128), sliding_window=None, **_MISTRAL, **_UNTIED
    ),
    "tiny-32k": _shape("qwen3", 320, 896, 4, (6, 2, 64), **_TINY, **_TIED),
}

QWEN3 = tuple(name for name in SHAPES if name.startswith("qwen3"))
VOCABULARY = _QWEN3["vocab_size"]


def heads(name: str) -> tuple[int, int, int]:
    """Query heads, key heads and head size of a shape."""
    c = SHAPES[name].config
    return c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]


def products(name: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of a layer's products: qkv, output, gate and up, down."""
    c = SHAPES[name].config
    queries, keys, size = heads(name)
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    return [
        ((queries + 2 * keys) * size, hidden),
        (hidden, queries * size),
        (2 * inner, hidden),
        (hidden, inner),
    ]


def n_weights(name: str) -> int:
    """Weights of a shape, those of norms aside."""
    c = SHAPES[name].config
    layer = sum(n_out * n_in for n_out, n_in in products(name))
    tables = 1 if c["tie_word_embeddings"] else 2
    return int(c["num_hidden_layers"] * layer + tables * c["vocab_size"] * c["hidden_size"])
