"""The buffers a step works in, allocated once."""

from __future__ import annotations

from functools import cached_property

import torch

from flipfast.engine.attention.base import AttentionMetadata
from flipfast.engine.models.layer import Rows, Step
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.ops.base import Ops


def workspace_bytes(spec: DecoderSpec, ops: Ops, max_tokens: int) -> int:
    """Device memory that a workspace takes at once, in bytes."""
    activations = max_tokens * (2 * spec.hidden_size + _scratch_width(spec))
    return activations * ops.activation_dtype.itemsize


def logits_bytes(spec: DecoderSpec, ops: Ops, max_logit_rows: int) -> int:
    """Device memory that a workspace takes when logits are first asked for, in bytes."""
    raw = 0 if ops.logits_dtype == torch.float32 else ops.logits_dtype.itemsize
    return max_logit_rows * spec.vocab_size * (4 + raw)


class Workspace:
    """Buffers for the largest step; a smaller one uses the first rows of each.

    Attention's and the MLP's share memory, as no layer needs both at once.

    Args:
        spec: of the model.
        ops: give device and dtype.
        max_tokens: most rows of a step.
        max_logit_rows: most rows of logits that are there at a time.
    """

    def __init__(self, spec: DecoderSpec, ops: Ops, max_tokens: int, max_logit_rows: int) -> None:
        self._spec = spec
        dtype, device = ops.activation_dtype, ops.device

        def buffer(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        heads, inner = spec.n_heads * spec.head_dim, spec.intermediate_size
        self._residual = buffer(max_tokens, spec.hidden_size)
        self._hidden = buffer(max_tokens, spec.hidden_size)
        scratch = buffer(max_tokens * _scratch_width(spec))
        self._qkv, self._mixed = _carve(scratch, max_tokens, _qkv_width(spec), heads)
        self._gate_up, self._inner = _carve(scratch, max_tokens, 2 * inner, inner)
        # In the place of what attention has read by then.
        (self._chosen_mixed,) = _carve(scratch, max_tokens, heads)
        self._logits_shape = (max_logit_rows, spec.vocab_size)
        self._logits_dtype = ops.logits_dtype

    def step(self, positions: torch.Tensor, metadata: AttentionMetadata) -> Step:
        """Buffers for a step of len(positions) tokens."""
        spec, n = self._spec, len(positions)
        qkv = self._qkv[:n]
        heads = qkv.view(n, spec.n_heads + 2 * spec.n_kv_heads, spec.head_dim)
        query, key, value = heads.split((spec.n_heads, spec.n_kv_heads, spec.n_kv_heads), dim=1)
        return Step(
            positions=positions,
            metadata=metadata,
            residual=self._residual[:n],
            hidden=self._hidden[:n],
            qkv=qkv,
            query=query,
            key=key,
            value=value,
            mixed=self._mixed[:n],
        )

    def rows(self, n: int) -> Rows:
        """All rows of a step of n tokens."""
        return Rows(
            mixed=self._mixed[:n],
            residual=self._residual[:n],
            hidden=self._hidden[:n],
            gate_up=self._gate_up[:n],
            inner=self._inner[:n],
        )

    def chosen_rows(self, chosen: torch.Tensor) -> Rows:
        """Any rows of a step, gathered: attention's results and the residual, which is then gone.

        The residual goes to the place of the hidden numbers, and those to its own.
        """
        m = len(chosen)
        mixed, residual = self._chosen_mixed[:m], self._hidden[:m]
        torch.index_select(self._mixed, 0, chosen, out=mixed)
        torch.index_select(self._residual, 0, chosen, out=residual)
        return Rows(
            mixed=mixed,
            residual=residual,
            hidden=self._residual[:m],
            gate_up=self._gate_up[:m],
            inner=self._inner[:m],
        )

    def logits(self, m: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, vocab_size) in the head's dtype and in float32; the same where that is one.

        m is at most max_logit_rows.
        """
        raw, logits = self._logits
        return raw[:m], logits[:m]

    @cached_property
    def _logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Made when first asked for: where the arg-max is taken in the head's product, never."""
        logits = torch.empty(self._logits_shape, dtype=torch.float32, device=self._hidden.device)
        if self._logits_dtype == torch.float32:
            return logits, logits
        return torch.empty_like(logits, dtype=self._logits_dtype), logits


def _qkv_width(spec: DecoderSpec) -> int:
    return (spec.n_heads + 2 * spec.n_kv_heads) * spec.head_dim


def _scratch_width(spec: DecoderSpec) -> int:
    attention = _qkv_width(spec) + spec.n_heads * spec.head_dim
    return max(attention, 3 * spec.intermediate_size)


def _carve(scratch: torch.Tensor, n: int, *widths: int) -> list[torch.Tensor]:
    """Matrices of n rows, one behind the other."""
    parts = scratch[: n * sum(widths)].split([n * width for width in widths])
    return [part.view(n, width) for part, width in zip(parts, widths, strict=True)]
