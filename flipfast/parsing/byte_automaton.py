"""Deterministic automata over bytes that recognise the outputs whose parse is plain to see.

Each stays on the safe side of one parser: in the state it ends in, an output's instruction is
certain, or the output is undecided. Bytes beyond ASCII are followed only where no white space,
quote or letter in disguise could matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flipfast.errors import ConfigError

UNDECIDED, FOUND, EMPTY = 0, 1, 2
DEAD, START = 0, 1
# Phases of a state: before the value, inside it, behind its closing quote.
BEFORE, INSIDE, AFTER = 0, 1, 2

_ASCII = bytes(range(128))
_NOT_ASCII = bytes(range(128, 256))
_PYTHON_SPACE = bytes(c for c in _ASCII if chr(c).isspace())
_JSON_SPACE = b" \t\n\r"
_IN_STRING = bytes(c for c in range(0x20, 256) if c not in b'"\\')
_FENCE = (b"`",) * 3
_REASONING = tuple(bytes((c, c + 32)) for c in b"REASONING")  # in any case
_ROBUST_KEYS = [
    [b" _-" if c == 32 else bytes((c, c + 32)) for c in b"INFERRED INSTRUCTION"],
]
_PUBLISHED_KEYS = [
    [bytes((c,)) for c in b"INFERRED INSTRUCTION"],
    [b" _" if c == 32 else bytes((c,)) for c in b"inferred instruction"],
    [bytes((c,)) for c in b"Inferred_Instruction"],
]
_LABEL_NOUNS = (b"instruction", b"prompt")
_LABEL_WORDS = (b"the", b"inferred", b"original", b"likely", b"user", b"user's")


@dataclass(frozen=True)
class ByteAutomaton:
    """States in the order of their phases, state 0 dead, state 1 the first.

    The value begins behind the byte that leads to a state from first_inside on, and ends before
    the byte that leads to one from first_after on.

    Attributes:
        moves: uint8 (states, 256), the state behind each byte.
        results: UNDECIDED, FOUND or EMPTY where the output ends, a state.
        first_inside, first_after: states.
    """

    moves: npt.NDArray[np.uint8]
    results: tuple[int, ...]
    first_inside: int
    first_after: int


def byte_automaton(parser: str) -> ByteAutomaton:
    """The automaton of a parser: "plain", "robust" or "reference"; ConfigError for others."""
    draw = _DRAW.get(parser)
    if draw is None:
        raise ConfigError(f"unknown parser {parser!r}: use one of {', '.join(_DRAW)}")
    drawing = _Drawing()
    draw(drawing)
    return drawing.finished()


class _Drawing:
    """An automaton in the making: every move that is not drawn leads to the dead state."""

    def __init__(self) -> None:
        self._moves = [[DEAD] * 256]
        self._phases = [-1]
        self._results = [UNDECIDED]

    def state(self, phase: int, result: int = UNDECIDED, stay: bytes = b"") -> int:
        """A new state that some bytes do not leave."""
        new = len(self._moves)
        self._moves.append([DEAD] * 256)
        self._phases.append(phase)
        self._results.append(result)
        self.on(new, stay, new)
        return new

    def on(self, state: int, letters: bytes, to: int) -> None:
        """Move on any of these bytes."""
        for letter in letters:
            self._moves[state][letter] = to

    def otherwise(self, state: int, letters: bytes, to: int) -> None:
        """Move on those of these bytes that lead nowhere so far."""
        self.on(state, bytes(c for c in letters if self._moves[state][c] == DEAD), to)

    def spell(self, state: int, word: Sequence[bytes], to: int | None = None) -> int:
        """Add a word to the tree below a state, each letter any of some bytes.

        Steps that are there already are shared. Leads to `to` or a step of its own; returns it.
        """
        for place, letters in enumerate(word):
            step = self._moves[state][letters[0]]
            if to is not None and place == len(word) - 1:
                step = to
            elif step == DEAD:
                step = self.state(self._phases[state], self._results[state])
            self.on(state, letters, step)
            state = step
        return state

    def watch_tags(self, state: int) -> int:
        """Stop where `<` opens what may be a tag of thoughts or answers; returns the `<` state."""
        opened = self.state(self._phases[state], self._results[state])
        self._moves[opened] = list(self._moves[state])
        for each in (state, opened):
            self.on(each, b"<", opened)
        self.on(opened, b"ta/", DEAD)
        return opened

    def finished(self) -> ByteAutomaton:
        order = sorted(range(len(self._moves)), key=lambda state: self._phases[state])
        place = np.argsort(order).astype(np.uint8)
        phases = [self._phases[state] for state in order]
        return ByteAutomaton(
            moves=place[np.array(self._moves)[order]],
            results=tuple(self._results[state] for state in order),
            first_inside=sum(phase < INSIDE for phase in phases),
            first_after=sum(phase < AFTER for phase in phases),
        )


def _draw_plain(d: _Drawing) -> None:
    """The whole text is the span: white space and ASCII quotes around it don't count as words.

    Undecided: what `parse_plain` may cut off in front (a label, a fence, a quote beyond ASCII),
    tags anywhere, and what begins like JSON.
    """
    start = d.state(INSIDE, EMPTY, stay=_PYTHON_SPACE)
    text = d.state(INSIDE, FOUND, stay=_ASCII + _NOT_ASCII)
    opened = d.watch_tags(text)
    # Quotes alone may be an empty text.
    quotes = d.state(INSIDE, UNDECIDED, stay=_PYTHON_SPACE + b"\"'`")
    marks = d.state(INSIDE, FOUND, stay=_PYTHON_SPACE + b"*#_")
    labels = _draw_labels(d, marks)
    d.on(start, b"*#_", marks)
    d.on(start, b"\"'", quotes)
    for state in (quotes, *labels):
        d.on(state, b"<", opened)
    for state in labels:
        d.otherwise(state, _ASCII, text)
    d.otherwise(quotes, _ASCII, text)
    for letter in bytes(c for c in _ASCII if chr(c).isalpha()):
        d.on(start, bytes((letter,)), d.after(marks, letter))
    d.on(start, b"<", opened)
    d.otherwise(start, bytes(c for c in _ASCII if c not in b"{[`"), text)
