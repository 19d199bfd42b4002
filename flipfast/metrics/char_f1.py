"""F1 of the multisets of characters."""

from __future__ import annotations

from flipfast.metrics.base import f1_of_units
from flipfast.metrics.word_f1_py import normalize


def characters(text: str) -> str:
    """Return the characters of a text's words, normalized as in word F1, without spaces."""
    return "".join(normalize(text))


char_f1 = f1_of_units(characters)
