"""Argument checks of `overlap_f1`; each raises a ValueError that names the problem."""

from __future__ import annotations

from typing import Literal

import torch

from flipfast_kernels.launch import check_integers

Mode = Literal["pairs", "matrix"]
Out = tuple[torch.Tensor, torch.Tensor]


def longest_row(
    prediction_offsets: torch.Tensor,
    reference_offsets: torch.Tensor,
    max_len: int | None,
    validate: bool,
) -> int:
    """The length of the longest row, or max_len if it is given and not validated.

    Raises:
        ValueError: a row longer than max_len.
    """
    if max_len is not None and not validate:
        return max_len
    longest = 0
    for name, offsets in (
        ("prediction_offsets", prediction_offsets),
        ("reference_offsets", reference_offsets),
    ):
        length = int(offsets.diff().max())
        if max_len is not None and length > max_len:
            raise ValueError(f"{name} has a row of {length} ids: max_len is {max_len}")
        longest = max(longest, length)
    return longest


def check_rows(
    prediction_ids: torch.Tensor,
    prediction_offsets: torch.Tensor,
    reference_ids: torch.Tensor,
    reference_offsets: torch.Tensor,
    mode: Mode,
) -> tuple[int, int]:
    """Check all that needs no tensor values; return the numbers of predictions and references."""
    if mode not in ("pairs", "matrix"):
        raise ValueError(f'mode is {mode!r}: pass "pairs" or "matrix"')
    tensors = {
        "prediction_ids": prediction_ids,
        "prediction_offsets": prediction_offsets,
        "reference_ids": reference_ids,
        "reference_offsets": reference_offsets,
    }
    for name, tensor in tensors.items():
        if tensor.dim() != 1 or (name.endswith("offsets") and tensor.shape[0] < 1):
            wanted = "(rows + 1,)" if name.endswith("offsets") else "one dimension"
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {wanted}")
        if tensor.device != prediction_ids.device:
            raise ValueError(
                f"{name} is on {tensor.device}, prediction_ids on {prediction_ids.device}"
            )
    check_integers(**tensors)
    n_predictions, n_references = prediction_offsets.shape[0] - 1, reference_offsets.shape[0] - 1
    if mode == "pairs" and (n_predictions % n_references if n_references else n_predictions):
        raise ValueError(
            f"{n_predictions} predictions for {n_references} references: expected a multiple, or "
            'mode="matrix"'
        )
    return n_predictions, n_references


def check_out(out: Out, shape: tuple[int, ...]) -> None:
    wanted = (("counts", torch.int32, shape), ("scores", torch.float64, (*shape, 3)))
    for tensor, (name, dtype, its_shape) in zip(out, wanted, strict=True):
        if tensor.dtype != dtype:
            raise ValueError(f"{name} is {tensor.dtype}: expected {dtype}")
        if tuple(tensor.shape) != its_shape or not tensor.is_contiguous():
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)} and strides {tensor.stride()}: expected "
                f"{its_shape}, contiguous"
            )
