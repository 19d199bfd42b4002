"""Where a step's output tokens stay on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch

# keep(tokens, slots, last_token, addresses) puts each of tokens (n,) int64 to last_token[slot], a
# negative one as 0, and as int32 to its address, where there is one that is not 0.
KeepTokens = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "torch.Tensor | None"], None]


def keep_tokens(
    tokens: torch.Tensor,
    slots: torch.Tensor,
    last_token: torch.Tensor,
    addresses: torch.Tensor | None,
) -> None:
    """`KeepTokens` in plain torch, which cannot write to addresses."""
    if addresses is not None:
        raise ValueError("output rows on the device need the Triton kernels")
    # A row of bad logits ends here; token 0 only fills its place in a step under way.
    last_token[slots] = tokens.clamp(min=0)


def fused_keep() -> KeepTokens | None:
    """`KeepTokens` as one kernel, which can also write to addresses; None without Triton."""
    try:
        from flipfast_kernels.acceptance import accept_tokens
    except ImportError:
        return None

    def keep(
        tokens: torch.Tensor,
        slots: torch.Tensor,
        last_token: torch.Tensor,
        addresses: torch.Tensor | None,
    ) -> None:
        accept_tokens(
            tokens, slots=slots, last_token=last_token, output_addresses=addresses, validate=False
        )

    return keep
