"""Writes the literal parts of the JSON object, so that the model writes only its two strings."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from flipfast.errors import ConfigError
from flipfast.prompts.drafts import BETWEEN, CLOSING, OPENING
from flipfast.prompts.encoding import TextEncoder
from flipfast.watchers.base import Verdict

_BEHIND = (BETWEEN, CLOSING)  # what follows each string
_QUOTE, _BACKSLASH = b'"\\'
_ESCAPABLE = b'"\\/bfnrt'
_HEX_DIGITS = string.hexdigits.encode()
_WHOLE_ESCAPE = 6  # characters of \uXXXX
# What completes an escape, by the number of its characters so far: a lone backslash becomes an
# escaped one, and \u the letter u.
_COMPLETIONS = (b"", b"\\", b"0075", b"000", b"00", b"0")
_LETTERS = string.printable.strip()
_WIDE = "\uff02\uff3c"  # full-width; a tokenizer may normalize them to a quote and a backslash


@dataclass(frozen=True)
class _Piece:
    """What a sampled token becomes.

    Attributes:
        tokens: written in its place.
        n_open: characters of an escape that they leave incomplete.
        closes: whether they close the string, including the literal after it.
        cost: tokens needed to write them, and to close the string if they don't.
    """

    tokens: list[int]
    n_open: int
    closes: bool
    cost: int


class JsonWriter:
    """Makes the watchers that write a JSON object around the model's words, one per output.

    Args:
        encoder: of the model's tokenizer.
        decode: decodes tokens to text.
        token_bytes: the bytes that each token adds to a text, None if unknown.
        end_ids: tokens that end an output.
        max_new_tokens: maximum output length, in tokens.

    Raises:
        ConfigError: the tokenizer cannot write JSON, or max_new_tokens is too small for it.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        decode: Callable[[Sequence[int]], str],
        token_bytes: Sequence[bytes | None],
        end_ids: frozenset[int],
        max_new_tokens: int,
    ) -> None:
        self._encoder = encoder
        self._token_bytes = token_bytes
        self._end_ids = end_ids
        self._require_letters(decode)
        # Cached, so that the tokenizer runs once per case.
        self.piece = lru_cache(maxsize=2**16)(self._piece)
        self.closing = lru_cache(maxsize=None)(self._closing)
        self.opening = encoder.encode_text(OPENING)
        between, closing = (self.closing(at, 0).cost for at in range(2))
        room = max_new_tokens - len(self.opening) - between - closing
        if room < 2:
            raise ConfigError(
                f"max_new_tokens={max_new_tokens} leaves no room beside what json='forced' writes: "
                f"with this tokenizer it takes {max_new_tokens - room + 2} at least"
            )
        self.reserves = (room - room // 2 + closing, 0)

    def __call__(self) -> ForcedJson:
        """Make the watcher of a new output."""
        return ForcedJson(self)

    def _piece(self, at: int, n_open: int, token: int) -> _Piece:
        """Return what a token becomes in string `at`, after n_open characters of an escape."""
        data = self._token_bytes[token]
        if token in self._end_ids:
            return self.closing(at, n_open)
        if data is None:  # at most a part of a non-ASCII character
            return self._open_piece(at, [*self._encode(_COMPLETIONS[n_open]), token], 0)
        inside, n_open, closes = _inside(data, n_open)
        if closes:
            tokens = self._encode(inside + _BEHIND[at].encode())
            return _Piece(tokens, 0, True, len(tokens))
        # SentencePiece has tokens for single bytes: a run of them that is not valid UTF-8 loses
        # its ASCII, too, so ASCII bytes are written with their letters' own tokens.
        is_letter = len(data) == 1 and data.isascii()
        if inside.endswith(data) and not is_letter:
            tokens = [*self._encode(inside.removesuffix(data)), token]
        else:
            tokens = self._encode(inside) or [token]
        return self._open_piece(at, tokens, n_open)

    def _open_piece(self, at: int, tokens: list[int], n_open: int) -> _Piece:
        return _Piece(tokens, n_open, False, len(tokens) + self.closing(at, n_open).cost)

    def _closing(self, at: int, n_open: int) -> _Piece:
        """Return what closes string `at` after n_open characters of an escape."""
        tokens = self._encode(_COMPLETIONS[n_open] + _BEHIND[at].encode())
        return _Piece(tokens, 0, True, len(tokens))

    def _encode(self, data: bytes) -> list[int]:
        return self._encoder.encode_text(data.decode("utf-8", "replace"))

    def _require_letters(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Reject a tokenizer that does not reproduce ASCII in every surrounding."""
        encode = self._encoder.encode_text
        unclear = (i for i, data in enumerate(self._token_bytes) if data is None and decode([i]))
        around = list(islice(unclear, 1))
        for letter in _LETTERS:
            if letter not in decode([*around, *encode(letter), *around]):
                raise ConfigError(f"json='forced': this tokenizer cannot write {letter!r}")
        if not set(decode(encode(_WIDE))).isdisjoint('"\\'):
            raise ConfigError(f"json='forced': this tokenizer does not keep {_WIDE!r} as it is")


class ForcedJson:
    """A watcher that writes the literals of the object; the model writes only into its strings.

    Every output is one JSON object with the keys "REASONING" and "INFERRED INSTRUCTION" that
    `json.loads` accepts: a string closes at the model's first unescaped quote or end token, raw
    control characters become escapes, and broken escapes are repaired. The reasoning is closed once
    it has used half of the tokens that the literals leave; the instruction gets the rest, and is
    cut with the finish_reason "length" if that is not enough.

    The model does not choose the literals, so the outputs and their rewards differ from those of
    json="free".

    Args:
        writer: of the model's tokenizer.
    """

    def __init__(self, writer: JsonWriter) -> None:
        self._writer = writer
        self._at = 0  # which string
        self._n_open = 0

    def start(self) -> list[int]:
        """Return the literal that opens the reasoning."""
        return self._writer.opening

    def see(self, token: int, n_left: int) -> Verdict | None:
        """Keep the token, repair it, or close the string instead."""
        room = n_left + 1 - self._writer.reserves[self._at]
        piece = self._writer.piece(self._at, self._n_open, token)
        fits = piece.cost <= room
        if not fits:
            piece = self._writer.closing(self._at, self._n_open)
        self._n_open = piece.n_open
        if not piece.closes:
            return None if piece.tokens == [token] else Verdict(piece.tokens)
        self._at += 1
        if self._at < len(_BEHIND):
            return Verdict(piece.tokens)
        return Verdict(piece.tokens, ends=True, reason="stop" if fits else "length")


def _inside(data: bytes, n_open: int) -> tuple[bytes, int, bool]:
    """Convert bytes to valid contents of a JSON string, after n_open characters of an escape.

    Returns:
        The bytes, the number of characters of an incomplete escape at their end, and whether a
        quote closes the string after them.
    """
    out = bytearray()
    for byte in data:
        if _continues(n_open, byte):
            whole = n_open == 1 and byte != ord("u")
            n_open = 0 if whole else (n_open + 1) % _WHOLE_ESCAPE
            out.append(byte)
            continue
        out += _COMPLETIONS[n_open]
        if byte == _QUOTE:
            return bytes(out), 0, True
        n_open = int(byte == _BACKSLASH)
        out += bytes([byte]) if byte >= ord(" ") else json.dumps(chr(byte))[1:-1].encode()
    return bytes(out), n_open, False


def _continues(n_open: int, byte: int) -> bool:
    """Return whether a byte continues an escape that has n_open characters."""
    if n_open == 1:
        return byte == ord("u") or byte in _ESCAPABLE
    return n_open > 1 and byte in _HEX_DIGITS
