"""What of a step's output tokens stays on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from flipfast.engine.batch import StepBatch

# keep(tokens, batch, last_token) puts the last output token of each sampling sequence to
# last_token[slot], a negative one as 0, and all of them as int32 to the sequence's address, where
# it has one. Tokens (n,) int64 are those chosen behind the batch's logit rows.
KeepTokens = Callable[[torch.Tensor, StepBatch, torch.Tensor], None]


def keep_tokens(tokens: torch.Tensor, batch: StepBatch, last_token: torch.Tensor) -> None:
    """`KeepTokens` in plain torch, which cannot write to addresses."""
    if batch.output_addresses is not None:
        raise ValueError("output rows on the device need the Triton kernels")
    if batch.cu_logits is not None:
        return  # behind a draft the host feeds the next token
    # A row of bad logits ends here; token 0 only fills its place in a step under way.
    last_token[batch.sample_slots] = tokens.clamp(min=0)


def fused_keep() -> KeepTokens | None:
    """`KeepTokens` as one kernel, which can also write to addresses; None without Triton."""
    try:
        from flipfast_kernels.acceptance import accept_tokens
    except ImportError:
        return None

    def keep(tokens: torch.Tensor, batch: StepBatch, last_token: torch.Tensor) -> None:
        drafted = batch.cu_logits is not None
        accept_tokens(
            tokens,
            batch.input_ids[batch.logit_rows] if drafted else None,
            batch.cu_logits,
            max_positions=batch.max_logits,
            slots=batch.sample_slots,
            last_token=last_token,
            output_addresses=batch.output_addresses,
            validate=False,
        )

    return keep
