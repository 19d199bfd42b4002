"""One automaton per parser for clean outputs, whose instruction is clear from their bytes.

Each is conservative: FOUND means that the parser returns the span's words and "ok", EMPTY that it
returns ("", "empty"); all else is left to the parser. Non-ASCII bytes pass only where it does not
matter whether they are white space, quotes or look-alike letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from flipfast.errors import ConfigError
from flipfast.parsing.byte_automaton import AFTER, BEFORE, INSIDE, ByteAutomaton, Drawing
from flipfast_kernels.spans import DEAD, EMPTY, FOUND, UNDECIDED

_ASCII, _BEYOND = bytes(range(128)), bytes(range(128, 256))
_PYTHON_SPACE = bytes(c for c in _ASCII if chr(c).isspace())
_JSON_SPACE = b" \t\n\r"
# What a string may contain besides escapes; a control character is an error.
_IN_STRING = bytes(c for c in range(0x20, 256) if c not in b'"\\')
_LABEL_NOUNS = ("instruction", "prompt")
_LABEL_WORDS = ("the", "inferred", "original", "likely", "user", "user's")

# Escapes that change no word even undecoded: both of their characters are punctuation.
_NO_WORDS = b'"/'
_ANY_ESCAPE = b'"/bfnrt'  # except \\uXXXX

_Word = Sequence[bytes]  # each letter may be any of several bytes


def _any_case(word: str) -> _Word:
    return [bytes({ord(c.lower()), ord(c.upper())}) for c in word]


_REASONING = _any_case("REASONING")
_ROBUST_KEYS = [[b" _-" if c == b" " else c for c in _any_case("INFERRED INSTRUCTION")]]
_PUBLISHED_KEYS = [
    [c.encode() for c in "INFERRED INSTRUCTION"],
    [b" _" if c == " " else c.encode() for c in "inferred instruction"],
    [c.encode() for c in "Inferred_Instruction"],
]


class _Format(NamedTuple):
    """The JSON that a parser accepts.

    Attributes:
        space: the bytes allowed between tokens.
        keys: the keys of the instruction.
        escapes: additional escapes.
        tags: whether the parser removes tags, so that strings may not contain any.
    """

    space: bytes
    keys: Sequence[_Word]
    escapes: bytes
    tags: bool


# The published code doubles a backslash depending on what follows it, which breaks some escapes.
_ROBUST = _Format(_JSON_SPACE, _ROBUST_KEYS, escapes=b"\\", tags=False)
_PUBLISHED = _Format(b" \t", _PUBLISHED_KEYS, escapes=b"", tags=True)


def clean_outputs(parser: str) -> ByteAutomaton:
    """Build the automaton of a parser: "plain", "robust" or "reference"; else ConfigError."""
    draw = _DRAW.get(parser)
    if draw is None:
        raise ConfigError(f"unknown parser {parser!r}: use one of {', '.join(_DRAW)}")
    drawing = Drawing()
    draw(drawing)
    return drawing.finished()


def _draw_plain(d: Drawing) -> None:
    """Draw the plain parser: the span is the whole text, as white space and ASCII quotes around it
    are not words.

    Undecided are a start that `parse_plain` may strip (a label, a fence, a non-ASCII quote), a
    possible tag anywhere, a text that begins like JSON, and quotes with nothing between them.
    """
    start = d.state(INSIDE, EMPTY, stay=_PYTHON_SPACE)
    text = d.state(INSIDE, FOUND, stay=_ASCII + _BEYOND)
    tag = _watch_tags(d, text)
    quotes = d.state(INSIDE, UNDECIDED, stay=_PYTHON_SPACE + b"\"'`")
    marks = d.state(INSIDE, FOUND, stay=_PYTHON_SPACE + b"*#_")
    words, label_ends = _draw_label(d)
    d.on(start, b"\"'", quotes)
    d.on(start, b"*#_", marks)
    d.like(start, words)
    d.like(marks, words)
    stops = dict.fromkeys(label_ends, b":\n") | {start: b"{[`"}
    for state in (start, *d.since(quotes)):
        d.on(state, b"<", tag)
        d.otherwise(state, bytes(set(_ASCII) - set(stops.get(state, b""))), text)


def _draw_label(d: Drawing) -> tuple[int, tuple[int, int]]:
    """Draw the words of a label, in any order and number.

    Returns the state before each word, and those where a colon or line break completes the label.
    """
    words, name = d.state(INSIDE, FOUND), d.state(INSIDE, FOUND)
    named = d.state(INSIDE, FOUND, stay=b"*_ ISWAiswa")  # " is", " was", marks
    for noun in _LABEL_NOUNS:
        d.spell(words, _any_case(noun), name)
    d.on(name, b"*_ ", named)
    for word in _LABEL_WORDS:
        d.on(d.spell(words, _any_case(word)), b"_ ", words)
    return words, (name, named)


def _draw_robust(d: Drawing) -> None:
    """Draw the robust parser: one JSON object, bare or in a fence that may be left open."""
    start = d.state(BEFORE, EMPTY, stay=_JSON_SPACE)
    first, _ = _draw_object(d, _ROBUST)
    d.on(start, b"{", first)
    fence = _draw_fence(d, start, BEFORE)
    language = d.spell(fence, _any_case("json"))
    gap = d.state(BEFORE)
    first, closed = _draw_object(d, _ROBUST)
    for state in (fence, language, gap):
        d.on(state, _JSON_SPACE, gap)
        d.on(state, b"{", first)
    _draw_fence(d, closed, AFTER, d.state(AFTER, FOUND, stay=_JSON_SPACE))


def _draw_reference(d: Drawing) -> None:
    """Draw the published parser: one JSON object on one line, as it escapes inner line breaks.

    It cuts off each end of a fence whether or not the other is there.
    """
    start = d.state(BEFORE, EMPTY, stay=_JSON_SPACE)
    first, closed = _draw_object(d, _PUBLISHED)
    fence = _draw_fence(d, start, BEFORE)
    language = d.spell(fence, [b"j", b"s", b"o", b"n"])
    gap = d.state(BEFORE)
    for state in (fence, language, gap):
        d.on(state, _PUBLISHED.space, gap)
    for state in (start, fence, language, gap):
        d.on(state, b"{", first)
    rest = d.state(AFTER, FOUND, stay=_JSON_SPACE)
    d.on(closed, b"\n\r", rest)
    _draw_fence(d, closed, AFTER, rest)


def _draw_object(d: Drawing, form: _Format) -> tuple[int, int]:
    """Draw an object of strings: one key for the instruction, reasoning before or after it.

    Undecided are values of white space or of only non-ASCII bytes, which may be white space, and
    values with an escape that stands for more than punctuation.
    Returns the states after the opening and the closing brace.
    """
    closed = d.state(AFTER, FOUND, stay=form.space)
    ended, more = d.state(AFTER, stay=form.space), d.state(AFTER, stay=form.space)
    d.on(ended, b"}", closed)
    d.on(ended, b",", more)
    _draw_reasoning(d, AFTER, (more, ended), form)
    first, comma = d.state(BEFORE, stay=form.space), d.state(BEFORE, stay=form.space)
    d.on(comma, b",", first)
    quote = _draw_reasoning(d, BEFORE, (first, comma), form)
    value = _draw_string(d, INSIDE, ended, _NO_WORDS + form.escapes, form.tags)
    blank = d.state(INSIDE, stay=b" " + _BEYOND)
    d.like(blank, value)
    d.on(blank, b'"', DEAD)
    _draw_keys(d, BEFORE, quote, form.keys, blank, form.space)
    return first, closed


def _draw_reasoning(d: Drawing, phase: int, ends: tuple[int, int], form: _Format) -> int:
    """Draw a reasoning member between two states; returns the state after its key's first quote."""
    before, behind = ends
    quote = d.state(phase)
    d.on(before, b'"', quote)
    value = _draw_string(d, phase, behind, _ANY_ESCAPE + form.escapes, form.tags)
    _draw_keys(d, phase, quote, [_REASONING], value, form.space)
    return quote


def _draw_keys(
    d: Drawing, phase: int, quote: int, keys: Sequence[_Word], value: int, space: bytes
) -> None:
    """Draw keys, their closing quote, a colon and the quote that opens the value."""
    colon, ready = d.state(phase, stay=space), d.state(phase, stay=space)
    d.on(colon, b":", ready)
    d.on(ready, b'"', value)
    for key in keys:
        d.spell(quote, [*key, b'"'], colon)


def _draw_string(d: Drawing, phase: int, behind: int, escapes: bytes, tags: bool) -> int:
    string, escape = d.state(phase, stay=_IN_STRING), d.state(phase)
    d.on(string, b'"', behind)
    d.on(string, b"\\", escape)
    d.on(escape, escapes, string)
    if tags:
        _watch_tags(d, string)
    return string


def _draw_fence(d: Drawing, state: int, phase: int, to: int | None = None) -> int:
    """Draw three backticks; returns the state after them."""
    first = d.state(phase)
    d.on(state, b"`", first)
    return d.spell(first, [b"`", b"`"], to)


def _watch_tags(d: Drawing, state: int) -> int:
    """Stop where `<` may open a think or answer tag; returns the state after `<`."""
    opened = d.copy(state)
    for each in (state, opened):
        d.on(each, b"<", opened)
    d.on(opened, b"ta/", DEAD)
    return opened


_DRAW: dict[str, Callable[[Drawing], None]] = {
    "plain": _draw_plain,
    "robust": _draw_robust,
    "reference": _draw_reference,
}
