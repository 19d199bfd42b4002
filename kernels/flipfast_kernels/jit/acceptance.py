# mypy: ignore-errors
"""Device code for the acceptance of drafted tokens in speculative decoding."""

import triton
import triton.language as tl


@triton.jit
def accept_kernel(
    chosen_ptr,
    fed_ptr,
    starts_ptr,
    draft_probs_ptr,
    uniforms_ptr,
    end_ids_ptr,
    budgets_ptr,
    slots_ptr,
    addresses_ptr,
    last_token_ptr,
    n_emitted_ptr,
    tokens_ptr,
    next_token_ptr,
    stop_ptr,
    n_end_ids,
    width,
    HAS_DRAFTS: tl.constexpr,
    HAS_PROBS: tl.constexpr,
    HAS_END_IDS: tl.constexpr,
    HAS_BUDGETS: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    HAS_ADDRESSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One sequence per program, all its positions in parallel."""
    row = tl.program_id(0).to(tl.int64)
    if HAS_DRAFTS:
        start = tl.load(starts_ptr + row).to(tl.int64)
        n_positions = tl.minimum(tl.load(starts_ptr + row + 1) - start, width)
    else:
        start = row
        n_positions = tl.full((), 1, tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < n_positions
    tokens = tl.load(chosen_ptr + start + at, mask=inside, other=-1)
    n_accepted = 0
    if HAS_DRAFTS:
        drafted = at + 1 < n_positions
        drafts = tl.load(fed_ptr + start + at + 1, mask=drafted, other=-1)
        if HAS_PROBS:
            uniforms = tl.load(uniforms_ptr + start + at, mask=drafted, other=1.0)
            probs = tl.load(draft_probs_ptr + start + at, mask=drafted, other=0.0)
            accepted = uniforms < probs
        else:
            accepted = tokens == drafts
        accepted = accepted & (tokens >= 0) & (drafts >= 0)
        n_accepted = tl.min(tl.where(accepted, BLOCK, at), axis=0)
        tokens = tl.where(at < n_accepted, drafts, tokens)

    # The row ends at the first end token, at its budget or at a position without a token.
    n_known = tl.sum((inside & (at <= n_accepted) & (tokens >= 0)).to(tl.int32), axis=0)
    is_end = at < 0
    if HAS_END_IDS:
        for i in range(n_end_ids):
            is_end = is_end | (tokens == tl.load(end_ids_ptr + i))
    to_end = tl.min(tl.where(is_end, at, BLOCK), axis=0) + 1
    n_emitted = tl.minimum(n_known, to_end)
    stop = tl.where((n_positions > 0) & (n_known <= n_accepted), 3, 0)
    if HAS_BUDGETS:
        budget = tl.maximum(tl.load(budgets_ptr + row), 0)
        stop = tl.where((n_positions > 0) & (n_emitted >= budget), 2, stop)
        n_emitted = tl.minimum(n_emitted, budget)
    stop = tl.where(to_end <= n_emitted, 1, stop)

    next_token = tl.sum(tl.where(at == n_emitted - 1, tokens + 1, 0), axis=0) - 1
    tl.store(n_emitted_ptr + row, n_emitted)
    tl.store(next_token_ptr + row, next_token)
    tl.store(stop_ptr + row, stop)
    tl.store(tokens_ptr + row * width + at, tl.where(at < n_emitted, tokens, -1), mask=at < width)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + row)
        to_feed = tl.maximum(next_token, 0)
        tl.store(last_token_ptr + slot, to_feed, mask=n_positions > 0)
    if HAS_ADDRESSES:
        address = tl.load(addresses_ptr + row)
        to = address.to(tl.pointer_type(tl.int32))
        n_kept = tl.where(address != 0, n_emitted, 0)
        tl.store(to + at, tokens.to(tl.int32), mask=at < n_kept)
