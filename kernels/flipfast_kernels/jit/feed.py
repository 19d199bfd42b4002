# mypy: ignore-errors
"""Device code that feeds a step the tokens that the step before has sampled."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_ids"])
def feed_kernel(ids_ptr, slots_ptr, last_token_ptr, n_ids, BLOCK: tl.constexpr):
    """BLOCK ids per program."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    slots = tl.load(slots_ptr + at, mask=at < n_ids, other=-1)
    fed = slots >= 0
    tl.store(ids_ptr + at, tl.load(last_token_ptr + slots, mask=fed, other=0), mask=fed)
