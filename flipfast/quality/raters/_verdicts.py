"""Finds the verdict in a judge's output."""

from __future__ import annotations

import re

from flipfast.parsing.wrappers import THINK_END, drop_leading_think, drop_think

# As asked for, or with the word "rating" inside the brackets, or as n/10.
_RATING = re.compile(
    r"\[\[\s*(?:rating:\s*)?(-?[0-9]+(?:[.,][0-9]+)?)\s*(?:/\s*10\s*)?\]\]",
    re.IGNORECASE | re.ASCII,
)
_LETTER = re.compile(r"\[\[\s*(?:response\s+)?([a-z])\s*\]\]", re.IGNORECASE | re.ASCII)


def answer_part(output: str, *, think_open: bool) -> str:
    """Return the part of an output that is meant for the reader: the text after its thinking.

    Args:
        output: of the model.
        think_open: whether the prompt ends inside a think block.

    Returns:
        "" if the thinking never ends.
    """
    unfinished = drop_leading_think(output)[1] or (think_open and THINK_END not in output)
    return "" if unfinished else drop_think(output, think_open)


def last_rating(answer: str) -> float | None:
    """Return the number in the last `[[n]]`, in any range; None if there is none."""
    found = _RATING.findall(answer)
    return float(found[-1].replace(",", ".")) if found else None


def last_letter(answer: str) -> int | None:
    """Return the position in the alphabet, from 0, of the last `[[X]]`; None if there is none."""
    found = _LETTER.findall(answer)
    return ord(found[-1].upper()) - ord("A") if found else None
