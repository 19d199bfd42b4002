"""Reads one quoted string from JSON-like text that may be broken.

A model that forgets to escape a quote still ends its string where a JSON value could end. So a
quote closes the string only if what follows fits; any other is kept as text. As JSON inside the
string fits, too, quotes and brackets kept as text must come in pairs. Properly escaped strings are
read as `json` reads them, except for the backslashes that `escape_commands` escapes.
"""

import re
from typing import NamedTuple

from flipfast.parsing.backslashes import escape_commands

# Opening quote -> the characters that may close the string. Marks other than straight ones come in
# pairs, but languages pair them differently, and models mix them with straight ones.
CLOSERS = {
    '"': '"',
    "'": "'",
    "\u201c": '\u201d\u201c"',
    "\u201d": '\u201d\u201c"',
    "\u201e": '\u201c\u201d\u201e"',  # German, Polish
    "\u2018": "\u2019\u2018'",
    "\u2019": "\u2019\u2018'",
    "\u201a": "\u2018\u2019\u201a'",
    "\u00ab": "\u00bb\u00ab",  # French, Russian; in German the other way round
    "\u00bb": "\u00ab\u00bb",
    "\u2039": "\u203a\u2039",
    "\u203a": "\u2039\u203a",
    "\u300c": "\u300d",  # Chinese, Japanese
    "\u300e": "\u300f",
    "\uff02": '\uff02"',
}
OPENERS = "".join(CLOSERS)
QUOTES = OPENERS + "\u300d\u300f"

COLON = "(?:[:\uff1a]=?|=>?)"
COMMAS = ",\uff0c\u3001"
_CLOSING_BRACES = "}\uff5d"
# Comments of JSON's relatives. The last one may also run to the end of the text, without a quote;
# bounds keep the time linear on hostile text.
_COMMENT = (
    rf"(?://|\#[ \t])(?:[^\n]{{0,200}}\n|[^\n{QUOTES}]{{0,200}}\Z)"
    r"|/\*[^*]{0,200}(?:\*(?!/)[^*]{0,200}){0,5}\*/"
)
# Between tokens, models also write literal escapes, such as \n, and comments.
GAP = rf"\s*(?:(?:\\[nrt_]|{_COMMENT})\s*)*"
_SKIP = re.compile(GAP)
_APOSTROPHE = r"(?<=\w)['\u2019](?=\w)"
# In straight quotes, a key may hold other marks.
KEY = (
    rf'{GAP}(?:"[^"\n]{{1,60}}"'
    rf"|[{QUOTES}](?:[^{QUOTES}\n]|{_APOSTROPHE}){{1,60}}[{QUOTES}]){GAP}{COLON}"
)
NEXT_KEY = re.compile(KEY)
# What may follow a string's comma: the end (a trailing comma), or the next key.
_AFTER_COMMA = re.compile(rf"{GAP}(?:[{_CLOSING_BRACES}]|\Z)|{KEY}")
_NEXT_OBJECT = re.compile(rf"\{{{KEY}")
_ENDS_OBJECT = re.compile(rf"{GAP}(?:\Z|[{_CLOSING_BRACES}][ \t}}\]]*(?:\n|\Z|```|</))")
_SPECIAL = {
    quote: re.compile(rf"[\\{{}}\[\]{quote}{closers}]") for quote, closers in CLOSERS.items()
}
# How many strings are searched for a balanced end in vain, each up to the end of the text.
_MAX_TRIES = 8
_TRIPLE = {quote * 3: re.compile(quote + "{3,}") for quote in ('"', "'")}

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
    """Return the index of the next character outside white space, its escapes and comments."""
    match = _SKIP.match(text, start)
    return match.end() if match else start


class StringReader:
    """Reads the quoted strings of a text.

    Args:
        text: JSON-like.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._n_tries = _MAX_TRIES

    def read(self, start: int, *, in_list: bool = False, python: bool = False) -> QuotedString:
        """Read the string whose opening quote is at `start`.

        in_list: the string is a list's element, so a bracket or another string may follow it.
        python: also decode the escapes of Python's repr (\\xHH, \\UHHHHHHHH).
        The first unescaped quote ends the string if what follows fits. Once one was kept as text,
        the quotes and brackets before the end must be balanced; if no fitting quote meets that, the
        first of the best ones ends the string, provided that the object ends somewhere. Otherwise
        it is read to the end of the text, unless one of its quotes ends a line: the rest is then
        considered chatter after an object that never closed.
        """
        text = self.text
        if triple := _TRIPLE.get(text[start : start + 3]):
            return _read_triple(text, start + 3, triple, python)
        special = _SPECIAL[text[start]]
        line_end = -1
        n_quotes = depth = 0  # kept as text so far; of the brackets
        # The first fitting quotes, by whether brackets are open and an odd number of quotes is.
        unbalanced: dict[tuple[bool, int], int] = {}
        ends_object = self._n_tries == 0
        position = start + 1
        while match := special.search(text, position):
            position = match.end()
            char = match.group()
            if char == "\\":
                position += 1
            elif char in "{[":
                depth += not _is_quoted(text, match.start())
            elif char in "}]":
                is_quoted = _opens_quotation(text, match.start() - 1)
                depth = max(depth - (not is_quoted), 0)
            else:
                if _ends_value(text, position, in_list):
                    is_inside = depth > 0 or _opens_quotation(text, match.start())
                    if not n_quotes or not (n_quotes % 2 or is_inside):
                        value = decode(text[start + 1 : match.start()], python)
                        return QuotedString(value, position, True)
                    unbalanced.setdefault((is_inside, n_quotes % 2), position)
                    if self._n_tries == 0:
                        break
                    ends_object = ends_object or bool(_ENDS_OBJECT.match(text, position))
                elif line_end < 0 and _ends_line(text, position):
                    line_end = position
                n_quotes += not _is_in_word(text, match.start())
        if unbalanced and ends_object:
            self._n_tries = max(self._n_tries - 1, 0)
            end = unbalanced[min(unbalanced)]
            return QuotedString(decode(text[start + 1 : end - 1], python), end, True)
        if line_end >= 0:
            value = decode(text[start + 1 : line_end - 1], python)
            return QuotedString(value, len(text), True)
        return QuotedString(decode(text[start + 1 :], python, cut=True), len(text), False)


def decode(raw: str, python: bool = False, cut: bool = False) -> str:
    """Decode the escapes inside a string; anything else, also LaTeX and a path, stays unchanged.

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

    return (_CUT if cut else _WHOLE).sub(replace, escape_commands(raw))


def _low_bits(digits: str) -> int:
    return int(digits, 16) & 0x3FF


def _read_triple(text: str, start: int, quotes: re.Pattern[str], python: bool) -> QuotedString:
    """Read a string in triple quotes, without the line breaks beside them."""
    match = quotes.search(text, start)
    if match is None:
        return QuotedString(decode(text[start:], python, cut=True).strip(), len(text), False)
    return QuotedString(decode(text[start : match.end() - 3], python).strip(), match.end(), True)


def _ends_value(text: str, position: int, in_list: bool) -> bool:
    """Return whether a quote is followed by what may follow a value: a bracket, a key, nothing."""
    following = skip_gap(text, position)
    char = text[following : following + 1]
    if not char:
        return True
    if char in COMMAS:
        element = skip_gap(text, following + 1)
        in_turn = in_list and text[element : element + 1] in OPENERS
        return in_turn or bool(_AFTER_COMMA.match(text, following + 1))
    if char == "{":  # right behind the quote, it is quoted
        return following > position and bool(_NEXT_OBJECT.match(text, following))
    if char in QUOTES:
        return bool(NEXT_KEY.match(text, following))
    is_bracket = char in _CLOSING_BRACES or (in_list and char == "]")
    return is_bracket or text.startswith(("```", "</"), following)


def _ends_line(text: str, position: int) -> bool:
    return "\n" in text[position : skip_gap(text, position)]


def _is_quoted(text: str, bracket: int) -> bool:
    """Return whether an opening bracket stands alone in quotes, so that none need close it."""
    around = text[bracket - 1], text[bracket + 1 : bracket + 2]
    behind = text[bracket + 2 : bracket + 3]
    return all(quote and quote in QUOTES for quote in around) and not behind.isalnum()


def _opens_quotation(text: str, quote: int) -> bool:
    """Return whether a quote is attached to the bracket after it, as in: replace "}" by ")"."""
    is_attached = text[quote] in QUOTES and text[quote + 1 : quote + 2] in tuple("}]")
    return is_attached and text[quote - 1].isspace()


def _is_in_word(text: str, quote: int) -> bool:
    return text[quote - 1].isalnum() and text[quote + 1 : quote + 2].isalnum()
