"""Argument checks of `word_f1`; each raises a ValueError that names the problem."""

from __future__ import annotations

import torch

from flipfast_kernels.jit.word_f1 import word_f1_kernel
from flipfast_kernels.launch import (
    check_device,
    check_last_stride,
    check_offsets,
    check_range,
    check_shape,
)
from flipfast_kernels.word_tables import ReferenceWords, TokenTable


def check_tensor(
    name: str, tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    check_shape(name, tensor, shape)
    if tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype}: pass {dtype}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has strides {tensor.stride()}: call contiguous()")


def check_arguments(
    token_ids: torch.Tensor,
    lens: torch.Tensor,
    span_begin: torch.Tensor | None,
    span_end: torch.Tensor | None,
    table: TokenTable,
    references: ReferenceWords,
    reference_rows: torch.Tensor | None,
    samples: int,
) -> tuple[int, int]:
    """Check all that needs no tensor values; return the shape of token_ids."""
    if token_ids.dim() != 2:
        raise ValueError(f"token_ids has shape {tuple(token_ids.shape)}: expected (N, T)")
    if token_ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"token_ids is {token_ids.dtype}: pass int32 or int64")
    check_last_stride("token_ids", token_ids)
    n_rows, width = token_ids.shape
    if (span_begin is None) != (span_end is None):
        raise ValueError("only one of span_begin and span_end is None: pass both or none")
    rows = {
        "lens": lens,
        "span_begin": span_begin,
        "span_end": span_end,
        "reference_rows": reference_rows,
    }
    for name, tensor in rows.items():
        if tensor is not None:
            check_tensor(name, tensor, (n_rows,), torch.int32)
    n_references = references.n_words.shape[0]
    if reference_rows is None and (samples < 1 or n_rows != samples * n_references):
        raise ValueError(
            f"{n_rows} rows of token_ids, {samples} samples of {n_references} references: pass "
            "reference_rows where they do not match"
        )
    n_words = references.hashes.shape[0]
    check_tensor("references.hashes", references.hashes, (n_words,), torch.int64)
    check_tensor("references.copies", references.copies, (n_words,), torch.int32)
    check_tensor("references.offsets", references.offsets, (n_references + 1,), torch.int32)
    check_tensor("references.n_words", references.n_words, (n_references,), torch.int32)
    check_device(
        word_f1_kernel,
        token_ids=token_ids,
        **rows,
        **{f"table.{name}": tensor for name, tensor in vars(table).items()},
        **{f"references.{name}": tensor for name, tensor in vars(references).items()},
    )
    return n_rows, width


def check_values(
    token_ids: torch.Tensor,
    lens: torch.Tensor,
    span_begin: torch.Tensor | None,
    span_end: torch.Tensor | None,
    table: TokenTable,
    references: ReferenceWords,
    reference_rows: torch.Tensor | None,
) -> None:
    """Check the values of lengths, ids, spans, offsets and reference rows."""
    width = token_ids.shape[1]
    check_range("lens", lens, 0, width + 1)
    inside = torch.arange(width, device=lens.device) < lens[:, None]
    ids = token_ids.long().masked_fill(~inside, 0)
    check_range("token_ids", ids, 0, max(table.size, 1))
    check_offsets("references.offsets", references.offsets, references.hashes.shape[0])
    if reference_rows is not None:
        check_range("reference_rows", reference_rows, 0, references.n_words.shape[0])
    if span_begin is None or span_end is None:
        return
    sizes = table.offsets.diff()[ids] * inside if table.size else ids
    sizes = sizes.sum(dim=1)
    outside = (span_begin < 0) | (span_end < span_begin) | (span_end > sizes)
    if outside.any():
        at = int(outside.int().argmax())
        raise ValueError(
            f"span_begin and span_end are {int(span_begin[at])} and {int(span_end[at])} at {at}: "
            f"they must rise inside the row's {int(sizes[at])} bytes"
        )
