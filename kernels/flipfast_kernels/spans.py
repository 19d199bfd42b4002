"""Finding the instruction's byte span in a model's output from token ids, without the text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from flipfast_kernels.jit.spans import find_spans_kernel
from flipfast_kernels.launch import (
    check_device,
    check_integers,
    check_last_stride,
    check_range,
    check_shape,
)

UNDECIDED, FOUND, EMPTY = 0, 1, 2
DEAD, START = 0, 1  # states: DEAD is never left, every row begins in START
UNKNOWN, NO_CHANGE = 0, 1  # classes: of tokens with unknown bytes, and of tokens that add none
LENGTH_BITS, STATE_BITS = 11, 8  # low bits of a token's word and of a table entry
MAX_CLASSES = 1 << 20  # so that a table has at most 2**28 entries
_BLOCK, _UNROLL = 32, 8
_LONGEST_ROW = 1 << 20  # tokens; keeps positions below 2**31


@dataclass(frozen=True)
class SpanAutomaton:
    """A byte automaton compiled over a vocabulary: the transition of each state on each token.

    Tokens with the same transitions form a class, so that the table is small enough to stay in
    cache. States are ordered by phase: 0 is dead, those below first_inside are before the value,
    those from first_after on are after its closing quote.

    Attributes:
        tokens: (V,) int32, class << LENGTH_BITS | number of bytes. Class 0 holds the tokens with
            unknown bytes, class 1 changes no state.
        table: (classes, states) int16, index << STATE_BITS | next state. The index is that of the
            token's first byte inside the value or of the byte that ends it, whichever it reaches.
        results: (states,) int32, the status of a row that ends in the state.
        first_inside, first_after: the first states inside and after the value.
    """

    tokens: torch.Tensor
    table: torch.Tensor
    results: torch.Tensor
    first_inside: int
    first_after: int

    def to(self, device: torch.device | str) -> SpanAutomaton:
        """The same automaton with its tensors on a device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            table=self.table.to(device),
            results=self.results.to(device),
        )


class Spans(NamedTuple):
    """Spans in the concatenated bytes of each row's tokens, int32 (N,); 0, 0 unless FOUND."""

    begin: torch.Tensor
    end: torch.Tensor
    status: torch.Tensor


def find_spans(
    token_ids: torch.Tensor,
    lens: torch.Tensor,
    automaton: SpanAutomaton,
    validate: bool = True,
) -> Spans:
    """Find each row's instruction: the byte range [begin, end) and a status.

    FOUND and EMPTY are certain; UNDECIDED means that the row's text needs the parser that the
    automaton was built from. One lane walks a row, so its result depends on its own tokens only.
    A token unknown to the automaton makes its row UNDECIDED.

    Operations: about 25 integer ones per token. Bytes per token: 4 or 8 of the id and 4 of its
    class, so with int64 ids at least 12 * sum(lens) / 4.8e12 seconds on an H200 (4.8 TB/s per the
    datasheet); the table, less than a hundred kilobytes, stays in cache. The real bound is latency:
    a token's loads depend on each other, and at about 300 cycles per L2 load a row of 64 tokens
    takes 10 to 15 microseconds, however many rows there are. That is an estimate.

    Args:
        token_ids: (N, T) int32 or int64, any row stride; entries from a row's length on are
            ignored.
        lens: (N,) int32, each in [0, T].
        automaton: on the device of the ids.
        validate: check the values of ids, lengths and automaton; on CUDA the host waits for that.
            Without it no value causes an out-of-bounds access, as long as the automaton is sound.

    Returns:
        Spans of int32 (N,) each.

    Raises:
        ValueError: dtypes, shapes, strides, devices or values that do not fit.
    """
    _check(token_ids, lens, automaton)
    check_device(
        find_spans_kernel,
        token_ids=token_ids,
        lens=lens,
        tokens=automaton.tokens,
        table=automaton.table,
        results=automaton.results,
    )
    if validate:
        _check_values(token_ids, lens, automaton)
    n_rows, width = token_ids.shape
    begin, end, status = torch.empty((3, n_rows), dtype=torch.int32, device=token_ids.device)
    if n_rows == 0:
        return Spans(begin, end, status)
    find_spans_kernel[(-(-n_rows // _BLOCK),)](
        token_ids,
        lens,
        automaton.tokens,
        automaton.table,
        automaton.results,
        begin,
        end,
        status,
        n_rows,
        width,
        token_ids.stride(0),
        automaton.tokens.shape[0],
        automaton.table.shape[1],
        automaton.first_inside,
        automaton.first_after,
        **find_spans_constants(),
        num_warps=1,
    )
    return Spans(begin, end, status)


def find_spans_constants() -> dict[str, int]:
    """The kernel's constexpr arguments."""
    return {
        "START": START,
        "NO_CHANGE": NO_CHANGE << LENGTH_BITS,
        "LENGTH_BITS": LENGTH_BITS,
        "STATE_BITS": STATE_BITS,
        "FOUND": FOUND,
        "BLOCK": _BLOCK,
        "UNROLL": _UNROLL,
    }


def find_spans_ref(
    token_ids: torch.Tensor,
    lens: torch.Tensor,
    automaton: SpanAutomaton,
    validate: bool = True,
) -> Spans:
    """Reference for `find_spans`: all rows together, one token at a time."""
    _check(token_ids, lens, automaton)
    if validate:
        _check_values(token_ids, lens, automaton)
    state = torch.full_like(lens, START, dtype=torch.int64)
    position, begin, end = (torch.zeros_like(state) for _ in range(3))
    for column in range(token_ids.shape[1]):
        token = token_ids[:, column].long()
        vocab = automaton.tokens.shape[0]
        known = (token >= 0) & (token < vocab)
        word = torch.where(known, automaton.tokens[token.clamp(0, vocab - 1)], 0)
        word = torch.where(column < lens, word, NO_CHANGE << LENGTH_BITS)
        entry = automaton.table[word >> LENGTH_BITS, state].long()
        after, event = entry % (1 << STATE_BITS), position + (entry >> STATE_BITS)
        for edge, first in ((begin, automaton.first_inside), (end, automaton.first_after)):
            reached = (state < first) & (after >= first)
            edge[reached] = event[reached]
        position += word % (1 << LENGTH_BITS)
        state = after
    end = torch.where(state >= automaton.first_after, end, position)
    status = automaton.results[state]
    found = status == FOUND
    return Spans(torch.where(found, begin, 0).int(), torch.where(found, end, 0).int(), status)


def _check(token_ids: torch.Tensor, lens: torch.Tensor, automaton: SpanAutomaton) -> None:
    if token_ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"token_ids is {token_ids.dtype}: pass int32 or int64")
    if token_ids.dim() != 2 or token_ids.shape[1] > _LONGEST_ROW:
        raise ValueError(
            f"token_ids has shape {tuple(token_ids.shape)}: expected rows of at most "
            f"{_LONGEST_ROW} tokens"
        )
    check_last_stride("token_ids", token_ids)
    check_integers(lens=lens)
    if lens.dtype != torch.int32:
        raise ValueError(f"lens is {lens.dtype}: pass int32")
    check_shape("lens", lens, (token_ids.shape[0],))
    dtypes = {"tokens": torch.int32, "table": torch.int16, "results": torch.int32}
    for name, dtype in dtypes.items():
        tensor = getattr(automaton, name)
        dims = 2 if name == "table" else 1
        if tensor.dtype != dtype or tensor.dim() != dims or not tensor.is_contiguous():
            raise ValueError(
                f"automaton.{name} is {tensor.dtype} {tuple(tensor.shape)}: expected {dtype}, "
                f"contiguous, of {dims} dimensions"
            )
    n_classes, n_states = automaton.table.shape
    if not NO_CHANGE < n_classes <= MAX_CLASSES or not START < n_states <= 1 << STATE_BITS:
        raise ValueError(
            f"automaton.table has shape {(n_classes, n_states)}: expected {NO_CHANGE + 1} to "
            f"{MAX_CLASSES} classes and {START + 1} to {1 << STATE_BITS} states"
        )
    check_shape("automaton.results", automaton.results, (n_states,))


def _check_values(token_ids: torch.Tensor, lens: torch.Tensor, automaton: SpanAutomaton) -> None:
    check_range("lens", lens, 0, token_ids.shape[1] + 1)
    columns = torch.arange(token_ids.shape[1], device=token_ids.device)
    counted = torch.where(columns < lens[:, None], token_ids, 0)
    check_range("token_ids", counted, 0, automaton.tokens.shape[0])
    n_classes, n_states = automaton.table.shape
    check_range("a class of automaton.tokens", automaton.tokens >> LENGTH_BITS, 0, n_classes)
    check_range("a state of automaton.table", automaton.table % (1 << STATE_BITS), 0, n_states)
