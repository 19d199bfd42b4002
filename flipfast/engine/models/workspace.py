"""The buffers that steps use, allocated once."""

from __future__ import annotations

from functools import cached_property

import torch

from flipfast.engine.attention.base import AttentionMetadata
from flipfast.engine.models.layer import Rows, Step
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.ops.base import Ops


def workspace_bytes(spec: DecoderSpec, ops: Ops, max_tokens: int) -> int:
    """Device memory that a workspace allocates when created, in bytes."""
    activations = max_tokens * (2 * spec.hidden_size + _scratch_width(spec))
    return activations * ops.activation_dtype.itemsize


def logits_bytes(spec: DecoderSpec, ops: Ops, max_logit_rows: int) -> int:
    """Device memory that a workspace allocates when logits are first requested, in bytes."""
    raw = 0 if ops.logits_dtype == torch.float32 else ops.logits_dtype.itemsize
    return max_logit_rows * spec.vocab_size * (4 + raw)


class Workspace:
    """Buffers for the largest step; a smaller step uses the first rows of each.

    The buffers of attention and MLP share memory, as no layer needs both at once.

    Args:
        spec: of the model.
        ops: determine device and dtype.
        max_tokens: maximum number of rows of a step.
        max_logit_rows: maximum number of rows of logits at a time.
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
        # Overlaps qkv, which attention has read by then.
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
        """Gather some rows of a step's attention results and residual.

        The hidden and residual buffers swap roles, so the full residual is overwritten later.
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
        """Buffers (m, vocab_size) in the head's dtype and in float32; one buffer if these agree.

        m is at most max_logit_rows.
        """
        raw, logits = self._logits
        return raw[:m], logits[:m]

    @cached_property
    def _logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Allocated on first use: never, if the head's product computes the arg-max itself."""
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
    """Split a buffer into consecutive matrices of n rows."""
    parts = scratch[: n * sum(widths)].split([n * width for width in widths])
    return [part.view(n, width) for part, width in zip(parts, widths, strict=True)]
