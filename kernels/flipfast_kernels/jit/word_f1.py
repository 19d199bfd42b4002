# mypy: ignore-errors
"""Device code for word F1 from token ids."""

import triton
import triton.language as tl

from flipfast_kernels import word_hash, word_tables

_A, _AN, _THE = (tl.constexpr(article) for article in word_hash.ARTICLES)
_LONGEST_WORD = tl.constexpr(word_hash.LONGEST_WORD)
_HEAD = tl.constexpr(word_tables.HEAD_SHIFT)
_TAIL = tl.constexpr(word_tables.TAIL_SHIFT)
_INNER = tl.constexpr(word_tables.INNER_SHIFT)
_BOUNDARY = tl.constexpr(word_tables.BOUNDARY)
_UNKNOWN = tl.constexpr(word_tables.UNKNOWN)
_UNDECIDED = tl.constexpr(word_tables.BAD | word_tables.UNKNOWN)
_BACKSLASH = tl.constexpr(word_tables.BACKSLASH)
_FRESH = tl.constexpr(1 << 30)  # flag in a run's length: white space precedes it


@triton.jit
def _join(hash_a, power_a, length_a, hash_b, power_b, length_b):
    """Concatenate two runs of letters; only the second is kept where it begins a word."""
    is_fresh = length_b >= _FRESH
    joined_hash = tl.where(is_fresh, hash_b, hash_a * power_b + hash_b)
    joined_power = tl.where(is_fresh, power_b, power_a * power_b)
    return joined_hash, joined_power, tl.where(is_fresh, length_b, length_a + length_b)


@triton.jit
def _find_span(
    ids_ptr, records_ptr, n_tokens, table_size, begin, end, undecided, BLOCK_T: tl.constexpr
):
    """Locate the bytes [begin, end) in a row, as counts of tokens and of their bytes.

    Returns: the tokens that start before `begin`, and their bytes; the tokens that end by `end`,
    and their bytes; whether the position of `end` is unknown.
    """
    n_before, bytes_before, n_by_end, bytes_by_end, total = 0, 0, 0, 0, 0
    for first in range(0, n_tokens, BLOCK_T):
        at = first + tl.arange(0, BLOCK_T)
        inside = at < n_tokens
        token = tl.load(ids_ptr + at, mask=inside, other=0).to(tl.int64)
        known = inside & (token >= 0) & (token < table_size)
        info = tl.load(records_ptr + token * 4 + 2, mask=known, other=_UNKNOWN)
        size = (info & 0xFFFF).to(tl.int32)
        stop = total + tl.cumsum(size, axis=0)
        is_before = inside & (stop - size < begin)
        is_by_end = inside & (stop <= end)
        n_before += tl.sum(is_before.to(tl.int32), axis=0)
        bytes_before += tl.sum(tl.where(is_before, size, 0), axis=0)
        n_by_end += tl.sum(is_by_end.to(tl.int32), axis=0)
        bytes_by_end += tl.sum(tl.where(is_by_end, size, 0), axis=0)
        is_lost = inside & (stop - size < end) & ((info & _UNKNOWN) != 0)
        undecided = tl.maximum(undecided, tl.max(is_lost.to(tl.int32), axis=0))
        total += tl.sum(size, axis=0)
    return n_before, bytes_before, n_by_end, bytes_by_end, undecided


@triton.jit
def _cut_token(ids_ptr, offsets_ptr, at, is_cut, table_size):
    """Begin and end, among all tokens' bytes, of a token that the span cuts."""
    token = tl.load(ids_ptr + at, mask=is_cut, other=0).to(tl.int64)
    known = is_cut & (token >= 0) & (token < table_size)
    begin = tl.load(offsets_ptr + token, mask=known, other=0)
    return begin, tl.load(offsets_ptr + token + 1, mask=known, other=0)


@triton.jit
def _record(
    ids_ptr,
    raw_ptr,
    at,
    inside,
    n_left,
    left_at,
    first_token,
    n_whole,
    right_at,
    table_size,
    HAS_SPAN: tl.constexpr,
):
    """Record indices at places of a row: first left bytes, then whole tokens, then right bytes."""
    if HAS_SPAN:
        is_left = inside & (at < n_left)
        is_right = inside & (at >= n_left + n_whole)
        is_whole = inside & (at >= n_left) & (at < n_left + n_whole)
        left = tl.load(raw_ptr + left_at + at, mask=is_left, other=0)
        right = tl.load(raw_ptr + right_at + (at - n_left - n_whole), mask=is_right, other=0)
        byte = tl.where(is_left, left, right).to(tl.int64)
        token = tl.load(ids_ptr + first_token + at - n_left, mask=is_whole, other=0).to(tl.int64)
    else:
        is_whole = inside
        byte = tl.zeros_like(at).to(tl.int64)
        token = tl.load(ids_ptr + at, mask=inside, other=0).to(tl.int64)
    # An id missing from the table reads as the byte 0, which makes its row undecided.
    is_token = is_whole & (token >= 0) & (token < table_size)
    return tl.where(is_token, token, table_size + byte)


# A thread reads one token at a time: what divides by 16 helps nothing, and would be another variant
# to compile.
@triton.jit(
    do_not_specialize=["ids_stride", "table_size", "samples"],
    do_not_specialize_on_alignment=["begin_ptr", "end_ptr"],
)
def word_f1_kernel(
    ids_ptr,
    lens_ptr,
    begin_ptr,
    end_ptr,
    records_ptr,
    words_ptr,
    raw_ptr,
    offsets_ptr,
    powers_ptr,
    reference_hashes_ptr,
    reference_copies_ptr,
    reference_offsets_ptr,
    reference_n_words_ptr,
    reference_rows_ptr,
    counts_ptr,
    scores_ptr,
    decided_ptr,
    ids_stride,
    table_size,
    samples,
    HAS_SPAN: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    JSON: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """One row. Its places are tokens; a token that the span cuts is one place per byte.

    Place p holds the tail of the previous record and the head of its own, so that the scan's value
    at p is a whole word if the record at p ends one.
    """
    row = tl.program_id(0).to(tl.int64)
    ids_ptr += row * ids_stride
    n_tokens = tl.load(lens_ptr + row)
    undecided, n_places, n_left, first_token, n_whole = 0, n_tokens, 0, 0, n_tokens
    left_at = tl.zeros((), tl.int64)
    right_at = tl.zeros((), tl.int64)
    if HAS_SPAN:
        begin = tl.maximum(tl.load(begin_ptr + row), 0)
        end = tl.maximum(tl.load(end_ptr + row), begin)
        first_token, bytes_before, last_token, bytes_by_end, undecided = _find_span(
            ids_ptr, records_ptr, n_tokens, table_size, begin, end, undecided, BLOCK_T
        )
        n_left = tl.maximum(tl.minimum(bytes_before, end) - begin, 0)
        n_whole = tl.maximum(last_token - first_token, 0)
        cuts_right = (last_token >= first_token) & (last_token < n_tokens)
        n_right = tl.where(cuts_right, end - bytes_by_end, 0)
        _, left_end = _cut_token(ids_ptr, offsets_ptr, first_token - 1, n_left > 0, table_size)
        left_at = left_end - (bytes_before - begin)
        right_at, _ = _cut_token(ids_ptr, offsets_ptr, last_token, n_right > 0, table_size)
        n_places = tl.where(undecided > 0, 0, n_left + n_whole + n_right)

    reference = row // samples
    if HAS_ROWS:
        reference = tl.load(reference_rows_ptr + row).to(tl.int64)
    r_begin = tl.load(reference_offsets_ptr + reference)
    r_end = tl.load(reference_offsets_ptr + reference + 1)
    overlap, n_words = 0, 0
    # With more than BLOCK_R distinct reference words, the row is read again for each block of them.
    for r_first in range(r_begin, tl.maximum(r_end, r_begin + 1), BLOCK_R):
        r = r_first + tl.arange(0, BLOCK_R)
        wanted = tl.load(reference_hashes_ptr + r, mask=r < r_end, other=0)
        copies = tl.load(reference_copies_ptr + r, mask=r < r_end, other=0)
        found = tl.zeros((BLOCK_R,), tl.int32)
        n_words = 0
        open_hash = tl.zeros((), tl.int64)
        open_length = 0
        for first in range(0, n_places + 1, BLOCK_T):  # one extra place for the row's end
            at = first + tl.arange(0, BLOCK_T)
            inside = at < n_places
            record = _record(
                ids_ptr,
                raw_ptr,
                at,
                inside,
                n_left,
                left_at,
                first_token,
                n_whole,
                right_at,
                table_size,
                HAS_SPAN,
            )
            info = tl.load(records_ptr + record * 4 + 2, mask=inside, other=0)
            head = tl.load(records_ptr + record * 4, mask=inside, other=0)
            has_previous = (at > 0) & (at <= n_places)
            record_before = _record(
                ids_ptr,
                raw_ptr,
                at - 1,
                has_previous,
                n_left,
                left_at,
                first_token,
                n_whole,
                right_at,
                table_size,
                HAS_SPAN,
            )
            info_before = tl.load(records_ptr + record_before * 4 + 2, mask=has_previous, other=0)
            tail = tl.load(records_ptr + record_before * 4 + 1, mask=has_previous, other=0)
            n_head = ((info >> _HEAD) & 0xFF).to(tl.int32)
            n_tail = ((info_before >> _TAIL) & 0xFF).to(tl.int32)
            head_power = tl.load(powers_ptr + n_head)
            is_fresh = (info_before & _BOUNDARY) != 0
            word, power, length = tl.associative_scan(
                (
                    tail * head_power + head,
                    tl.load(powers_ptr + n_tail) * head_power,
                    n_tail + n_head + tl.where(is_fresh, _FRESH, 0),
                ),
                0,
                _join,
            )
            word = tl.where(length >= _FRESH, word, open_hash * power + word)
            length = tl.where(length >= _FRESH, length - _FRESH, open_length + length)
            is_last = tl.arange(0, BLOCK_T) == BLOCK_T - 1
            open_hash = tl.sum(tl.where(is_last, word, 0), axis=0)
            open_length = tl.sum(tl.where(is_last, length, 0), axis=0)

            ends = ((info & _BOUNDARY) != 0) | (at == n_places)
            is_word = ends & (length > 0) & (word != _A) & (word != _AN) & (word != _THE)
            bad = (info & (_UNDECIDED | (_BACKSLASH if JSON else 0))) != 0
            bad = bad | (ends & (length > _LONGEST_WORD))
            undecided = tl.maximum(undecided, tl.max(bad.to(tl.int32), axis=0))
            hits = (word[:, None] == wanted[None, :]) & is_word[:, None]
            found += tl.sum(hits.to(tl.int32), axis=0)

            n_inner = ((info >> _INNER) & 0xFFFF).to(tl.int32)
            n_words += tl.sum(is_word.to(tl.int32) + n_inner, axis=0)
            most_inner = tl.max(n_inner, axis=0)
            if most_inner > 0:  # tokens with whole inner words, which few vocabularies have
                inner_at = tl.load(records_ptr + record * 4 + 3, mask=inside, other=0)
                for k in range(most_inner):
                    has_word = k < n_inner
                    inner = tl.load(words_ptr + inner_at + k, mask=has_word, other=0)
                    hits = (inner[:, None] == wanted[None, :]) & has_word[:, None]
                    found += tl.sum(hits.to(tl.int32), axis=0)
        overlap += tl.sum(tl.minimum(found, copies), axis=0)

    n_reference = tl.load(reference_n_words_ptr + reference)
    is_decided = undecided == 0
    same = overlap.to(tl.float64)
    precision = same / tl.maximum(n_words, 1).to(tl.float64)
    recall = same / tl.maximum(n_reference, 1).to(tl.float64)
    both = tl.where(overlap > 0, precision + recall, 1.0)
    nothing = float("nan")
    f1 = tl.where(is_decided, (2 * precision * recall) / both, nothing)
    tl.store(scores_ptr + row * 3, f1)
    tl.store(scores_ptr + row * 3 + 1, tl.where(is_decided, precision, nothing))
    tl.store(scores_ptr + row * 3 + 2, tl.where(is_decided, recall, nothing))
    tl.store(counts_ptr + row * 3, tl.where(is_decided, overlap, -1))
    tl.store(counts_ptr + row * 3 + 1, tl.where(is_decided, n_words, -1))
    tl.store(counts_ptr + row * 3 + 2, n_reference)
    tl.store(decided_ptr + row, is_decided)
