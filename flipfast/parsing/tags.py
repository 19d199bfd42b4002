"""Reads outputs in XML-like tags instead of JSON."""

import re

from flipfast.parsing.fields import Value, best_value
from flipfast.parsing.keys import GENERIC, key_rank
from flipfast.parsing.wrappers import strip_quotes

_REASONING = re.compile(r"\s*<(?P<name>reasoning|thinking|analysis)>", re.IGNORECASE)
_TAG = re.compile(r"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z _-]{6,40})>")


def drop_leading_reasoning(text: str) -> tuple[str, bool]:
    """Cut off the reasoning, in tags, that a text begins with, and the white space after it.

    Returns (rest, is_open): is_open means that its tag never closes, and rest is then "".
    """
    opened = _REASONING.match(text)
    if opened is None:
        return text, False
    closing = re.compile(f"</{opened['name']}>", re.IGNORECASE)
    closed = closing.search(text, opened.end())
    return (text[closed.end() :].lstrip(), False) if closed else ("", True)


def begins_with_tag(text: str) -> bool:
    """Return whether a text begins with a tag for the reasoning or the instruction."""
    opened = _TAG.match(text.lstrip())
    named = opened is not None and key_rank(opened["name"]) is not None
    return named or _REASONING.match(text) is not None


def find_tagged(text: str) -> tuple[str, str] | None:
    """Return (instruction, status) from tags for the instruction, or None if there are none.

    The tag has to spell "inferred instruction", or follow the reasoning at once and name some other
    "instruction". One of the first sort may stay open if it begins the text, as text may be about
    tags. Among several the same one wins as among keys, see `find_instruction`.
    """
    rest, is_open = drop_leading_reasoning(text)
    leading = len(rest) - len(rest.lstrip())
    values: list[Value] = []
    opened: re.Match[str] | None = None
    for tag in () if is_open else _TAG.finditer(rest):
        rank = key_rank(tag["name"])
        if rank is None:
            continue
        same = opened is not None and tag["name"].lower() == opened["name"].lower()
        if tag["end"]:
            if opened is not None and same:
                values.append(Value(rest[opened.end() : tag.start()], tag.end(), True))
                opened = None
        elif same or (opened is None and (rank < GENERIC or tag.start() == leading)):
            opened = tag
    if opened is not None and opened.start() == leading and key_rank(opened["name"]) != GENERIC:
        values.append(Value(rest[opened.end() :], len(rest), False))
    if not values:
        return None
    best = best_value([value for value in values if value.text.strip()] or values)
    instruction = strip_quotes(best.text)
    if not instruction:
        return "", "empty"
    return instruction, "recovered" if best.closed else "truncated"
