"""The default parser: finds the instruction in what small models actually write."""

import json
import re

from flipfast._core import ObjectScanner
from flipfast.parsing.backslashes import escape_commands
from flipfast.parsing.fields import find_instruction, find_second_string, shows_only_the_format
from flipfast.parsing.keys import key_rank
from flipfast.parsing.strings import COLON, GAP, QUOTES, StringReader, decode
from flipfast.parsing.tags import begins_with_tag, drop_leading_reasoning, find_tagged
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
    rf"[{QUOTES}](?:REASONING|Reasoning)\\{{0,20}}[{QUOTES}]\s{{0,20}}{COLON}"
    r"|\A\W{0,20}(?i:reasoning)\s?[:=\uff1a]"
)
_OBJECT_START = re.compile(rf"\s*[{{\[][\s{{\[]*[{QUOTES}]")
# The first key of the first object, whose quotes are escaped once more if the group isn't empty.
_FIRST_KEY = re.compile(rf"\{{{GAP}(\\*)\"")


def parse_robust(text: str) -> tuple[str, str]:
    """Return (instruction, status) from one model output.

    A clean JSON object, at most in a code fence or after a think block, is "ok", unless its value
    has backslashes that were not escaped. An object at the start of the text only has to begin
    cleanly: once `ObjectScanner` sees its value closed for good, nothing that follows changes the
    result, so the output may be stopped there; before that, the result begins with the value so
    far. Otherwise the key, or a tag, is searched for in the text. Without one, the second of two
    strings counts, and else the whole text is taken, unless it shows signs of the object that was
    asked for. Statuses as in `extract_instruction`.
    """
    data = text.encode("utf-8", "surrogatepass")
    scanner = ObjectScanner()
    scanner.feed(data)
    if scanner.closed:
        return _closed_value(data[scanner.start : scanner.end].decode("utf-8", "surrogatepass"))
    body, reasoning_only = drop_leading_think(text)
    found = _from_parts(body)
    if scanner.start >= 0:
        opening = len(data[: scanner.start - 1].decode("utf-8", "surrogatepass"))
        leading = _open_value(text, opening)
        if leading is not None and (found is None or found[0] != leading[0]):
            return leading
    if found:
        return found
    second = find_second_string(strip_fence(drop_answer_tags(body)))
    if second:
        return second
    return ("", "unparsed") if reasoning_only else _from_plain(body)


def parse_fields(body: str) -> tuple[str, str] | None:
    """Return (instruction, status) if a text has a key for the instruction, else None."""
    return _from_object(body) or find_instruction(body)


def _closed_value(raw: str) -> tuple[str, str]:
    """Return the value and status of a valid JSON string, given without its quotes."""
    value = decode(raw)
    return value, "ok" if value == json.loads(f'"{raw}"') else "recovered"


def _open_value(text: str, opening: int) -> tuple[str, str] | None:
    """Return the value and status of the string that begins here; None if it shows the format."""
    value, _, closed = StringReader(text).read(opening)
    if shows_only_the_format(value):
        return None
    return value, "recovered" if closed else "truncated"


def _from_parts(body: str) -> tuple[str, str] | None:
    """Find the instruction by a tag or a key, in a text that may be escaped once more."""
    tagged = find_tagged(body) if begins_with_tag(body) else None  # its value may have a key
    return tagged or parse_fields(body) or _from_escaped(body)


def _from_escaped(body: str) -> tuple[str, str] | None:
    """Read an object whose quotes are escaped, as in a JSON string."""
    key = _FIRST_KEY.search(body)
    if key is None or not key[1]:
        return None
    found, status = parse_robust(decode(body[key.start() :]))
    if status in ("prose", "unparsed"):
        return None
    return found, "recovered" if status == "ok" else status


def _from_object(body: str) -> tuple[str, str] | None:
    """Read a text that is one valid JSON object with strings under all candidate keys."""
    text = strip_fence(body)
    found = _first_filled(text)
    mended = escape_commands(text)
    if found is None or mended == text:
        return found
    # Valid in spite of backslashes that were not escaped.
    right = _first_filled(mended)
    return found if right == found else right and (right[0], "recovered")


def _first_filled(text: str) -> tuple[str, str] | None:
    data = _loads(text)
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
    answer = drop_answer_tags(drop_think(body))
    tagged = find_tagged(answer)
    if tagged:
        return tagged
    text, reasoning_only = drop_leading_reasoning(answer)
    if reasoning_only:
        return "", "unparsed"
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
