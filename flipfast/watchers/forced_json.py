"""Writes the literal parts of the JSON object, so that the model writes its two strings alone."""

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

_BEHIND = (BETWEEN, CLOSING)  # what stands behind each string
_QUOTE, _BACKSLASH = b'"\\'
_ESCAPABLE = b'"\\/bfnrt'
_HEX_DIGITS = string.hexdigits.encode()
_WHOLE_ESCAPE = 6  # characters of \uXXXX
# What completes an escape of which so many characters are there: a lone backslash stands for
# itself then, and \u for the letter u.
_COMPLETIONS = (b"", b"\\", b"0075", b"000", b"00", b"0")
_LETTERS = string.printable.strip()
_WIDE = "\uff02\uff3c"  # a quote and a backslash, where a tokenizer normalizes its text so far


@dataclass(frozen=True)
class _Piece:
    """What a sampled token becomes.

    Attributes:
        tokens: what is written for it.
        n_open: characters of an escape that they leave incomplete.
        closes: whether they close the string, its literal included.
        cost: how many tokens it takes to write them, and to close the string if they don't.
    """

    tokens: list[int]
    n_open: int
    closes: bool
    cost: int


class JsonWriter:
    """Makes the watchers that write a JSON object around what a model says, one an output.

    Args:
        encoder: of the model's tokenizer.
        decode: the text of tokens.
        token_bytes: what each token adds to a text, None where that is not known.
        end_ids: tokens that end an output.
        max_new_tokens: longest output.

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
        # No tokenizer runs twice for the same token.
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
        """The watcher of a new output."""
        return ForcedJson(self)

    def _piece(self, at: int, n_open: int, token: int) -> _Piece:
        """What becomes of a token in string `at`, behind an escape with n_open characters."""
        data = self._token_bytes[token]
        if token in self._end_ids:
            return self.closing(at, n_open)
        if data is None:  # a part of a character beyond ASCII, at most
            return self._open_piece(at, [*self._encode(_COMPLETIONS[n_open]), token], 0)
        inside, n_open, closes = _inside(data, n_open)
        if closes:
            tokens = self._encode(inside + _BEHIND[at].encode())
            return _Piece(tokens, 0, True, len(tokens))
        # In SentencePiece's manner there are tokens that stand for a byte: a run of them that is
        # no UTF-8 loses its ASCII, too, so that those are written by their letters' own tokens.
        is_letter = len(data) == 1 and data.isascii()
        if inside.endswith(data) and not is_letter:
            tokens = [*self._encode(inside.removesuffix(data)), token]
        else:
            tokens = self._encode(inside) or [token]
        return self._open_piece(at, tokens, n_open)

    def _open_piece(self, at: int, tokens: list[int], n_open: int) -> _Piece:
        return _Piece(tokens, n_open, False, len(tokens) + self.closing(at, n_open).cost)

    def _closing(self, at: int, n_open: int) -> _Piece:
        """What closes string `at` behind an escape with n_open characters."""
        tokens = self._encode(_COMPLETIONS[n_open] + _BEHIND[at].encode())
        return _Piece(tokens, 0, True, len(tokens))

    def _encode(self, data: bytes) -> list[int]:
        return self._encoder.encode_text(data.decode("utf-8", "replace"))

    def _require_letters(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Refuse a tokenizer that does not write ASCII as it is, whatever stands around it."""
        encode = self._encoder.encode_text
        unclear = (i for i, data in enumerate(self._token_bytes) if data is None and decode([i]))
        around = list(islice(unclear, 1))
        for letter in _LETTERS:
            if letter not in decode([*around, *encode(letter), *around]):
                raise ConfigError(f"json='forced': this tokenizer cannot write {letter!r}")
        if not set(decode(encode(_WIDE))).isdisjoint('"\\'):
            raise ConfigError(f"json='forced': this tokenizer does not keep {_WIDE!r} as it is")


class ForcedJson:
    """A watcher that writes the literals of the object; the model writes what is in its strings.

    Every such output is one JSON object with the keys "REASONING" and "INFERRED INSTRUCTION" that
    `json.loads` accepts: a string closes at the model's first unescaped quote or end token, raw
    control characters become escapes, and broken escapes are mended. Where the reasoning has had
    half of the tokens that the literals leave, it is closed; the instruction gets the rest, and
    if that does not do it is cut there, with the finish_reason "length".

    What the model does not write it does not choose either: the outputs, and so the rewards, are
    not those of free ones.

    Args:
        writer: of the model's tokenizer.
    """

    def __init__(self, writer: JsonWriter) -> None:
        self._writer = writer
        self._at = 0  # which string
        self._n_open = 0

    def start(self) -> list[int]:
        """What opens the reasoning."""
        return self._writer.opening

    def see(self, token: int, n_left: int) -> Verdict | None:
        """Keep the token, mend it, or close the string instead."""
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
    """Bytes as a JSON string may hold them, behind an escape with n_open characters.

    Returns:
        The bytes, how many characters of an escape stand at their end, and whether a quote has
        closed the string behind them.
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
    """Whether a byte is the next of an escape with n_open characters."""
    if n_open == 1:
        return byte == ord("u") or byte in _ESCAPABLE
    return n_open > 1 and byte in _HEX_DIGITS
