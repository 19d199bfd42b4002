"""The F1 kernels at the sizes of a batch of rewards; see `kernel_cases`."""

from __future__ import annotations

import torch
import transformers

from bench.kernel_cases import Case
from bench.models import EMBEDDED
from flipfast.metrics.reference_words import reference_words
from flipfast.metrics.token_bytes import token_bytes
from flipfast_kernels.overlap_f1 import overlap_f1, overlap_f1_ref
from flipfast_kernels.word_f1 import build_token_table, word_f1, word_f1_ref

_IDS = 50_000


def overlap(n_pairs: int, each: int, length: int, device: torch.device) -> Case:
    """Rows of `length` ids, `each` predictions a reference; a quarter of a row's ids is shared."""
    generator = torch.Generator(device).manual_seed(0)
    n_references = n_pairs // each

    def ids(rows: int) -> torch.Tensor:
        return torch.randint(_IDS, (rows, length), generator=generator, device=device).int()

    references, predictions = ids(n_references), ids(n_references * each)
    shared = length // 4
    predictions.view(n_references, each, length)[:, :, :shared] = references[:, None, :shared]
    rows = (predictions.flatten(), _offsets(len(predictions), length, device))
    rows += (references.flatten(), _offsets(n_references, length, device))
    counts, scores = overlap_f1(*rows)
    out = (counts, scores)
    n_bytes = sum(part.nbytes for part in (*rows, *out))
    return Case(
        run=lambda: overlap_f1(*rows, max_len=length, validate=False, out=out),
        got=lambda: overlap_f1(*rows)[1],
        expected=lambda: overlap_f1_ref(*rows)[1],
        tolerance=0.0,
        n_bytes=n_bytes,
        peers={"torch": lambda: overlap_f1_ref(*rows)},
    )


def words(n_rows: int, length: int, device: torch.device) -> Case:
    """Rows of real tokens, each row scored against a reference of its own, eight rows each."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBEDDED)
    table = build_token_table(token_bytes(tokenizer)).to(device)
    text = "Write a short story about a river in the north and the people who live beside it. "
    row = torch.tensor((tokenizer(text * length)["input_ids"])[:length], dtype=torch.int32)
    ids = torch.stack([row.roll(i % length) for i in range(n_rows)]).to(device)
    lens = torch.full((n_rows,), length, dtype=torch.int32, device=device)
    texts = [f"Tell me a story about river {i} and its people." for i in range(n_rows // 8)]
    references = reference_words(texts).to(device)
    out = word_f1(ids, lens, None, None, table, references, samples=8)
    few = (ids[:64], lens[:64], None, None, table, references)
    which = torch.arange(64, dtype=torch.int32, device=device) // 8
    distinct = 12.0 * references.hashes.shape[0] * 8
    return Case(
        run=lambda: word_f1(
            ids, lens, None, None, table, references, samples=8, out=out, validate=False
        ),
        got=lambda: word_f1(*few, which).scores,
        expected=lambda: word_f1_ref(*few, which).scores.to(device),
        tolerance=0.0,
        n_bytes=36.0 * ids.numel() + distinct + out.scores.nbytes + out.counts.nbytes,
    )


def _offsets(rows: int, length: int, device: torch.device) -> torch.Tensor:
    return torch.arange(rows + 1, dtype=torch.int32, device=device) * length
