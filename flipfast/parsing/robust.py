"""The default parser: finds the instruction in what small models actually write."""

import json
import re

from flipfast._core import ObjectScanner
from flipfast.parsing.fields import find_instruction, shows_only_the_format
from flipfast.parsing.keys import key_rank
from flipfast.parsing.strings import QUOTES, read_string
from flipfast.parsing.wrappers import (
    after_inferred_label,
    drop_answer_tags,
    drop_leading_think,
    drop_think,
    strip_fence,
    strip_quotes,
)

_INVALID = object()
# Signs of an unfinished object without an instruction: its reasoning, or its first quote.
_REASONING = re.compile(
    rf"[{QUOTES}](?:REASONING|Reasoning)[{QUOTES}]\s{{0,20}}:|\A\W{{0,20}}(?i:reasoning)\s?:"
)
_OBJECT_START = re.compile(rf"\s*[{{\[][\s{{\[]*[{QUOTES}]")


def parse_robust(text: str) -> tuple[str, str]:
    """Return (instruction, status) from one model output.

    A clean JSON object, at most in a code fence or after a think block, is "ok". An object at the
    start of the text only has to begin cleanly: once `ObjectScanner` sees its value closed for
    good, nothing that follows changes the result, so the output may be stopped there; before that,
    the result begins with the value so far. Otherwise the key is searched for in the text, and
    without one the whole text is taken, unless it shows signs of the object that was asked for.
    Statuses as in `extract_instruction`.
    """
    leading = _leading_value(text)
    if leading is not None and leading[1] == "ok":
        return leading
    body, reasoning_only = drop_leading_think(text)
    found = parse_fields(body)
    if leading is not None and (found is None or found[0] != leading[0]):
        return leading
    if found:
        return found
    return ("", "unparsed") if reasoning_only else _from_plain(body)


def parse_fields(body: str) -> tuple[str, str] | None:
    """Return (instruction, status) if a text has a key for the instruction, else None."""
    return _from_object(body) or find_instruction(body)


def _leading_value(text: str) -> tuple[str, str] | None:
    """Return the instruction's value and status from an object that begins cleanly, else None.

    None also for a value that only shows the format.
    """
    data = text.encode("utf-8", "surrogatepass")
    scanner = ObjectScanner()
    scanner.feed(data)
    if scanner.closed:
        quoted = data[scanner.start - 1 : scanner.end + 1]
        return str(json.loads(quoted.decode("utf-8", "surrogatepass"))), "ok"
    if scanner.start < 0:
        return None
    opening = len(data[: scanner.start - 1].decode("utf-8", "surrogatepass"))
    value, _, closed = read_string(text, opening)
    if shows_only_the_format(value):
        return None
    return value, "recovered" if closed else "truncated"


def _from_object(body: str) -> tuple[str, str] | None:
    """Read a text that is one valid JSON object with strings under all candidate keys."""
    data = _loads(strip_fence(body))
    if not isinstance(data, dict):
        return None
    ranked = [(rank, value) for key, value in data.items() if (rank := key_rank(key)) is not None]
    values = [value for _, value in sorted(ranked, key=lambda pair: pair[0]) if value]
    if not ranked or not all(isinstance(value, str) for value in values):
        return None
    filled = [value for value in values if value.strip()]
    return (filled[0], "ok") if filled else ("", "empty")


def _from_plain(body: str) -> tuple[str, str]:
    """Take a text without a key as the instruction itself, unless it is something else."""
    text = drop_answer_tags(drop_think(body))
    if not text.strip():
        return "", "empty"
    labelled = after_inferred_label(text)
    status = "prose" if labelled is None else "recovered"
    if labelled is not None:
        text = strip_quotes(labelled)
    elif _is_other(text):
        return "", "unparsed"
    elif text.lstrip().startswith("```"):
        text = strip_fence(text)
    usable = any(map(str.isalnum, text))
    return (text, status) if usable else ("", "unparsed")


def _is_other(text: str) -> bool:
    """Return whether a text is a JSON value or shows signs of an object, not an instruction."""
    value = _loads(strip_fence(text))
    if isinstance(value, str):
        return False
    return bool(value is not _INVALID or _REASONING.search(text) or _OBJECT_START.match(text))


def _loads(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # invalid, too many digits, nested too deeply
        return _INVALID
