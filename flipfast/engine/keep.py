"""Stores a step's output tokens on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from flipfast.engine.batch import StepBatch

# keep(tokens, batch, last_token) writes the last output token of each sampling sequence to
# last_token[slot], a negative one as 0, and all of them as int32 to the sequence's address, if it
# has one. tokens, (n,) int64, are those chosen after the batch's logit rows.
KeepTokens = Callable[[torch.Tensor, StepBatch, torch.Tensor], None]


def keep_tokens(tokens: torch.Tensor, batch: StepBatch, last_token: torch.Tensor) -> None:
    """`KeepTokens` in plain torch, which cannot write to addresses.

    Raises:
        ValueError: the batch has output addresses.
    """
    if batch.output_addresses is not None:
        raise ValueError("output rows on the device need the Triton kernels")
    if batch.cu_logits is not None:
        return  # after a draft, the host supplies the next token
    # A sequence with bad logits ends here; token 0 only fills its row in a step in flight.
    last_token[batch.sample_slots] = tokens.clamp(min=0)


def fused_keep() -> KeepTokens | None:
    """`KeepTokens` as one Triton kernel, which can also write to addresses; None without Triton."""
    try:
        from flipfast_kernels.acceptance import MAX_POSITIONS, accept_tokens
    except ImportError:
        return None

    def keep(tokens: torch.Tensor, batch: StepBatch, last_token: torch.Tensor) -> None:
        drafted = batch.cu_logits is not None
        accept_tokens(
            tokens,
            batch.input_ids[batch.logit_rows] if drafted else None,
            batch.cu_logits,
            max_positions=MAX_POSITIONS if drafted else 1,  # which the kernel is compiled for
            slots=batch.sample_slots,
            last_token=last_token,
            output_addresses=batch.output_addresses,
            validate=False,
        )

    return keep
