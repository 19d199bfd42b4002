"""Finds the settled words of a growing output, which its parser will keep whatever follows."""

from __future__ import annotations

from typing import Protocol

from flipfast._core import ObjectScanner
from flipfast.parsing.strings import decode
from flipfast.parsing.wrappers import THINK, drop_answer_tags, drop_think, may_be_in_label

_STRIPPED = ("{", "[", "```")  # an object that is read by its keys, a fence
_QUOTES = ("\u201c", "\u2018")  # stripped if the last character matches; ASCII quotes never count


class Settled(Protocol):
    """Reads an output's bytes as they arrive, in any pieces."""

    def feed(self, data: bytes) -> str:
        """Read more bytes; returns the newly settled text, cut at white space on both ends."""


class SettledPlain:
    """The settled words of an output that `parse_plain` reads with think_open=False.

    That parser changes a word only based on its own stretch between white space, except for what it
    strips from the start: a possible label is waited out, and after a fence, an object, a think
    block or a quote that may be stripped nothing is settled.
    """

    def __init__(self) -> None:
        self._stretches = _Stretches()
        self._in_text = False  # past all that could be stripped from the start
        self._given_up = False

    def feed(self, data: bytes) -> str:
        """See `Settled`."""
        kept = [self._read(stretch) for stretch in self._stretches.feed(data).split()]
        return " ".join(kept)

    def _read(self, stretch: str) -> str:
        """Return what will be kept of a stretch; "" while that is not certain."""
        self._given_up |= THINK in stretch
        text = drop_answer_tags(drop_think(stretch, think_open=False))
        if text and not self._in_text:
            self._given_up |= text.startswith(_STRIPPED) or any(map(text.__contains__, _QUOTES))
            self._in_text = not may_be_in_label(text)
        return text if self._in_text and not self._given_up else ""


class SettledObject:
    """The settled words of an output that `parse_robust` reads.

    If the output begins with a clean object, that parser takes the value of the instruction's key,
    unless it only shows the format. So nothing is settled before the value has a letter or digit,
    nor if it begins with a bracket.
    """

    def __init__(self) -> None:
        self._stretches = _Stretches()
        self._scanner = ObjectScanner()
        self._n_read = 0
        self._held: str | None = ""  # the value so far, while it may only show the format

    def feed(self, data: bytes) -> str:
        """See `Settled`."""
        before, scanner = self._n_read, self._scanner
        self._n_read += len(data)
        scanner.feed(data)
        if scanner.dead or scanner.start < 0 or scanner.end >= 0:
            return ""
        text = decode(self._stretches.feed(data[max(scanner.start - before, 0) :]))
        if self._held is None:
            return text
        self._held += text
        text = self._held.lstrip()
        if text.startswith(("<", "[")) or not any(map(str.isalnum, text)):
            return ""
        self._held = None
        return text


class _Stretches:
    """Decodes bytes to text, cut at white space.

    Returns no more text after invalid UTF-8, which decoders treat differently.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._broken = False

    def feed(self, data: bytes) -> str:
        end = max(data.rfind(b" "), data.rfind(b"\n")) + 1
        if not end:
            self._pending += data
            return ""
        whole, self._pending = self._pending + data[:end], data[end:]
        try:
            text = whole.decode()
        except UnicodeDecodeError:
            self._broken = True
        return "" if self._broken else text
