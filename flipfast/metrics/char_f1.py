"""F1 of the multisets of characters."""

from __future__ import annotations

from flipfast.metrics.base import f1_of_units
from flipfast.metrics.word_f1_py import normalize


def characters(text: str) -> str:
    """The characters of a text's words, as word F1 has them, without spaces between."""
    return "".join(normalize(text))


char_f1 = f1_of_units(characters)
