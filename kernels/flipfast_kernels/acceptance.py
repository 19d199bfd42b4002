"""Acceptance of drafted tokens in speculative decoding: tokens kept, next token, stop reason."""

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
MAX_POSITIONS = 65  # per sequence and pass: 64 drafted tokens and one more


@dataclass(frozen=True)
class Acceptance:
    """What a pass adds to N sequences.

    Attributes:
        n_emitted: (N,) int32, number of tokens added.
        tokens: (N, max_positions) int64, the added tokens, padded with -1.
        next_token: (N,) int64, the last added token, which is fed next; -1 if there is none.
        stop: (N,) int32. RUNS (0); END_TOKEN (1), the last token is an end token; BUDGET (2), the
            budget is used up; BAD_LOGITS (3), `chosen` is -1 after the last token.
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
    at the first, its drafts at the others, and each position predicts the next token. The pass
    emits the accepted drafts and the token chosen at the position after them, up to and including
    the first end token and never more than the budget. Without drafts this is plain decoding: fed
    and cu_seqlens may be omitted, and every sequence has one position.

    Greedy, without draft_probs: drafts are accepted as long as each equals the arg-max chosen at
    the position before it, so the output equals that of decoding token by token.

    Sampled, with draft_probs: rejection sampling (Leviathan et al. 2023; Chen et al. 2023) for a
    drafter that proposes one token with certainty. The draft after position j is accepted if
    uniforms[j] < draft_probs[j], its probability under the model. `chosen` must then hold, at each
    position that a draft follows, a token drawn from the model's distribution with the draft's
    probability set to 0 and the rest renormalized (any token >= 0 if nothing is left), and at a
    sequence's last position a token drawn from the whole distribution, with random numbers
    independent of the uniforms. Every emitted token then follows the model's distribution given
    the tokens before it. "The model's" means after temperature, top-k and top-p.

    One program per sequence. Work: a few comparisons per position. Bytes: 16 per position (24 to
    32 with draft_probs), and 16 + 8 * max_positions per sequence plus 8 to 24 for bookkeeping. On
    an H200 (4.8 TB/s per the datasheet) 256 sequences of one position need 3 nanoseconds for that:
    what matters is that it is one launch.

    Args:
        chosen: (T,) int64, the token chosen at each position, sequences concatenated; -1 where
            the logits were not finite.
        fed: (T,) int64, the token fed at each position; a sequence's first is not read.
        cu_seqlens: (N + 1,) int32, where each sequence's positions start, and T at the end. A
            sequence without positions emits nothing and leaves last_token unchanged.
        max_positions: upper bound on the positions of a sequence, at most 65.
        draft_probs: (T,) float32 or float64 in [0, 1]; a sequence's last is not read.
        uniforms: (T,) float32 or float64 in [0, 1); a sequence's last is not read. Do not round
            float64 to float32: that may give 1, which rejects a draft of probability 1.
        end_ids: (E,) int64; None for none.
        budgets: (N,) int32, tokens each sequence may still add; None for no limit.
        slots: (N,) int64, each sequence's index into last_token; None without last_token.
        last_token: (places,) int64; the entries at slots are overwritten by next_token, or by 0
            where that is -1.
        output_addresses: (N,) int64, device addresses of int32 memory to which the emitted tokens
            are written contiguously; 0 for nowhere. The caller is responsible for the memory: it
            is not checked.
        out: tensors to overwrite; None allocates them.
        validate: read and check cu_seqlens and slots; on CUDA the host waits for that.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, one of two arguments that
            need each other, offsets that decrease or do not end at T, a sequence of more than
            max_positions, a slot out of last_token's range.
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
    """Reference for `accept_tokens`, one token at a time, without output_addresses."""
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
