"""The highest word F1 that a growing text can still reach."""

from __future__ import annotations

from collections import Counter

from flipfast.metrics.word_f1_py import normalize, scores_of_counts

_EXACT = 2**20  # words


class ReachableF1:
    """A tight upper bound on the F1 of every text that contains some given words.

    With n given words, s of them among the N of the reference, it is best to add exactly the N - s
    missing ones: F1 = 2 N / (n + N - s + N), and every other text has a lower quotient. Different
    quotients of numbers below 2^20 differ by more than F1's rounding errors, so the bound also
    holds for the float64 values, and is reached.

    Args:
        reference: the true instruction.
    """

    def __init__(self, reference: str) -> None:
        words = normalize(reference)
        self._n_reference = len(words)
        self._missing = Counter(words)
        self._n_missing = len(words)
        self._n_given = 0

    def add(self, text: str) -> None:
        """Add the words of a text, or of a part of it that begins and ends at white space."""
        for word in normalize(text):
            self._n_given += 1
            if self._missing[word]:
                self._missing[word] -= 1
                self._n_missing -= 1

    @property
    def bound(self) -> float:
        """The bound, bitwise equal to `overlap_f1` for a text that reaches it."""
        n_words = self._n_given + self._n_missing
        if n_words + self._n_reference >= _EXACT:
            return 1.0
        return scores_of_counts(self._n_reference, n_words, self._n_reference)[0]
