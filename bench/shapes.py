"""Model shapes and synthetic requests, in one place."""

from __future__ import annotations

import random
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers

from flipfast.backends import InversionRequest

EMBEDDED = Path(str(resources.files("flipfast") / "assets" / "tiny-inverter"))

_QWEN3 = {
    "vocab_size": 151936,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}


def _qwen3(hidden: int, inner: int, layers: int, heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        **_QWEN3,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
    }


# The published configurations of Qwen 3.
QWEN3 = {
    "qwen3-0.6b": _qwen3(1024, 3072, 28, 16, tied=True),
    "qwen3-1.7b": _qwen3(2048, 6144, 28, 16, tied=True),
    "qwen3-4b": _qwen3(2560, 9728, 36, 32, tied=True),
    "qwen3-8b": _qwen3(4096, 12288, 36, 32, tied=False),
}

VOCABULARY = _QWEN3["vocab_size"]
# Query heads, key heads, head size.
HEADS = [
    (c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"])
    for c in (QWEN3["qwen3-0.6b"], QWEN3["qwen3-8b"])
]


def _products(c: dict[str, Any]) -> list[tuple[int, int]]:
    """(outputs, inputs) of a layer's products: qkv, output, gate and up, down."""
    heads, keys = (c["head_dim"] * c[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    return [(heads + 2 * keys, hidden), (hidden, heads), (2 * inner, hidden), (hidden, inner)]


PRODUCTS = [shape for config in QWEN3.values() for shape in _products(config)]


def save_random_model(folder: Path, shape: dict[str, Any], device: str) -> Path:
    """A Qwen 3 of random bfloat16 weights that never ends an output, with some tokenizer."""
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.Qwen3Config(**shape), dtype=torch.bfloat16
        )
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    for file in EMBEDDED.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder)
    return folder


def random_requests(n: int, *, n_prompt: int, n_shared: int, vocab: int) -> list[InversionRequest]:
    """Requests of n_prompt tokens each, of which the first n_shared are common to all."""
    rng = random.Random(0)
    stem = [rng.randrange(vocab) for _ in range(n_shared)]
    rest = range(n_prompt - n_shared)
    return [InversionRequest(stem + [rng.randrange(vocab) for _ in rest]) for _ in range(n)]
