"""Finds the instruction's key in JSON-like text and reads the value after it.

The text around the key need not be valid: the scanner looks for the key itself, so prose, fences,
doubled braces, trailing commas and a broken neighbor don't matter. Every part of the text is read
a bounded number of times, so the time is linear.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from flipfast.parsing.keys import GENERIC, key_rank
from flipfast.parsing.strings import (
    CLOSERS,
    COLON,
    COMMAS,
    GAP,
    KEY,
    NEXT_KEY,
    OPENERS,
    QUOTES,
    StringReader,
    skip_gap,
)

# A quoted key, or a loose one: without its closing quote, or bare after a brace or a comma. The
# bounds keep the time linear on hostile text.
_ANCHOR = re.compile(
    rf"(?P<open>(?<!\\)[{OPENERS}]|[{{{COMMAS}])\s{{0,20}}"
    rf"(?P<key>[A-Za-z][A-Za-z _-]{{6,40}})(?P<close>[{QUOTES}]?)\s{{0,20}}{COLON}"
)
_QUOTE_ORDER = {'"': 0, "'": 1}  # then the other marks
_LOOSE = 6
# An unquoted value ends with its line, at a brace, or where a string begins.
_BARE_VALUE = re.compile(r'[^\n{}"]*')
_IN_COLLECTION = re.compile(rf"[{OPENERS}\[\]{{}}]")
_MEMBER = rf"{KEY}{GAP}(?=[{OPENERS}])"
_FIRST_MEMBER = re.compile(rf"\s*\{{{_MEMBER}")
_SECOND_MEMBER = re.compile(rf"{GAP}[{COMMAS}]?{_MEMBER}")
_LAST = re.compile(rf"{GAP}[{COMMAS}]?{GAP}(?:[}}\uff5d]|\Z)")
# A value that only shows the format: no letter or digit, or entirely within <> or [].
_PLACEHOLDER = re.compile(r"[\W_]*|\s*<[^<>]*>\s*|\s*\[[^\[\]]*\]\s*")


class Value(NamedTuple):
    """The value of a key, the index up to which it was read, and whether it was complete."""

    text: str
    end: int
    closed: bool


def find_instruction(text: str) -> tuple[str, str] | None:
    """Return (instruction, status) from the best key in a text, or None if it has no key.

    A key that spells "inferred instruction" takes precedence over any other "instruction", and a
    key in double quotes over one in other quotes, which may occur unescaped inside a string. Among
    keys of the same sort the last complete value wins, because models think aloud, repeat the
    format they were asked for, and answer last; a value that only shows the format ("...", "<...>")
    loses to any other.
    """
    sorts: dict[int, list[re.Match[str]]] = {}
    for anchor in _ANCHOR.finditer(text):
        sort = _sort(anchor)
        if sort is not None:
            sorts.setdefault(sort, []).append(anchor)
    strings = StringReader(text)
    for sort in sorted(sorts):
        values = [value for value in _values(strings, sorts[sort]) if value.text.strip()]
        if values:
            best = best_value(values)
            return best.text, "recovered" if best.closed else "truncated"
    return ("", "empty") if sorts else None


def find_second_string(text: str) -> tuple[str, str] | None:
    """Return (instruction, status) from an object of two strings that a text begins with, or None.

    For keys in another language, which nothing but their order tells apart: the prompts ask for the
    reasoning first. None also if the second string only shows the format.
    """
    first = _read_member(text, _FIRST_MEMBER, 0)
    second = first and _read_member(text, _SECOND_MEMBER, first.end)
    if second is None or shows_only_the_format(second.text):
        return None
    if not second.closed:
        return second.text, "truncated"
    return (second.text, "recovered") if _LAST.match(text, second.end) else None


def shows_only_the_format(value: str) -> bool:
    """Return whether a value is a placeholder or empty."""
    return _PLACEHOLDER.fullmatch(value) is not None


def best_value(values: list[Value]) -> Value:
    """Return the last of the values, a complete one if there is any, and rather no placeholder."""
    values = [value for value in values if not shows_only_the_format(value.text)] or values
    values = [value for value in values if value.closed] or values
    return values[-1]


def _sort(anchor: re.Match[str]) -> int | None:
    """Return an anchor's sort of key, 0 the best; None if it does not name an instruction."""
    rank = key_rank(anchor["key"].strip())
    if rank is None:
        return None
    if anchor["open"] in CLOSERS and anchor["close"]:
        return 3 * (rank == GENERIC) + _QUOTE_ORDER.get(anchor["open"], 2)
    # "instruction:" alone is ordinary prose.
    return None if rank == GENERIC else _LOOSE


def _values(strings: StringReader, anchors: list[re.Match[str]]) -> Iterator[Value]:
    """Yield the values of keys of one sort, in order, skipping keys inside another's value."""
    end = 0
    for anchor in anchors:
        if anchor.start() >= end:
            start = skip_gap(strings.text, anchor.end())
            value = _read_value(strings, start, python=anchor["open"] == "'")
            end = value.end
            yield value


def _read_value(strings: StringReader, start: int, python: bool) -> Value:
    text = strings.text
    opening = text[start : start + 1]
    if opening in CLOSERS:
        return Value(*strings.read(start, python=python))
    if opening and opening in "[{":
        return _read_collection(strings, start, python)
    match = _BARE_VALUE.match(text, start)
    end = match.end() if match else start
    bare = text[start:end].strip().rstrip(",")
    return Value("" if bare in ("null", "None") else bare, end, end < len(text))


def _read_member(text: str, opening: re.Pattern[str], start: int) -> Value | None:
    match = opening.match(text, start)
    return Value(*StringReader(text).read(match.end())) if match else None


def _read_collection(strings: StringReader, start: int, python: bool) -> Value:
    """Join the strings in a list or object by line breaks, without the object's keys."""
    text = strings.text
    parts = []
    depth = 1
    position = start + 1
    while match := _IN_COLLECTION.search(text, position):
        position = match.end()
        if key := NEXT_KEY.match(text, match.start()):
            position = key.end()
        elif match.group() in CLOSERS:
            part = strings.read(match.start(), in_list=True, python=python)
            parts.append(part.value)
            if not part.closed:
                break
            position = part.end
        else:
            depth += 1 if match.group() in "[{" else -1
            if depth == 0:
                return Value("\n".join(parts), position, True)
    return Value("\n".join(parts), len(text), False)
