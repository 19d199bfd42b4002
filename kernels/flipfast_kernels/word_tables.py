"""Tables that `word_f1` reads besides token ids: the vocabulary's bytes and the reference words.

Needs no Triton: both are built on the CPU, even where no kernel can run.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Sequence

import torch

from flipfast_kernels.word_hash import ARTICLES, LETTERS, LONGEST_WORD, as_int64, power

# Fields of a record's info, which jit/word_f1.py unpacks.
HEAD_SHIFT, TAIL_SHIFT, INNER_SHIFT = 16, 24, 32  # bits 0 to 15 are the number of bytes
BOUNDARY = 1 << 48  # the token has white space
BAD = 1 << 49  # it has bytes that only the text path can treat, or a too long word
UNKNOWN = 1 << 50  # its bytes are unknown
BACKSLASH = 1 << 51  # it has a backslash, which is an escape in JSON
_MOST_BYTES = (1 << 16) - 1
_LONGEST_PIECE = 255  # longer pieces count as this long: words with one are undecided anyway

_SPACE, _LETTER = 1, 2  # kinds of bytes; bytes of kind 0 are dropped


@dataclasses.dataclass(frozen=True)
class TokenTable:
    """The tokens of a vocabulary as pieces of words, on one device; see `build_token_table`.

    A token's text, lower-cased and without punctuation, is letters up to its first white space (the
    head), whole words, and letters after its last white space (the tail).

    Attributes:
        records: int64 (V + 256, 4), 32 bytes per token: hash of the head (of all letters if there
            is no white space), hash of the tail, info (16 bits number of bytes, 8 bits letters of
            the head, 8 bits letters of the tail, 16 bits number of whole words, then flags), and
            index of its first whole word in `words`. After the vocabulary, the 256 bytes as tokens.
        words: int64 (words,), hashes of the whole words inside tokens, without articles.
        raw: uint8 (bytes,), the bytes of all tokens.
        offsets: int64 (V + 1,), where each token's bytes begin in `raw`, and the total at the end.
        powers: int64 (256,), powers of the hash's base.
    """

    records: torch.Tensor
    words: torch.Tensor
    raw: torch.Tensor
    offsets: torch.Tensor
    powers: torch.Tensor

    @property
    def size(self) -> int:
        """The number of tokens V."""
        return self.offsets.shape[0] - 1

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.records.device

    def to(self, device: torch.device | str) -> TokenTable:
        """The same table on a device."""
        tensors = {f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)}
        return TokenTable(**tensors)


@dataclasses.dataclass(frozen=True)
class ReferenceWords:
    """The words of R references without articles, all on one device.

    Attributes:
        hashes: int64 (words,), the distinct words of reference 0, of reference 1 and so on.
        copies: int32 (words,), number of occurrences of that word in its reference.
        offsets: int32 (R + 1,), where each reference's words begin, and the total at the end.
        n_words: int32 (R,), number of words of each reference, repetitions included.
    """

    hashes: torch.Tensor
    copies: torch.Tensor
    offsets: torch.Tensor
    n_words: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ReferenceWords:
        """The same words on a device."""
        tensors = {
            f.name: getattr(self, f.name).to(device, non_blocking=non_blocking)
            for f in dataclasses.fields(self)
        }
        return ReferenceWords(**tensors)


def build_token_table(token_bytes: Sequence[bytes | None]) -> TokenTable:
    """Build the table of a vocabulary, on the CPU; 256,000 tokens take about half a second.

    Args:
        token_bytes: for every id the bytes that it adds to the text, empty for a token that
            decoding skips; None if unknown, which makes rows with that id undecided.

    Raises:
        ValueError: a token of more than 65535 bytes, with its id.
    """
    known = [b"" if token is None else token for token in token_bytes]
    lengths = torch.tensor([len(token) for token in known], dtype=torch.int64)
    if len(known) and int(lengths.max()) > _MOST_BYTES:
        at = int(lengths.argmax())
        raise ValueError(f"token {at} has {int(lengths[at])} bytes: at most {_MOST_BYTES}")
    raw = _as_tensor(b"".join(known))
    records, words = _records(
        torch.cat([raw, torch.arange(256, dtype=torch.uint8)]),
        torch.cat([lengths, torch.ones(256, dtype=torch.int64)]),
    )
    unknown = [at for at, token in enumerate(token_bytes) if token is None]
    records[unknown, 2] |= UNKNOWN
    offsets = torch.zeros(len(known) + 1, dtype=torch.int64)
    offsets[1:] = lengths.cumsum(0)
    powers = torch.tensor([power(n) for n in range(_LONGEST_PIECE + 1)])
    return TokenTable(records, words, raw, offsets, powers)


def _as_tensor(data: bytes) -> torch.Tensor:
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _byte_tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each byte its kind, its flags, and the hash value of its lower case."""
    kinds, flags, values = [], [], []
    for byte in range(256):
        char = chr(byte)
        is_letter = char.isascii() and char.isalnum()
        # str.split() splits at these, including the separators 0x1C to 0x1F; they end an article.
        is_space = char.isascii() and char.isspace()
        is_known = is_letter or is_space or char in string.punctuation
        kinds.append(_LETTER * is_letter + _SPACE * is_space)
        flags.append(BAD * (not is_known) + BACKSLASH * (char == "\\"))
        values.append(as_int64(LETTERS[ord(char.lower())] if is_letter else 0))
    return torch.tensor(kinds, dtype=torch.uint8), torch.tensor(flags), torch.tensor(values)


def _records(raw: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The records of tokens given as concatenated bytes, and the hashes of their whole words."""
    kinds, flags, values = _byte_tables()
    n_tokens = lengths.shape[0]
    token = torch.repeat_interleave(torch.arange(n_tokens), lengths)
    index = raw.int()
    kind = kinds[index]
    spaces = torch.zeros(raw.shape[0] + 1, dtype=torch.int64)  # how many come before a byte
    spaces[1:] = (kind == _SPACE).cumsum(0)
    end = lengths.cumsum(0)
    before, after = spaces[end - lengths], spaces[end]  # of each token

    letters = (kind == _LETTER).nonzero().flatten()
    of_letter = token[letters]
    # A piece is a token's letters with no white space between them; these numbers increase.
    parts = spaces[letters] + of_letter
    _, piece, sizes = parts.unique_consecutive(return_inverse=True, return_counts=True)
    last = sizes.cumsum(0) - 1
    behind = (last[piece] - torch.arange(letters.shape[0])).clamp(max=_LONGEST_PIECE)
    powers = torch.tensor([power(n) for n in range(_LONGEST_PIECE + 1)])
    terms = values[index[letters]] * powers[behind]
    hashes = torch.zeros(sizes.shape[0], dtype=torch.int64).index_add_(0, piece, terms)

    of_piece = of_letter[last]
    is_head = spaces[letters[last]] == before[of_piece]
    is_tail = ~is_head & (spaces[letters[last]] == after[of_piece])
    is_word = ~is_head & ~is_tail

    records = torch.zeros(n_tokens, 4, dtype=torch.int64)
    info = records[:, 2]
    info += lengths
    short = sizes.clamp(max=_LONGEST_PIECE)
    for column, shift, which in ((0, HEAD_SHIFT, is_head), (1, TAIL_SHIFT, is_tail)):
        records[of_piece[which], column] = hashes[which]
        info[of_piece[which]] += short[which] << shift
    info[after > before] |= BOUNDARY
    for flag in (BAD, BACKSLASH):
        info[token[(flags[index] & flag) > 0]] |= flag
    info[of_piece[is_word & (sizes > LONGEST_WORD)]] |= BAD

    is_word &= ~torch.isin(hashes, torch.tensor(ARTICLES))
    n_inner = torch.bincount(of_piece[is_word], minlength=n_tokens)
    info += n_inner << INNER_SHIFT
    records[:, 3] = n_inner.cumsum(0) - n_inner
    return records, hashes[is_word]
