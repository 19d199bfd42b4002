"""Reads one quoted string from JSON-like text that may be broken.

A model that forgets to escape a quote still ends its string where a JSON value could end. So a
quote closes the string only if what follows fits; any other is kept as text. Properly escaped
strings are read exactly as `json` reads them.
"""

import re
from typing import NamedTuple

# Opening quote -> the characters that may close the string. Smart quotes come in pairs, but models
# mix them with straight ones.
CLOSERS = {
    '"': '"',
    "'": "'",
    "\u201c": '\u201d\u201c"',
    "\u201d": '\u201d\u201c"',
    "\u2018": "\u2019\u2018'",
    "\u2019": "\u2019\u2018'",
}
QUOTES = "".join(CLOSERS)

# Between tokens, models also write literal escapes, such as \n.
_GAP = r"\s*(?:\\[nrt_]\s*)*"
_SKIP = re.compile(_GAP)
_KEY = rf"{_GAP}[{QUOTES}][^{QUOTES}\n]{{1,60}}[{QUOTES}]{_GAP}:"
NEXT_KEY = re.compile(_KEY)
# What may follow a string's comma: the end (a trailing comma), or the next key.
_AFTER_COMMA = re.compile(rf"{_GAP}(?:\}}|\Z)|{_KEY}")
_NEXT_OBJECT = re.compile(rf"\{{{_GAP}[{QUOTES}]")
_SPECIAL = {quote: re.compile(rf"[\\{closers}]") for quote, closers in CLOSERS.items()}

_ESCAPE = (
    r"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u(?P<unit>[0-9a-fA-F]{4})|x(?P<byte>[0-9a-fA-F]{2})|U(?P<point>[0-9a-fA-F]{8})|(?P<char>.))"
)
_WHOLE = re.compile(_ESCAPE, re.DOTALL)
# What a cut output may end with: an incomplete escape, or half a surrogate pair.
_CUT = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?|u[0-9a-fA-F]{0,3})?\Z|"
    + _ESCAPE,
    re.DOTALL,
)
_SHORT = {'"': '"', "'": "'", "\\": "\\", "/": "/"}
_SHORT |= {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class QuotedString(NamedTuple):
    """A decoded string, the index up to which it was read, and whether it was complete."""

    value: str
    end: int
    closed: bool


def skip_gap(text: str, start: int) -> int:
    """Return the index of the next character that is neither white space nor its escape."""
    match = _SKIP.match(text, start)
    return match.end() if match else start


def read_string(
    text: str, start: int, *, in_list: bool = False, python: bool = False
) -> QuotedString:
    """Read the string whose opening quote is at `start`.

    in_list: the string is a list's element, so a bracket or another string may follow it.
    python: also decode the escapes of Python's repr (\\xHH, \\UHHHHHHHH).
    A string without a fitting end is read to the end of the text, unless one of its quotes ends a
    line: the rest is then considered chatter after an object that never closed.
    """
    special = _SPECIAL[text[start]]
    line_end = -1
    position = start + 1
    while match := special.search(text, position):
        position = match.end()
        if match.group() == "\\":
            position += 1
        elif _ends_value(text, position, in_list):
            return QuotedString(decode(text[start + 1 : match.start()], python), position, True)
        elif line_end < 0 and _ends_line(text, position):
            line_end = position
    if line_end >= 0:
        return QuotedString(decode(text[start + 1 : line_end - 1], python), len(text), True)
    return QuotedString(decode(text[start + 1 :], python, cut=True), len(text), False)


def decode(raw: str, python: bool = False, cut: bool = False) -> str:
    """Decode the escapes inside a string; anything else stays unchanged.

    python: also decode \\xHH and \\UHHHHHHHH. cut: drop an escape that the end of `raw` cuts off.
    """

    def replace(match: re.Match[str]) -> str:
        if match["high"]:
            return chr(0x10000 + ((int(match["high"], 16) & 0x3FF) << 10 | _low_bits(match["low"])))
        if match["unit"]:
            return chr(int(match["unit"], 16))
        if match["char"]:
            return _SHORT.get(match["char"], match.group())
        if match["byte"] or match["point"]:
            code = int(match["byte"] or match["point"], 16)
            return chr(code) if python and code < 0x110000 else match.group()
        return ""  # cut off

    return (_CUT if cut else _WHOLE).sub(replace, raw)


def _low_bits(digits: str) -> int:
    return int(digits, 16) & 0x3FF


def _ends_value(text: str, position: int, in_list: bool) -> bool:
    """Return whether a quote is followed by what may follow a value: a bracket, a key, nothing."""
    following = skip_gap(text, position)
    char = text[following : following + 1]
    if char == ",":
        element = skip_gap(text, following + 1)
        in_turn = in_list and text[element : element + 1] in QUOTES
        return in_turn or bool(_AFTER_COMMA.match(text, following + 1))
    if char == "{":
        return bool(_NEXT_OBJECT.match(text, following))
    if char in QUOTES:  # also "", at the end of the text
        return char == "" or bool(NEXT_KEY.match(text, following))
    return char == "}" or (in_list and char == "]") or text.startswith(("```", "</"), following)


def _ends_line(text: str, position: int) -> bool:
    return "\n" in text[position : skip_gap(text, position)]
