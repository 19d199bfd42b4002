"""Deterministic automata over bytes that find a value in a text, and a way to draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flipfast_kernels.spans import DEAD, UNDECIDED

BEFORE, INSIDE, AFTER = 0, 1, 2  # phases of a state, seen from the value


@dataclass(frozen=True)
class ByteAutomaton:
    """States in the order of their phases; state 0 is dead, state 1 the first.

    The value begins behind the byte that leads to a state from first_inside on, and ends before
    the byte that leads to one from first_after on.

    Attributes:
        moves: uint8 (states, 256), the state behind each byte.
        results: UNDECIDED, FOUND or EMPTY, one a state.
        first_inside, first_after: states.
    """

    moves: npt.NDArray[np.uint8]
    results: tuple[int, ...]
    first_inside: int
    first_after: int


class Drawing:
    """An automaton in the making: every move that is not drawn leads to the dead state."""

    def __init__(self) -> None:
        self._moves = [[DEAD] * 256]
        self._phases = [-1]
        self._results = [UNDECIDED]

    def state(self, phase: int, result: int = UNDECIDED, stay: bytes = b"") -> int:
        """A new state, which the bytes of `stay` do not leave. The first new one is the start."""
        new = len(self._moves)
        self._moves.append([DEAD] * 256)
        self._phases.append(phase)
        self._results.append(result)
        self.on(new, stay, new)
        return new

    def since(self, first: int) -> range:
        """The state `first` and all that were made after it."""
        return range(first, len(self._moves))

    def on(self, state: int, letters: bytes, to: int) -> None:
        """Move on any of these bytes."""
        for letter in letters:
            self._moves[state][letter] = to

    def otherwise(self, state: int, letters: bytes, to: int) -> None:
        """Move on those of these bytes that lead nowhere so far."""
        self.on(state, bytes(c for c in letters if self._moves[state][c] == DEAD), to)

    def like(self, state: int, other: int) -> None:
        """Move as another state does, where `state` leads nowhere so far."""
        pairs = zip(self._moves[state], self._moves[other], strict=True)
        self._moves[state] = [own if own != DEAD else theirs for own, theirs in pairs]

    def spell(self, state: int, word: Sequence[bytes], to: int | None = None) -> int:
        """Add a word to the tree below a state, each letter any of some bytes.

        Steps that are there already are shared; new ones have the phase and the result of the
        first state. Its last letter leads to `to`, or to a step of its own; returns that state.
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
        """A new state that moves as another does."""
        new = self.state(self._phases[state], self._results[state])
        self._moves[new] = list(self._moves[state])
        return new

    def finished(self) -> ByteAutomaton:
        """The automaton, its states in order."""
        order = sorted(range(len(self._moves)), key=self._phases.__getitem__)
        place = np.argsort(order).astype(np.uint8)
        return ByteAutomaton(
            moves=place[np.array(self._moves)[order]],
            results=tuple(self._results[state] for state in order),
            first_inside=sum(phase < INSIDE for phase in self._phases),
            first_after=sum(phase < AFTER for phase in self._phases),
        )
