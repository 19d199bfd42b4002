"""The weights of a GGUF file as a checkpoint: transformers' names and order of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from flipfast.engine.models.gguf.reader import PLAIN_TYPES, GgufFile, GgufTensor
from flipfast.engine.ops.blocks import Blocks, widened
from flipfast.errors import ModelLoadError

_TOP = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_FFN_NORM = {"gemma3": "pre_feedforward_layernorm"}
_COMPUTED = "rope_freqs"  # in the specification already


@dataclass(frozen=True)
class GgufCheckpoint:
    """Weights of a GGUF file, read as their turn comes; see `Checkpoint`.

    Attributes:
        file: the opened file.
    """

    file: GgufFile

    @property
    def source(self) -> str:
        """What error messages call it."""
        return str(self.file.path)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that loses nothing of the largest tensor."""
        largest = max(self.file.tensors, key=lambda tensor: tensor.n_bytes, default=None)
        if largest is None:
            raise ModelLoadError(f"{self.file.path} holds no tensor")
        return PLAIN_TYPES.get(largest.kind, torch.float32)

    @property
    def kinds(self) -> Mapping[str, str]:
        """The tensors' types, by transformers' names."""
        return {self._name(tensor.name): tensor.kind for tensor in self.file.tensors}

    def tensors(self) -> Iterator[tuple[str, torch.Tensor | Blocks]]:
        """Names and tensors as transformers has them, quantised ones as they are.

        Raises:
            ModelLoadError: the file is gone, or has been cut off.
        """
        for tensor in self.file.tensors:
            if not tensor.name.startswith(_COMPUTED):
                yield self._name(tensor.name), self._values(tensor)

    def _name(self, name: str) -> str:
        stem, _, kind = name.rpartition(".")
        if stem in _TOP:
            return f"{_TOP[stem]}.{kind}"
        block, _, part = stem.removeprefix("blk.").partition(".")
        architecture = self.file.fields["general.architecture"]
        own = _FFN_NORM.get(architecture) if part == "ffn_norm" else None
        own = own or _LAYER.get(part)
        return f"layers.{block}.{own}.{kind}" if own else name  # no model has a place for that

    def _values(self, tensor: GgufTensor) -> torch.Tensor | Blocks:
        values, architecture = tensor.read(), self.file.fields["general.architecture"]
        part = tensor.name.split(".")[-2]
        if architecture == "llama" and part in ("attn_q", "attn_k"):
            n_heads = self._n_heads(part)
            if isinstance(values, Blocks):
                return replace(values, data=_unpermuted(values.data, n_heads))
            return _unpermuted(values, n_heads)
        if architecture == "gemma3" and part.endswith("norm"):
            return widened(values) - 1.0
        return values

    def _n_heads(self, part: str) -> int:
        n_heads: int = self.file.field("llama.attention.head_count", int)
        if part == "attn_q":
            return n_heads
        n_kv_heads: int = self.file.field("llama.attention.head_count_kv", int, n_heads)
        return n_kv_heads


def _unpermuted(values: torch.Tensor, n_heads: int) -> torch.Tensor:
    """The rows of each head in halves, as transformers rotates them.

    The file has the two rows of a rotated pair side by side, and so pairs instead of halves.
    """
    if values.shape[0] % (2 * n_heads):
        return values  # whose shape will be refused
    pairs = values.reshape(n_heads, -1, 2, *values.shape[1:])
    return pairs.transpose(1, 2).reshape(values.shape)
