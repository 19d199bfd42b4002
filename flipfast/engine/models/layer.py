"""One layer of the decoder: its weights, their checkpoint names, and its forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from flipfast.engine.attention.base import AttentionBackend, AttentionMetadata, LayerCache
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.models.weights import Slot
from flipfast.engine.ops.base import Linear, Operand, Ops, RopeTable
from flipfast.engine.ops.blocks import Blocks, widened


@dataclass(frozen=True)
class Step:
    """A step's tokens and the buffers for its rows; activations have the operations' dtype.

    Attributes:
        positions: (n,) int64.
        metadata: the layout of the tokens in the cache.
        residual, hidden: (n, hidden_size).
        qkv: (n, (n_heads + 2 * n_kv_heads) * head_dim).
        query, key, value: views of qkv, (n, heads, head_dim).
        mixed: (n, n_heads * head_dim), the output of attention.
    """

    positions: torch.Tensor
    metadata: AttentionMetadata
    residual: torch.Tensor
    hidden: torch.Tensor
    qkv: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mixed: torch.Tensor


@dataclass(frozen=True)
class Rows:
    """Buffers for the rows that continue after attention.

    Attributes:
        mixed: (m, n_heads * head_dim).
        residual, hidden: (m, hidden_size).
        gate_up: (m, 2 * intermediate_size).
        inner: (m, intermediate_size).
    """

    mixed: torch.Tensor
    residual: torch.Tensor
    hidden: torch.Tensor
    gate_up: torch.Tensor
    inner: torch.Tensor


class DecoderLayer:
    """Attention and MLP with the norms that the family has.

    A block's output is not added to the residual at once but stays pending, because the addition
    is fused with the norm before the next block.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        index: int,
        ops: Ops,
        source_dtype: torch.dtype,
        ropes: Mapping[str, RopeTable],
        kinds: Mapping[str, str],
    ) -> None:
        self._spec = spec
        self._ops = ops
        self._index = index
        self._window = spec.layers[index].window
        rope = spec.layers[index].rope
        self._rope = None if rope is None else ropes[rope]
        d, inner, heads = spec.hidden_size, spec.intermediate_size, spec.n_heads * spec.head_dim
        keys = spec.n_kv_heads * spec.head_dim

        def linear(n_out: int, n_in: int, bias: bool, *names: str) -> Linear:
            own = tuple(kinds.get(f"layers.{index}.{name}.weight", "") for name in names)
            return ops.linear(n_out, n_in, bias=bias, source_dtype=source_dtype, kinds=own)

        def norm(size: int) -> torch.Tensor:
            return torch.empty(size, dtype=torch.float32, device=ops.device)

        qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.qkv = linear(heads + 2 * keys, d, spec.qkv_bias, *qkv)
        self.output = linear(d, heads, spec.output_bias, "self_attn.o_proj")
        self.gate_up = linear(2 * inner, d, spec.mlp_bias, "mlp.gate_proj", "mlp.up_proj")
        self.down = linear(d, inner, spec.mlp_bias, "mlp.down_proj")
        self.norms = {place: norm(d) for place in spec.norm_names}
        if spec.qk_norm is not None:
            full = spec.qk_norm == "full"
            self.norms["query"] = norm(heads if full else spec.head_dim)
            self.norms["key"] = norm(keys if full else spec.head_dim)

    def linears(self) -> list[Linear]:
        """The layer's products."""
        return [self.qkv, self.output, self.gate_up, self.down]

    def attend(
        self,
        step: Step,
        pending: torch.Tensor | None,
        attention: AttentionBackend,
        cache: LayerCache,
    ) -> None:
        """Add the pending output to the residual and write attention's result to `step.mixed`."""
        spec, ops, norms = self._spec, self._ops, self.norms
        x = self._enter(pending, step.residual, "pre_attention", self.qkv.operand(step.hidden))
        self.qkv(x, step.qkv)
        ops.norm_rope_write(
            step.query,
            step.key,
            step.value,
            step.positions,
            self._rope,
            norms.get("query"),
            norms.get("key"),
            spec.norm_eps,
            attention,
            cache,
            step.metadata.slot_mapping,
        )
        attention.attend(
            step.query,
            cache,
            step.metadata,
            step.mixed,
            scale=spec.attention_scale,
            window=self._window,
            softcap=spec.attention_softcap,
        )

    def finish(self, rows: Rows) -> torch.Tensor:
        """Run the rest of the layer; returns the pending output, (m, hidden_size)."""
        pending = self._leave(self.output(rows.mixed, rows.hidden), "post_attention")
        x = self._enter(pending, rows.residual, "pre_mlp", self.gate_up.operand(rows.hidden))
        gate_up, inner = self.gate_up(x, rows.gate_up), self.down.operand(rows.inner)
        inner = self._ops.gated(gate_up, self._spec.activation, inner)
        return self._leave(self.down(inner, rows.hidden), "post_mlp")

    def _enter(
        self,
        pending: torch.Tensor | None,
        residual: torch.Tensor,
        place: str,
        out: Operand,
    ) -> Operand:
        weight, eps = self.norms.get(place), self._spec.norm_eps
        if pending is None:
            return residual if weight is None else self._ops.rms_norm(residual, weight, eps, out)
        if weight is None:
            return self._ops.add(pending, residual)
        return self._ops.add_rms_norm(pending, residual, weight, eps, out)

    def _leave(self, x: torch.Tensor, place: str) -> torch.Tensor:
        weight = self.norms.get(place)
        return x if weight is None else self._ops.rms_norm(x, weight, self._spec.norm_eps, x)

    def slots(self) -> Iterator[tuple[str, Slot]]:
        """Checkpoint names, without prefix, and slots of the layer's tensors."""
        spec, start = self._spec, f"layers.{self._index}"
        d, i = spec.hidden_size, spec.intermediate_size
        heads, keys = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
        q, k = "num_attention_heads * head_dim", "num_key_value_heads * head_dim"
        hidden, inner = "hidden_size", "intermediate_size"
        products = (
            ("self_attn.q_proj", self.qkv, 0, heads, spec.qkv_bias, q, hidden),
            ("self_attn.k_proj", self.qkv, heads, keys, spec.qkv_bias, k, hidden),
            ("self_attn.v_proj", self.qkv, heads + keys, keys, spec.qkv_bias, k, hidden),
            ("self_attn.o_proj", self.output, 0, d, spec.output_bias, hidden, q),
            ("mlp.gate_proj", self.gate_up, 0, i, spec.mlp_bias, inner, hidden),
            ("mlp.up_proj", self.gate_up, i, i, spec.mlp_bias, inner, hidden),
            ("mlp.down_proj", self.down, 0, d, spec.mlp_bias, hidden, inner),
        )
        for name, linear, first, n_rows, bias, rows, columns in products:
            yield from _linear_slots(f"{start}.{name}", linear, first, n_rows, bias, rows, columns)
        names = {**spec.norm_names, "query": "self_attn.q_norm", "key": "self_attn.k_norm"}
        for place, weight in self.norms.items():
            yield norm_slot(f"{start}.{names[place]}.weight", weight, spec.norm_offset)


def norm_slot(name: str, weight: torch.Tensor, offset: float) -> tuple[str, Slot]:
    """The slot of a norm's weight, to which the family's offset is added."""

    def put(tensor: torch.Tensor | Blocks) -> None:
        weight.copy_(widened(tensor)).add_(offset)

    return name, Slot(tuple(weight.shape), "the norm's width", put)


def _linear_slots(
    name: str, linear: Linear, first: int, n_rows: int, bias: bool, rows: str, columns: str
) -> Iterator[tuple[str, Slot]]:
    def put(tensor: torch.Tensor | Blocks) -> None:
        linear.load(tensor, first)

    def put_bias(tensor: torch.Tensor | Blocks) -> None:
        linear.load_bias(widened(tensor), first)

    yield f"{name}.weight", Slot((n_rows, linear.n_in), f"{rows}, {columns}", put)
    if bias:
        yield f"{name}.bias", Slot((n_rows,), rows, put_bias)
