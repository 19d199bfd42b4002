"""The published parser, quirks and all, so that published rewards can be met bit for bit.

What it does to an output, in this order, was read from the public RL code of FLIP (open-instruct
fork); known weaknesses stay: a line break between JSON tokens already defeats it.
"""

import json
import re

from flipfast.parsing.keys import PUBLISHED_KEYS
from flipfast.parsing.wrappers import drop_answer_tags, drop_closed_think

_LONE_BACKSLASH = re.compile(r'\\(?![bfnrtu/"\\])')
# The order counts: one removal can bring together the letters of a later one.
_DELETED = ("assistant", "<think>", "</think>", "<|system|>", "<|assistant|>", "<|text|>")


def parse_reference(text: str) -> tuple[str, str]:
    """Return the text that the published code scores, and a status.

    The word F1 of the returned text equals the published reward. Where the published code raises
    and so rewards 0.0, the result is ("", "unparsed"). Never raises on a string.
    """
    cleaned = _clean(drop_answer_tags(drop_closed_think(text)))
    try:
        data = json.loads(cleaned)
    except json.JSONDecodeError:
        data = {}  # treated like an object without the key
    except (ValueError, RecursionError):
        # An integer beyond the interpreter's digit limit, or brackets nested too deep.
        return "", "unparsed"
    if not isinstance(data, dict):
        return "", "unparsed"
    value = _lookup(data)
    if value is None:
        whole = _delete_markers(cleaned)
        return whole, "recovered" if whole.strip() else "empty"
    if not isinstance(value, str):
        return "", "unparsed"
    return value, "ok" if value.strip() else "empty"


def _clean(text: str) -> str:
    text = text.strip()
    opening = next((fence for fence in ("```json", "```") if text.startswith(fence)), "")
    text = text.removeprefix(opening).removesuffix("```")
    # The published code escapes every line break, those between JSON tokens included.
    text = text.replace("\r\n", "\n").replace("\n", "\\n")
    return _LONE_BACKSLASH.sub(r"\\\\", text).strip()


def _lookup(data: dict[str, object]) -> object:
    """The first truthy value under the published keys, else whatever the last key holds."""
    value: object = None
    for key in PUBLISHED_KEYS:
        value = data.get(key)
        if value:
            break
    return value


def _delete_markers(text: str) -> str:
    for marker in _DELETED:
        text = text.replace(marker, "")
    return text
