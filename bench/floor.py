"""The least time that requests can take on a device."""

from __future__ import annotations

from bench.shapes import SHAPES
from bench.sizes import Prescribed

H200_BYTES_A_S, H200_FLOPS_A_S = 4.8e12, 989e12  # datasheet: memory, dense bfloat16


def floor_seconds(shape: str, load: Prescribed) -> float:
    """For all requests at once on an H200, in bfloat16.

    Weights are read once a decode step, keys and values once a token, and the products of the
    prefill run at the datasheet's dense rate.
    """
    c = SHAPES[shape].config
    attention = (2 * c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * c["head_dim"]
    layer = c["hidden_size"] * (attention + 3 * c["intermediate_size"])
    weights = layer * c["num_hidden_layers"] + c["hidden_size"] * c["vocab_size"]
    kv = 4 * c["num_hidden_layers"] * c["num_key_value_heads"] * c["head_dim"]  # bytes a token
    n_computed = load.n * (load.n_prompt - load.n_shared) + load.n_shared
    prefill = 2 * layer * c["num_hidden_layers"] * n_computed
    decode = load.n_out * (2 * weights + kv * load.n * (load.n_prompt + load.n_out / 2))
    return prefill / H200_FLOPS_A_S + decode / H200_BYTES_A_S
