"""What becomes of a pass over drafted tokens: how many are kept, the next one, who stops."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from flipfast_kernels.jit.acceptance import accept_kernel
from flipfast_kernels.launch import (
    check_device,
    check_offsets,
    check_range,
    check_shape,
    power_of_two,
)

RUNS, END_TOKEN, BUDGET, BAD_LOGITS = range(4)
MAX_POSITIONS = 65  # of a sequence in a pass: 64 drafted tokens and one more


@dataclass(frozen=True)
class Acceptance:
    """What a pass adds to N sequences.

    Attributes:
        n_emitted: (N,) int32, tokens added.
        tokens: (N, max_positions) int64, these tokens, then -1.
        next_token: (N,) int64, the last of them, which is fed next; -1 where there is none.
        stop: (N,) int32. RUNS (0); END_TOKEN (1), the last token is an end token; BUDGET (2), it
            is the last one allowed; BAD_LOGITS (3), there was no token to add behind the last.
    """

    n_emitted: torch.Tensor
    tokens: torch.Tensor
    next_token: torch.Tensor
    stop: torch.Tensor


def accept_tokens(
    chosen: torch.Tensor,
    fed: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    *,
    max_positions: int = 1,
    draft_probs: torch.Tensor | None = None,
    uniforms: torch.Tensor | None = None,
    end_ids: torch.Tensor | None = None,
    budgets: torch.Tensor | None = None,
    slots: torch.Tensor | None = None,
    last_token: torch.Tensor | None = None,
    output_addresses: torch.Tensor | None = None,
    out: Acceptance | None = None,
    validate: bool = True,
) -> Acceptance:
    """Keep the drafted tokens that the model agrees with and the token that follows them.

    A sequence with d drafted tokens has d + 1 positions in the pass: its last known token is fed
    at the first, its drafts at the others, and at each the model says what comes next. Emitted
    are the accepted drafts and the token chosen at the position behind them, up to and with the
    first end token, and no more than the budget. Without drafts that is plain decoding, and then
    fed and cu_seqlens may be left out: every sequence has one position.

    Greedy, without draft_probs: a draft is accepted while it is the arg-max chosen at the position
    before it, so the output is that of decoding token by token.

    Sampled, with draft_probs: rejection sampling (Leviathan et al. 2023; Chen et al. 2023) for a
    drafter that proposes one token with certainty. The draft behind position j is accepted while
    uniforms[j] < draft_probs[j], its probability under the model. `chosen` must then hold, at each
    position that a draft follows, a token drawn from the model's distribution with the draft's
    probability set to 0 and the rest scaled up to 1 (any token >= 0 where nothing is left), and
    at a sequence's last position a token drawn from the whole distribution, with random numbers
    that are independent of the uniforms. Every emitted token then has the model's distribution
    given those before it. "The model's" is after temperature, top-k and top-p.

    One program a sequence. Work: a few comparisons a position. Bytes: 16 a position (24 to 32 with
    draft_probs), and 16 + 8 * max_positions a sequence with 8 to 24 more for the bookkeeping. On
    an H200 (4.8 TB/s by the datasheet) 256 sequences of one position take 3 nanoseconds of that:
    what counts is that it is one launch.

    Args:
        chosen: (T,) int64, the token chosen at each position, sequence behind sequence; -1 where
            the logits were not finite.
        fed: (T,) int64, the token fed at each position; a sequence's first is not read.
        cu_seqlens: (N + 1,) int32, where each sequence's positions start, and T at the end. A
            sequence with none emits nothing and leaves last_token as it is.
        max_positions: at least the largest number of positions of a sequence, at most 65.
        draft_probs: (T,) float32 or float64 in [0, 1]; a sequence's last is not read.
        uniforms: (T,) float32 or float64 in [0, 1); a sequence's last is not read. Rounding float64
            to float32 may give 1, which rejects a certain draft: pass it as it is.
        end_ids: (E,) int64; None for none.
        budgets: (N,) int32, tokens each sequence may still add; None for no limit.
        slots: (N,) int64, each sequence's place in last_token, or None without that.
        last_token: (places,) int64; slots' entries are overwritten by next_token, by 0 where that
            is -1.
        output_addresses: (N,) int64, addresses of int32 numbers in the memory of the device, where
            the emitted tokens are written one behind the other; 0 for nowhere. The caller
            answers for the memory: it is not checked.
        out: tensors to overwrite; None makes them.
        validate: whether cu_seqlens and slots are read and checked; on CUDA the host waits for
            that.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, arguments of which one
            needs the other, offsets that fall or do not end at T, a sequence of more than
            max_positions, a slot that last_token does not have.
    """
    n = chosen.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    if out is None:
        out = _make_out(n, max_positions, chosen.device)
    pairs = {"fed": fed, "cu_seqlens": cu_seqlens, "slots": slots, "last_token": last_token}
    pairs |= {"draft_probs": draft_probs, "uniforms": uniforms}
    others = {"end_ids": end_ids, "budgets": budgets, "output_addresses": output_addresses}
    tensors = {"chosen": chosen, **pairs, **others, **vars(out)}
    _check(tensors, n, max_positions)
    check_device(accept_kernel, **tensors)
    if validate:
        _check_values(chosen, cu_seqlens, max_positions, slots, last_token)
    if n == 0:
        return out
    accept_kernel[(n,)](
        chosen,
        fed,
        cu_seqlens,
        draft_probs,
        uniforms,
        end_ids,
        budgets,
        slots,
        output_addresses,
        last_token,
        out.n_emitted,
        out.tokens,
        out.next_token,
        out.stop,
        0 if end_ids is None else end_ids.shape[0],
        max_positions,
        HAS_DRAFTS=fed is not None,
        HAS_PROBS=draft_probs is not None,
        HAS_END_IDS=end_ids is not None,
        HAS_BUDGETS=budgets is not None,
        HAS_SLOTS=slots is not None,
        HAS_ADDRESSES=output_addresses is not None,
        BLOCK=power_of_two(max_positions),
        num_warps=1,
    )
    return out


def accept_tokens_ref(
    chosen: torch.Tensor,
    fed: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    *,
    max_positions: int = 1,
    draft_probs: torch.Tensor | None = None,
    uniforms: torch.Tensor | None = None,
    end_ids: torch.Tensor | None = None,
    budgets: torch.Tensor | None = None,
    slots: torch.Tensor | None = None,
    last_token: torch.Tensor | None = None,
) -> Acceptance:
    """What `accept_tokens` does but for output_addresses, one token after the other."""
    starts = range(chosen.shape[0] + 1) if cu_seqlens is None else cu_seqlens.tolist()
    out = _make_out(len(starts) - 1, max_positions, chosen.device)
    ends = set() if end_ids is None else set(end_ids.tolist())
    for row, (start, end) in enumerate(pairwise(starts)):
        budget = max_positions if budgets is None else int(budgets[row])
        tokens: list[int] = []
        stop = RUNS
        for at in range(start, end):
            token, goes_on = int(chosen[at]), False
            if fed is not None and at + 1 < end and token >= 0:
                goes_on = _agrees(at, token, int(fed[at + 1]), draft_probs, uniforms)
                token = int(fed[at + 1]) if goes_on else token
            if len(tokens) >= budget:
                stop = BUDGET
            elif token < 0:
                stop = BAD_LOGITS
            else:
                tokens.append(token)
                stop = END_TOKEN if token in ends else BUDGET if len(tokens) == budget else RUNS
            if stop != RUNS or not goes_on:
                break
        out.n_emitted[row], out.stop[row] = len(tokens), stop
        out.tokens[row] = torch.tensor(tokens + [-1] * (max_positions - len(tokens)))
        out.next_token[row] = tokens[-1] if tokens else -1
        if slots is not None and last_token is not None and end > start:
            last_token[slots[row]] = out.next_token[row].clamp(min=0)
    return out


def _agrees(
    at: int,
    token: int,
    draft: int,
    draft_probs: torch.Tensor | None,
    uniforms: torch.Tensor | None,
) -> bool:
    if draft_probs is None or uniforms is None:
        return token == draft
    return draft >= 0 and float(uniforms[at]) < float(draft_probs[at])


def _make_out(n: int, max_positions: int, device: torch.device) -> Acceptance:
    def ints(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return Acceptance(
        n_emitted=ints(n, dtype=torch.int32),
        tokens=ints(n, max_positions, dtype=torch.int64),
        next_token=ints(n, dtype=torch.int64),
        stop=ints(n, dtype=torch.int32),
    )


_INT32 = ("cu_seqlens", "budgets", "n_emitted", "stop")
_PROBABILITIES = ("draft_probs", "uniforms")


def _check(tensors: dict[str, torch.Tensor | None], n: int, max_positions: int) -> None:
    if not 0 < max_positions <= MAX_POSITIONS:
        raise ValueError(f"max_positions is {max_positions}: expected 1 to {MAX_POSITIONS}")
    for one, other in (("fed", "cu_seqlens"), ("slots", "last_token"), _PROBABILITIES):
        if (tensors[one] is None) != (tensors[other] is None):
            raise ValueError(f"{one} and {other} need each other: pass both or neither")
    if tensors["draft_probs"] is not None and tensors["fed"] is None:
        raise ValueError("draft_probs need fed, which has the drafts")
    chosen = tensors["chosen"]
    assert chosen is not None
    position = (chosen.shape[0],)
    shapes: dict[str, tuple[int, ...]]
    shapes = {"chosen": position, "fed": position, "draft_probs": position, "uniforms": position}
    shapes |= {"cu_seqlens": (n + 1,), "tokens": (n, max_positions)}
    free = ("end_ids", "last_token")
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name not in free:
            check_shape(name, tensor, shapes.get(name, (n,)))
        elif tensor.dim() != 1:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected 1 dimension")
        _check_dtype(name, tensor)


def _check_dtype(name: str, tensor: torch.Tensor) -> None:
    dtypes = [torch.int32 if name in _INT32 else torch.int64]
    if name in _PROBABILITIES:
        dtypes = [torch.float32, torch.float64]
    if tensor.dtype not in dtypes:
        raise ValueError(f"{name} is {tensor.dtype}: pass {' or '.join(map(str, dtypes))}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has strides {tensor.stride()}: call contiguous()")


def _check_values(
    chosen: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    max_positions: int,
    slots: torch.Tensor | None,
    last_token: torch.Tensor | None,
) -> None:
    if cu_seqlens is not None:
        total = chosen.shape[0]
        check_offsets("cu_seqlens", cu_seqlens, total)
        lens = cu_seqlens.diff()
        check_range("the number of positions", lens, 0, max_positions + 1)
        first, last = int(cu_seqlens[0]), int(cu_seqlens[-1])
        if first != 0 or last != total:
            raise ValueError(f"cu_seqlens runs from {first} to {last}: expected 0 to {total}")
    if slots is not None and last_token is not None:
        check_range("slots", slots, 0, last_token.shape[0])
