"""Deterministic automata over bytes that find a value in a text, and a builder for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flipfast_kernels.spans import DEAD, UNDECIDED

BEFORE, INSIDE, AFTER = 0, 1, 2  # phases of a state, relative to the value


@dataclass(frozen=True)
class ByteAutomaton:
    """An automaton with its states ordered by phase; state 0 is dead, state 1 is the start.

    The value begins after the byte that leads to a state >= first_inside, and ends before the byte
    that leads to a state >= first_after.

    Attributes:
        moves: uint8 (states, 256), the next state for each byte.
        results: UNDECIDED, FOUND or EMPTY, one per state.
        first_inside, first_after: states.
    """

    moves: npt.NDArray[np.uint8]
    results: tuple[int, ...]
    first_inside: int
    first_after: int


class Drawing:
    """An automaton under construction: every move not drawn leads to the dead state."""

    def __init__(self) -> None:
        self._moves = [[DEAD] * 256]
        self._phases = [-1]
        self._results = [UNDECIDED]

    def state(self, phase: int, result: int = UNDECIDED, stay: bytes = b"") -> int:
        """Add a state in which the bytes of `stay` loop. The first one added is the start."""
        new = len(self._moves)
        self._moves.append([DEAD] * 256)
        self._phases.append(phase)
        self._results.append(result)
        self.on(new, stay, new)
        return new

    def since(self, first: int) -> range:
        """Return the state `first` and all added after it."""
        return range(first, len(self._moves))

    def on(self, state: int, letters: bytes, to: int) -> None:
        """Draw a move for each of these bytes."""
        for letter in letters:
            self._moves[state][letter] = to

    def otherwise(self, state: int, letters: bytes, to: int) -> None:
        """Draw a move for those of these bytes that have none yet."""
        self.on(state, bytes(c for c in letters if self._moves[state][c] == DEAD), to)

    def like(self, state: int, other: int) -> None:
        """Copy another state's moves for the bytes that have none yet."""
        pairs = zip(self._moves[state], self._moves[other], strict=True)
        self._moves[state] = [own if own != DEAD else theirs for own, theirs in pairs]

    def spell(self, state: int, word: Sequence[bytes], to: int | None = None) -> int:
        """Add a word to the trie below a state; each letter may be any of several bytes.

        Existing steps are shared; new ones have the phase and the result of `state`. The last
        letter leads to `to`, or to a state of its own; returns that state.
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

    def copy(self, state: int) -> int:
        """Add a state with the moves of another."""
        new = self.state(self._phases[state], self._results[state])
        self._moves[new] = list(self._moves[state])
        return new

    def finished(self) -> ByteAutomaton:
        """Return the automaton, with its states in order."""
        order = sorted(range(len(self._moves)), key=self._phases.__getitem__)
        place = np.argsort(order).astype(np.uint8)
        return ByteAutomaton(
            moves=place[np.array(self._moves)[order]],
            results=tuple(self._results[state] for state in order),
            first_inside=sum(phase < INSIDE for phase in self._phases),
            first_after=sum(phase < AFTER for phase in self._phases),
        )
