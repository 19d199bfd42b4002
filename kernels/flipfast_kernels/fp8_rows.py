"""Rows of 8-bit floats (e4m3) with scales.

A number is that of its 8 bits times the scale of its group: a whole row, or `GROUP` columns of it.
Rows get powers of two for scales, so that nothing but the 8-bit number is rounded; those of a
weight may be any numbers. The format is that of Micikevicius et al. 2022; scales of groups are
those of DeepSeek-V3 (2024), with which Qwen 3 is published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flipfast_kernels.jit.fp8_rows import quantize_rows_kernel
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    check_shape,
    power_of_two,
)

FP8 = torch.float8_e4m3fn
GROUP = 128  # columns with a scale of their own, where rows do not have a single one
_LARGEST = 448.0


@dataclass(frozen=True)
class Fp8Rows:
    """Rows of 8-bit floats, each with a scale, or with one for every `GROUP` numbers.

    Attributes:
        numbers: (M, K) float8_e4m3fn; any row stride.
        scales: (M, 1) or (M, ceil(K / GROUP)) float32.
    """

    numbers: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def empty(cls, n_rows: int, n_in: int, group: int | None, device: torch.device) -> Fp8Rows:
        """Rows that are yet to be written, at multiples of 16 bytes; group is `GROUP` or None."""
        numbers = torch.empty(n_rows, -(-n_in // 16) * 16, dtype=FP8, device=device)[:, :n_in]
        groups = n_groups(n_in, group)
        return cls(numbers, torch.empty(n_rows, groups, dtype=torch.float32, device=device))

    @classmethod
    def within(cls, x: torch.Tensor, group: int | None) -> Fp8Rows | None:
        """Rows that share the memory of those of x, (M, K), each with its own; None if they cannot.

        Args:
            x: of 16 bits or more.
            group: `GROUP`, or None for one scale a row.
        """
        n_in, size = x.shape[1], x.element_size()
        first, n_bytes = -(-n_in // 4) * 4, 4 * n_groups(n_in, group)
        if x.stride(0) * size % 4 or x.data_ptr() % 4 or first + n_bytes > n_in * size:
            return None
        rows = x.view(torch.uint8)
        numbers, scales = rows[:, :n_in], rows[:, first : first + n_bytes]
        return cls(numbers.view(FP8), scales.view(torch.float32))

    @property
    def shape(self) -> torch.Size:
        """Of the numbers."""
        return self.numbers.shape

    @property
    def group(self) -> int | None:
        """`GROUP`, or None if a row has one scale."""
        return None if self.scales.shape[1] == 1 else GROUP

    @property
    def nbytes(self) -> int:
        """Of numbers and scales."""
        return self.numbers.nbytes + self.scales.nbytes

    def __len__(self) -> int:
        return len(self.numbers)

    def numel(self) -> int:
        """How many numbers there are."""
        return self.numbers.numel()

    def widened(self) -> torch.Tensor:
        """The numbers times their scales, (M, K) float32."""
        each = self.scales
        if self.group is not None:
            each = each.repeat_interleave(GROUP, 1)[:, : self.shape[1]]
        return self.numbers.float() * each

    def groups_in(self, block: int) -> int:
        """Groups in `block` numbers, a power of two; of a single scale's, all are one."""
        return 1 if self.group is None else max(block // GROUP, 1)


def parts(rows: torch.Tensor | Fp8Rows) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The numbers of rows, and their scales, if they have any."""
    return (rows.numbers, rows.scales) if isinstance(rows, Fp8Rows) else (rows, None)


def n_groups(n_in: int, group: int | None) -> int:
    """Scales of a row of n_in numbers; group is `GROUP`, or None for a single scale."""
    return 1 if group is None else -(-n_in // group)


def check_fp8(name: str, rows: Fp8Rows, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless rows are of this shape, and numbers and scales fit each other."""
    if rows.numbers.dtype != FP8:
        raise ValueError(f"{name} has {rows.numbers.dtype}: pass {FP8}")
    check_shape(name, rows.numbers, shape)
    scales, most = rows.scales, n_groups(shape[1], GROUP)
    if scales.dtype != torch.float32:
        raise ValueError(f"{name} has scales of {scales.dtype}: pass float32")
    if tuple(scales.shape) not in ((shape[0], 1), (shape[0], most)):
        raise ValueError(
            f"{name} has shape {shape} and scales of shape {tuple(scales.shape)}: expected one a "
            f"row, or one for every {GROUP} numbers"
        )


def check_rows(name: str, rows: Fp8Rows, shape: tuple[int, ...]) -> None:
    """`check_fp8`, for rows whose scales lie side by side, as kernels read and write them."""
    check_fp8(name, rows, shape)
    if rows.group is not None and rows.scales.stride(1) != 1:
        raise ValueError(
            f"{name} has scales with strides {rows.scales.stride()}: the last one must be 1"
        )


def check_rounded(name: str, out: torch.Tensor | Fp8Rows, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless results of this shape can be written: floats, or 8-bit floats."""
    if isinstance(out, Fp8Rows):
        check_rows(name, out, shape)
    else:
        check_float(**{name: out})
        check_shape(name, out, shape)


def quantize_rows(
    x: torch.Tensor,
    group: int | None = None,
    out: Fp8Rows | None = None,
    *,
    validate: bool = True,
) -> Fp8Rows:
    """Round rows to 8-bit floats and powers of two; a row's bits depend on itself alone.

    A group's scale is the least power of two, of at least 2**-126, that brings its largest number
    to at most 448; numbers are then rounded to nearest, ties to even. NaN and infinity become NaN.

    Bytes: M * K * (itemsize + 1), so at least that / 4.8e12 seconds on an H200 (4.8 TB/s per the
    datasheet).

    Args:
        x: (M, K), bfloat16, float16 or float32; any row stride.
        group: `GROUP`, or None for one scale a row.
        out: overwritten, may be within x; None allocates. It decides on the group.
        validate: check the tensors; see `linear_fp8`.

    Returns:
        out.

    Raises:
        ValueError: another dtype, shape, stride or group, or a device that does not fit.
    """
    if validate:
        _check(x, group, out)
    if out is None:
        out = Fp8Rows.empty(x.shape[0], x.shape[1], group, x.device)
    n_rows, n_in = x.shape
    if n_rows == 0 or n_in == 0:
        return out
    block = power_of_two(n_in)
    groups = out.groups_in(block)
    quantize_rows_kernel[(n_rows,)](
        x,
        out.numbers,
        out.scales,
        n_in,
        x.stride(0),
        out.numbers.stride(0),
        out.scales.stride(0),
        GROUPS=groups,
        WIDTH=block // groups,
        num_warps=min(max(block // 512, 1), 16),
    )
    return out


def quantize_rows_ref(x: torch.Tensor, group: int | None = None) -> Fp8Rows:
    """Reference for `quantize_rows`, equal bit for bit, on any device."""
    n_in = x.shape[1]
    width = n_in if group is None else group
    wide = torch.nn.functional.pad(x.float(), (0, -n_in % width)).unflatten(1, (-1, width))
    largest = wide.abs().amax(-1)
    exponent = ((largest.view(torch.int32) + 0x1FFFFF) >> 23) - 8
    exponent = exponent.clamp(min=1)
    scales = (exponent << 23).view(torch.float32)
    y = wide * ((254 - exponent) << 23).view(torch.float32)[..., None]
    y = y.masked_fill(y.abs() > _LARGEST, float("nan"))
    return Fp8Rows(y.flatten(1)[:, :n_in].to(FP8), scales)


def _check(x: torch.Tensor, group: int | None, out: Fp8Rows | None) -> None:
    check_float(x=x)
    if x.dim() != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected 2 dimensions")
    check_last_stride("x", x)
    if group not in (None, GROUP):
        raise ValueError(f"group is {group}: pass {GROUP} or None")
    numbers, scales = (None, None) if out is None else parts(out)
    if out is not None:
        check_rows("out", out, tuple(x.shape))
    check_device(quantize_rows_kernel, x=x, numbers=numbers, scales=scales)
