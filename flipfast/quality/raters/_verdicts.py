"""Finds the verdict in what a judge has written."""

from __future__ import annotations

import re

from flipfast.parsing.wrappers import THINK_END, drop_leading_think, drop_think

# As asked for, or with the word that stands beside it inside the brackets, or out of ten.
_RATING = re.compile(
    r"\[\[\s*(?:rating:\s*)?(-?[0-9]+(?:[.,][0-9]+)?)\s*(?:/\s*10\s*)?\]\]",
    re.IGNORECASE | re.ASCII,
)
_LETTER = re.compile(r"\[\[\s*(?:response\s+)?([a-z])\s*\]\]", re.IGNORECASE | re.ASCII)


def answer_part(output: str, *, think_open: bool) -> str:
    """What of an output is meant for the reader: what stands behind its thoughts.

    Args:
        output: of the model.
        think_open: whether the prompt ends inside a think block.

    Returns:
        "" where the thoughts never end.
    """
    unfinished = drop_leading_think(output)[1] or (think_open and THINK_END not in output)
    return "" if unfinished else drop_think(output, think_open)


def last_rating(answer: str) -> float | None:
    """The number in the last `[[n]]`, in any range; None where there is none."""
    found = _RATING.findall(answer)
    return float(found[-1].replace(",", ".")) if found else None


def last_letter(answer: str) -> int | None:
    """The place in the alphabet, from 0, of the last `[[X]]`; None where there is none."""
    found = _LETTER.findall(answer)
    return ord(found[-1].upper()) - ord("A") if found else None
