"""The decoder in float32 against transformers in float64: logits and greedy tokens of families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from flipfast.engine.models.families import available_families
from tests.engine.models.paged import SHAPE, Paged, load_decoder, random_model

LENGTHS = [1, 5, 37, 600]
NEW_TOKENS = 64

_LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 256,
}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
_GEMMA = {"sliding_window": 16, "layer_types": _MIXED, "query_pre_attn_scalar": 20}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-linear": ("Llama", {"rope_parameters": _LINEAR}),
    "llama-llama3": ("Llama", {"rope_parameters": _LLAMA3}),
    "llama-one-kv-head": ("Llama", {"num_attention_heads": 8, "num_key_value_heads": 1}),
    "llama-all-kv-heads": ("Llama", {"num_key_value_heads": 4, "head_dim": 16}),
    "llama-one-layer": ("Llama", {"num_hidden_layers": 1}),
    "qwen2": ("Qwen2", {}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": _YARN, "tie_word_embeddings": True}),
    "qwen2-windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "qwen2-window-unused": ("Qwen2", {"use_sliding_window": False, "sliding_window": 24}),
    "qwen3": ("Qwen3", {}),
    "qwen3-biases-tied": ("Qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
    "qwen3-yarn": ("Qwen3", {"rope_parameters": {**_YARN, "attention_factor": 1.3}}),
    "qwen3-windows": (
        "Qwen3",
        {"use_sliding_window": True, "sliding_window": 1, "max_window_layers": 2},
    ),
    "olmo2": ("Olmo2", {}),
    "olmo2-biases": ("Olmo2", {"attention_bias": True, "num_key_value_heads": 4}),
    "olmo3": ("Olmo3", {"sliding_window": 16, "layer_types": _MIXED}),
    "olmo3-yarn": (
        "Olmo3",
        {
            "sliding_window": 16,
            "layer_types": _MIXED,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
                "full_attention": _YARN,
            },
        },
    ),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": 31}),
    # Tied, the scaled embedding drowns all else and the model echoes its last token.
    "gemma3": ("Gemma3Text", {**_GEMMA, "tie_word_embeddings": False}),
    "gemma3-tied-capped": (
        "Gemma3Text",
        {**_GEMMA, "tie_word_embeddings": True, "final_logit_softcapping": 30.0},
    ),
    "gemma3-linear": (
        "Gemma3Text",
        {
            **_GEMMA,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
            },
        },
    ),
}


# Before transformers 5.13 its OLMo 3 has a single rope table for all layers: no reference here.
ONE_TABLE = "sliding_attention" not in (transformers.Olmo3Config().rope_parameters or {})


def config_of(case: str) -> Any:
    family, own = CASES[case]
    return getattr(transformers, f"{family}Config")(**{**SHAPE, **own})


def test_each_family_has_a_case() -> None:
    assert {name.split("-")[0] for name in CASES} == set(available_families())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens(
    case: str, tmp_path: Path, prompt: Callable[[int], list[int]]
) -> None:
    if case == "olmo3-yarn" and ONE_TABLE:
        pytest.skip("this transformers rotates all layers of an OLMo 3 alike")
    model = random_model(config_of(case))
    model.save_pretrained(tmp_path)
    model.double()
    decoder = load_decoder(tmp_path)
    prompts = [prompt(length) for length in LENGTHS]

    whole = Paged(decoder, len(prompts))
    new = Paged(decoder, len(prompts)).greedy(prompts, chunk=100, n_new=NEW_TOKENS)
    for seq, (tokens, continuation) in enumerate(zip(prompts, new, strict=True)):
        together = tokens + continuation
        with torch.no_grad():
            expected = model(torch.tensor([together])).logits[0]
        logits = whole.step([(seq, together)], all_rows=True)
        error = (logits - expected).abs().max()
        assert error <= 1e-4 * expected.abs().max()
        # The greedy continuation: each token is the best one behind those before it, or rounding,
        # of its own logit and of the best one's, is all that it is behind.
        steps = expected[len(tokens) - 1 : -1]
        behind = steps.amax(-1) - steps.gather(-1, torch.tensor(continuation)[:, None])[:, 0]
        assert behind.max() <= 2 * error
