"""The bytes that each id of a tokenizer adds to the decoded text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

_CHUNK = 256  # ids decoded together in a check
_SPACE = "\u2581"  # SentencePiece's mark for a space
# Steps of a SentencePiece-like decoder.
_REPLACE = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
_FUSE = {"type": "Fuse"}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}

# Texts like those that models write.
_TRIALS = (
    '{"REASONING": "3 caf\xe9s:\\n- \u201cx\u201d", "INFERRED INSTRUCTION": "Don\'t explain"}',
    '```json\n{\n  "a": "\u4f60\u597d"\n}\n```\n\nThat is all \u2014 well...',
)


def _byte_letters() -> dict[int, int | str]:
    """Map the letters with which GPT-2 writes bytes to the bytes' values.

    Printing bytes are written as themselves, the others as the code points from 256 on, in order.
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    # A letter that stands for no byte must not be taken for one.
    letters: dict[int, int | str] = dict.fromkeys(others, "\uffff")
    letters.update({256 + at: byte for at, byte in enumerate(others)})
    return letters


_BYTE_LETTERS = _byte_letters()


class TokenBytes(NamedTuple):
    """The bytes that each id of a vocabulary adds to the decoded text.

    Attributes:
        table: as returned by `token_bytes`.
        flaw: why the table must not be used; None if it may.
    """

    table: list[bytes | None]
    flaw: str | None


class _Kind(NamedTuple):
    """How a tokenizer's decoder works.

    Attributes:
        decoder: "bytes" (GPT-2's letters), "spaces" (SentencePiece, replacing marks in the text)
            or "metaspace" (SentencePiece, token by token); "" for any other.
        falls_back: whether tokens such as <0x0A> stand for a byte.
        why: why the decoder is not supported.
    """

    decoder: str
    falls_back: bool = False
    why: str = ""


def verified_token_bytes(tokenizer: Any, vocab_size: int) -> TokenBytes:
    """Find the bytes of every id, and verify them against the tokenizer's own decoding.

    Takes about a second for 256,000 ids. Arguments as for `token_bytes`.
    """
    try:
        table = token_bytes(tokenizer, vocab_size)
        return TokenBytes(table, verify(tokenizer, table, _TRIALS))
    except ValueError as error:
        return TokenBytes([], str(error))


def token_bytes(tokenizer: Any, vocab_size: int | None = None) -> list[bytes | None]:
    """Find the bytes of every id: joined, they are the text of the ids without special tokens.

    Supports byte-level BPE (GPT-2, Llama 3, Qwen, OLMo) and SentencePiece-like tokenizers (Llama 2,
    Mistral, Gemma). Some of the latter drop a space at the start of the text; the bytes keep it.

    Args:
        tokenizer: of transformers, with a `backend_tokenizer` of the tokenizers library.
        vocab_size: number of ids of the model; None for the tokenizer's.

    Returns:
        Each id's bytes, b"" for a special token, None if unknown: an id that the tokenizer lacks, a
        token whose text depends on its neighbors, such as a single non-ASCII byte, or every id of a
        tokenizer of another kind, for which `verify` gives the reason.
    """
    kind = _kind(tokenizer)
    tokens = _tokens(tokenizer)
    size = max(tokens, default=-1) + 1 if vocab_size is None else vocab_size
    found: list[bytes | None] = [None] * size
    if not kind.decoder:
        return found
    special = _special_ids(tokenizer)
    for token_id, token in tokens.items():
        if token_id < size:
            found[token_id] = b"" if token_id in special else _bytes_of(token, kind)
    return found


def verify(tokenizer: Any, token_bytes: Sequence[bytes | None], texts: Iterable[str]) -> str | None:
    """Compare the bytes with the tokenizer's own decoding; None if they agree.

    Decodes all ids that have bytes, in order, and those of each text.

    Args:
        tokenizer: as in `token_bytes`.
        token_bytes: the result of that function.
        texts: realistic outputs of the model.

    Returns:
        Why the bytes must not be used, or None.
    """
    kind = _kind(tokenizer)
    if not kind.decoder:
        return kind.why
    known = {i: data for i, data in enumerate(token_bytes) if data is not None}
    every = list(known)
    for first in range(0, len(every), _CHUNK):
        ids = every[first : first + _CHUNK]
        if not _agree(tokenizer, kind, ids, known):
            return f"ids {ids[0]} to {ids[-1]} do not decode to the bytes of their tokens"
    for text in texts:
        ids = [i for i in tokenizer.encode(text, add_special_tokens=False) if i in known]
        if not _agree(tokenizer, kind, ids, known):
            return f"the ids of {text[:40]!r} do not decode to the bytes of their tokens"
    return None


def _kind(tokenizer: Any) -> _Kind:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _Kind(
            "", why=f"{type(tokenizer).__name__} is no tokenizer of the tokenizers library"
        )
    if backend.decoder is None:
        return _Kind("", why="the tokenizer has no decoder")
    decoder = json.loads(backend.decoder.__getstate__())
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    names = [step["type"] for step in steps]
    if names == ["ByteLevel"]:
        return _Kind("bytes")
    if names == ["Metaspace"] and steps[0]["replacement"] == _SPACE:
        return _Kind("metaspace")
    falls_back = "ByteFallback" in names[1:2]
    if steps[:1] == [_REPLACE] and steps[1 + falls_back :] in ([], [_FUSE], [_FUSE, _STRIP]):
        return _Kind("spaces", falls_back)
    return _Kind("", why=f"no table for a tokenizer whose decoder is {' + '.join(names)}")


def _tokens(tokenizer: Any) -> dict[int, str]:
    """Return the tokens by their ids, including added ones."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return dict.fromkeys(range(len(tokenizer)), "")
    vocabulary = backend.get_vocab(with_added_tokens=True)
    return {token_id: token for token, token_id in vocabulary.items()}


def _special_ids(tokenizer: Any) -> set[int]:
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {token_id for token_id, token in added.items() if token.special}


def _bytes_of(token: str, kind: _Kind) -> bytes | None:
    if kind.decoder == "bytes":
        try:
            return token.translate(_BYTE_LETTERS).encode("latin-1")
        except UnicodeEncodeError:  # an added token, written literally
            return token.encode()
    if kind.falls_back and (byte := _fallback(token)):
        # If a run of such bytes is not valid UTF-8, all of them become U+FFFD, even ASCII ones.
        return byte if byte < b"\x80" else None
    if kind.decoder == "metaspace" and _SPACE in token.lstrip(_SPACE):
        return None  # as a text's first token it would lose this space, too
    return token.replace(_SPACE, " ").encode()


def _fallback(token: str) -> bytes | None:
    """Return the byte that a token such as <0x0A> stands for."""
    found = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token)
    return bytes.fromhex(found[1]) if found else None


def _agree(tokenizer: Any, kind: _Kind, ids: list[int], known: dict[int, bytes]) -> bool:
    """Return whether ids decode to their bytes, ignoring SentencePiece's leading spaces."""
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    expected = b"".join(known[i] for i in ids).decode(errors="replace")
    if kind.decoder == "bytes":
        return bool(decoded == expected)
    return bool(decoded.lstrip(" ") == expected.lstrip(" "))
