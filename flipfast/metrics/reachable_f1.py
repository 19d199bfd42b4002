"""The highest word F1 that a text can still reach while it grows."""

from __future__ import annotations

from collections import Counter

from flipfast.metrics.word_f1_py import normalize, scores_of_counts

_EXACT = 2**20  # words


class ReachableF1:
    """An upper bound of the F1 of every text that has some given words, and any others.

    With n words given, s of them among the N of the reference, nothing beats adding the N - s that
    are missing and no more: F1 = 2 N / (n + N - s + N), and every other text has a lower quotient.
    Different quotients of numbers below 2^20 differ by more than the roundings of F1 come to, so
    the bound holds for the float64 values, too, and is reached.

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
        """Give the words of a text, or of a part of it that begins and ends at white space."""
        for word in normalize(text):
            self._n_given += 1
            if self._missing[word]:
                self._missing[word] -= 1
                self._n_missing -= 1

    @property
    def bound(self) -> float:
        """The bound, of the same bits as `overlap_f1` gives for a text that reaches it."""
        n_words = self._n_given + self._n_missing
        if n_words + self._n_reference >= _EXACT:
            return 1.0
        return scores_of_counts(self._n_reference, n_words, self._n_reference)[0]
