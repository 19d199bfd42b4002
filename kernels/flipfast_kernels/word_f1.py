"""Word F1 directly from token ids: the published value without decoding the ids to text."""

from __future__ import annotations

import string
from collections import Counter
from typing import NamedTuple

import torch

from flipfast_kernels.jit.word_f1 import word_f1_kernel
from flipfast_kernels.launch import (
    power_of_two,
)
from flipfast_kernels.word_f1_checks import check_arguments, check_tensor, check_values
from flipfast_kernels.word_hash import LONGEST_WORD, hash_bytes
from flipfast_kernels.word_tables import (
    UNKNOWN,
    ReferenceWords,
    TokenTable,
    build_token_table,
)

__all__ = [
    "ReferenceWords",
    "TokenTable",
    "WordScores",
    "build_token_table",
    "word_f1",
    "word_f1_config",
    "word_f1_ref",
]

_ARTICLES = ("a", "an", "the")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Control characters other than white space: they are word boundaries for articles.
_MARKS = frozenset(chr(c) for c in range(128) if not (chr(c).isspace() or chr(c).isprintable()))


class WordScores(NamedTuple):
    """Results for N rows, on the rows' device.

    Attributes:
        counts: int32 (N, 3): overlap, words of the prediction, words of the reference; the first
            two are -1 in an undecided row.
        scores: float64 (N, 3): f1, precision, recall; NaN in an undecided row.
        decided: bool (N,), whether the values are the published ones; if not, score the text.
    """

    counts: torch.Tensor
    scores: torch.Tensor
    decided: torch.Tensor


def word_f1(
    token_ids: torch.Tensor,
    lens: torch.Tensor,
    span_begin: torch.Tensor | None,
    span_end: torch.Tensor | None,
    table: TokenTable,
    references: ReferenceWords,
    reference_rows: torch.Tensor | None = None,
    *,
    samples: int = 1,
    json: bool = False,
    out: WordScores | None = None,
    validate: bool = True,
) -> WordScores:
    """Score the words of each row's text against a reference's, as FLIP defines it.

    The definition is that of arXiv 2602.13551: lower case, no ASCII punctuation, no articles, words
    separated by white space, overlap of multisets. In ASCII text without control characters other
    than white space, words are what is left between white space after punctuation is dropped, and
    the articles are the words a, an, the. A scan composes a word's hash from the pieces in its
    tokens (see `flipfast_kernels.word_hash`); equal hashes count as equal words.

    A row is undecided if its span has a byte of 0x80 or more, another control character, a word of
    more than 128 letters or, with `json`, a backslash, or if an id before the span's end has
    unknown bytes or is not in the table.

    Operations: 2 per pair of token and distinct reference word; the tokens are read again, from
    cache, for every 32 distinct words. Bytes per token: 4 or 8 of the id and 32 of its record,
    twice that with spans (the table of 256,000 tokens, 8 MB, fits in the L2 cache); 12 per distinct
    reference word. On an H200 (4.8 TB/s per the datasheet) at least N * L * (40 to 80) / 4.8e12
    seconds for rows of L tokens: 4,096 rows of 64 tokens take 2.2 microseconds or more.

    Args:
        token_ids: (N, T) int32 or int64, any row stride; entries from a row's length on are
            ignored.
        lens: (N,) int32, each in [0, T].
        span_begin, span_end: (N,) int32, the bytes [begin, end) to score, counted in the
            concatenated bytes of the row's tokens; both None for whole rows.
        table: of the tokenizer.
        references: R references.
        reference_rows: (N,) int32, which reference a row is scored against; None for row i against
            reference i // samples.
        samples: rows per reference, used if reference_rows is None.
        json: whether the spans are inside JSON strings, where a backslash begins an escape.
        out: tensors to overwrite; None allocates them.
        validate: check the tensors' values; on CUDA the host waits for that.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit; with `validate` also ids,
            lengths, spans, reference rows or offsets out of their range.
    """
    n_rows, width = check_arguments(
        token_ids, lens, span_begin, span_end, table, references, reference_rows, samples
    )
    out = _outputs(out, n_rows, token_ids.device)
    if validate:
        check_values(token_ids, lens, span_begin, span_end, table, references, reference_rows)
    if n_rows == 0:
        return out
    word_f1_kernel[(n_rows,)](
        token_ids,
        lens,
        span_begin,
        span_end,
        table.records,
        table.words,
        table.raw,
        table.offsets,
        table.powers,
        references.hashes,
        references.copies,
        references.offsets,
        references.n_words,
        reference_rows,
        out.counts,
        out.scores,
        out.decided,
        token_ids.stride(0),
        table.size,
        samples,
        HAS_SPAN=span_begin is not None,
        HAS_ROWS=reference_rows is not None,
        JSON=json,
        enable_fp_fusion=False,
        **word_f1_config(width),
    )
    return out


def word_f1_config(width: int) -> dict[str, int]:
    """Block sizes and warps for rows of up to `width` tokens."""
    block = min(max(power_of_two(width + 1), 32), 128)
    return {"BLOCK_T": block, "BLOCK_R": 32, "num_warps": block // 32}


def word_f1_ref(
    token_ids: torch.Tensor,
    lens: torch.Tensor,
    span_begin: torch.Tensor | None,
    span_end: torch.Tensor | None,
    table: TokenTable,
    references: ReferenceWords,
    reference_rows: torch.Tensor | None = None,
    *,
    samples: int = 1,
    json: bool = False,
) -> WordScores:
    """Reference for `word_f1`, from the bytes and the text of each row."""
    table, references = table.to("cpu"), references.to("cpu")
    out = _outputs(None, token_ids.shape[0], torch.device("cpu"))
    for row in range(token_ids.shape[0]):
        ids = token_ids[row, : int(lens[row])].tolist()
        span = None
        if span_begin is not None and span_end is not None:
            span = int(span_begin[row]), int(span_end[row])
        reference = row // samples if reference_rows is None else int(reference_rows[row])
        text = _text(ids, span, table)
        words = None if text is None or (json and "\\" in text) else _words(text)
        out.decided[row] = words is not None
        out.counts[row], out.scores[row] = _score(words, references, reference)
    return WordScores(*(tensor.to(token_ids.device) for tensor in out))


def _text(ids: list[int], span: tuple[int, int] | None, table: TokenTable) -> str | None:
    """The text of a row's span; None if it is unknown or not ASCII."""
    text = b""
    for token in ids:
        if span is not None and len(text) >= span[1]:
            break
        if not 0 <= token < table.size or int(table.records[token, 2]) & UNKNOWN:
            return None
        begin, end = table.offsets[token : token + 2].tolist()
        text += bytes(table.raw[begin:end].tolist())
    text = text if span is None else text[span[0] : span[1]]
    return text.decode("ascii") if text.isascii() else None


def _words(text: str) -> list[str] | None:
    """The words of an ASCII text; None if they are undecided."""
    words = text.lower().translate(_DELETE_PUNCTUATION).split()
    if _MARKS & set(text) or any(len(word) > LONGEST_WORD for word in words):
        return None
    return [word for word in words if word not in _ARTICLES]


def _score(
    words: list[str] | None, references: ReferenceWords, reference: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts and scores of one row."""
    n_reference = int(references.n_words[reference])
    if words is None:
        return torch.tensor([-1, -1, n_reference]), torch.full((3,), float("nan"))
    begin, end = references.offsets[reference : reference + 2].tolist()
    hashes, copies = references.hashes[begin:end].tolist(), references.copies[begin:end].tolist()
    predicted = Counter(hash_bytes(word.encode()) for word in words)
    same = (predicted & Counter(dict(zip(hashes, copies, strict=True)))).total()
    counts = torch.tensor([same, len(words), n_reference])
    if same == 0:
        return counts, torch.zeros(3, dtype=torch.float64)
    precision, recall = same / len(words), same / n_reference
    f1 = (2 * precision * recall) / (precision + recall)
    return counts, torch.tensor([f1, precision, recall], dtype=torch.float64)


def _outputs(out: WordScores | None, n_rows: int, device: torch.device) -> WordScores:
    wanted = {
        "counts": ((n_rows, 3), torch.int32),
        "scores": ((n_rows, 3), torch.float64),
        "decided": ((n_rows,), torch.bool),
    }
    if out is None:
        made = (torch.empty(shape, dtype=dtype, device=device) for shape, dtype in wanted.values())
        return WordScores(*made)
    for (name, (shape, dtype)), tensor in zip(wanted.items(), out, strict=True):
        check_tensor(f"out.{name}", tensor, shape, dtype)
        if tensor.device != device:
            raise ValueError(f"out.{name} is on {tensor.device}, token_ids on {device}")
    return out
