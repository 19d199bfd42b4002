"""The published parser, quirks and all, to reproduce published rewards bit for bit.

The steps and their order come from the public RL code of FLIP (open-instruct fork); known
weaknesses stay: even a line break between JSON tokens defeats it.
"""

import json
import re

from flipfast.parsing.keys import PUBLISHED_KEYS
from flipfast.parsing.wrappers import drop_answer_tags, drop_closed_think

_LONE_BACKSLASH = re.compile(r'\\(?![bfnrtu/"\\])')
# The order matters: one removal can join the letters of a later marker.
_DELETED = ("assistant", "<think>", "</think>", "<|system|>", "<|assistant|>", "<|text|>")


def parse_reference(text: str) -> tuple[str, str]:
    """Return the text that the published code scores, and a status.

    The word F1 of the returned text equals the published reward. If the published code raises, and
    so rewards 0.0, the result is ("", "unparsed"). Never raises on a string.
    """
    cleaned = _clean(drop_answer_tags(drop_closed_think(text)))
    try:
        data = json.loads(cleaned)
    except json.JSONDecodeError:
        data = {}  # treated as an object without the key
    except (ValueError, RecursionError):
        # An integer beyond the interpreter's digit limit, or brackets nested too deeply.
        return "", "unparsed"
    if not isinstance(data, dict):
        return "", "unparsed"
    value = _lookup(data)
    if value is None:
        whole = _delete_markers(cleaned)
        return whole, "prose" if whole.strip() else "empty"
    if not isinstance(value, str):
        return "", "unparsed"
    return value, "ok" if value.strip() else "empty"


def _clean(text: str) -> str:
    text = text.strip()
    opening = next((fence for fence in ("```json", "```") if text.startswith(fence)), "")
    text = text.removeprefix(opening).removesuffix("```")
    # The published code escapes every line break, including those between JSON tokens.
    text = text.replace("\r\n", "\n").replace("\n", "\\n")
    return _LONE_BACKSLASH.sub(r"\\\\", text).strip()


def _lookup(data: dict[str, object]) -> object:
    """Return the first truthy value under the published keys, else the last key's value."""
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
