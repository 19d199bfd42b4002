"""Compiles a parser's automaton over a vocabulary, to run it on tokens without their text.

A byte automaton maps each token to a function from state to state; tokens with the same function
form a class, and a few hundred classes cover a whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from flipfast.errors import ConfigError
from flipfast.parsing.byte_automaton import ByteAutomaton
from flipfast.parsing.clean_outputs import clean_outputs
from flipfast_kernels.spans import (
    DEAD,
    LENGTH_BITS,
    MAX_CLASSES,
    NO_CHANGE,
    STATE_BITS,
    UNKNOWN,
    SpanAutomaton,
    find_spans,
)

__all__ = ["SpanAutomaton", "find_spans", "span_automaton"]

_Array = npt.NDArray[np.int64]
_LAST_EVENT = (1 << 15 - STATE_BITS) - 1  # bytes; an entry of the table is a positive int16


def span_automaton(token_bytes: Sequence[bytes | None], parser: str) -> SpanAutomaton:
    """Compile a parser's clean outputs over a vocabulary, for `flipfast_kernels.spans`.

    If `find_spans` gives FOUND, `extract_instruction` gives the status "ok" and the words of the
    span for the decoded output, with or without its first space; if EMPTY, it gives ("", "empty").
    Takes a few tenths of a second for 150,000 tokens.

    Args:
        token_bytes: the bytes that each token adds to the output, b"" if decoding skips it, None if
            unknown; such a token leaves its row undecided, as does one of more than 2,047 bytes.
        parser: "plain", "robust" or "reference".

    Returns:
        The automaton, on the CPU.

    Raises:
        ConfigError: the parser is unknown, there are no tokens, or they form too many classes.
    """
    if not token_bytes:
        raise ConfigError(f"token_bytes is {token_bytes!r}: expected one entry a token")
    automaton = clean_outputs(parser)
    longest = (1 << LENGTH_BITS) - 1
    known = np.array([raw is not None and len(raw) <= longest for raw in token_bytes])
    kept = [raw if fits and raw else b"" for raw, fits in zip(token_bytes, known, strict=True)]
    classes, table = _compile(automaton, kept, np.where(known, NO_CHANGE, UNKNOWN))
    words = classes << LENGTH_BITS | np.array([len(raw) for raw in kept])
    return SpanAutomaton(
        tokens=torch.from_numpy(words.astype(np.int32)),
        table=torch.from_numpy(table.astype(np.int16)),
        results=torch.tensor(automaton.results, dtype=torch.int32),
        first_inside=automaton.first_inside,
        first_after=automaton.first_after,
    )


def _compile(
    automaton: ByteAutomaton, token_bytes: Sequence[bytes], classes: _Array
) -> tuple[_Array, _Array]:
    """Return each token's class and each class's entries; `classes` has the initial classes.

    Reads all tokens at once, byte by byte: the next step is computed once for every pair of a
    current class and a next byte.
    """
    states = np.arange(len(automaton.results))
    table = [np.full_like(states, DEAD), states]
    places = {entries.tobytes(): at for at, entries in enumerate(table)}
    lens = np.array([len(raw) for raw in token_bytes])
    starts = np.cumsum(lens) - lens
    joined = np.frombuffer(b"".join(token_bytes), np.uint8)
    for read in range(lens.max()):
        longer = np.flatnonzero(lens > read)
        pairs = classes[longer] << 8 | joined[starts[longer] + read]
        different, which = np.unique(pairs, return_inverse=True)
        before = np.stack([table[at] for at in different >> 8])
        renamed = np.empty_like(different)
        for at, entries in enumerate(_step(automaton, before, different & 255, read)):
            renamed[at] = places.setdefault(entries.tobytes(), len(table))
            if renamed[at] == len(table):
                table.append(entries)
        classes[longer] = renamed[which]
    if len(table) > MAX_CLASSES:
        raise ConfigError(f"{len(table)} classes of tokens: at most {MAX_CLASSES} fit")
    return classes, np.stack(table)


def _step(automaton: ByteAutomaton, entries: _Array, letters: _Array, read: int) -> _Array:
    """Compute the entries of classes after one more byte, with `read` bytes before it."""
    mask = (1 << STATE_BITS) - 1
    first_inside, first_after = automaton.first_inside, automaton.first_after
    start = np.arange(entries.shape[1])
    state, event = entries & mask, entries >> STATE_BITS
    after = automaton.moves[state, letters[:, None]].astype(np.int64)
    begins = (state < first_inside) & (after >= first_inside)
    ends = (state < first_after) & (after >= first_after)
    event = np.where(begins, read + 1, np.where(ends, read, event))
    # An entry has room for only one event, and not for one late in a token.
    both = (start < first_inside) & (after >= first_after)
    return np.where(
        both | (after == DEAD) | (event > _LAST_EVENT), DEAD, event << STATE_BITS | after
    )
