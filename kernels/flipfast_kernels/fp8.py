"""Products of 8-bit floats (e4m3) with scales, and rows rounded to them.

A number is that of its 8 bits times the scale of its group: a whole row, or `GROUP` columns of it.
Rows get powers of two for scales, so that nothing but the 8-bit number is rounded; those of a
weight may be any numbers. The format is that of Micikevicius et al. 2022; scales of groups are
those of DeepSeek-V3 (2024), with which Qwen 3 is published.
"""

from __future__ import annotations

import torch

from flipfast_kernels.gemm import (
    LinearConfig,
    configs_for,
    pick_config,
    suit_tma,
    tensor_descriptor,
)
from flipfast_kernels.jit.fp8 import linear_fp8_kernel, linear_fp8_tma_kernel, quantize_rows_kernel
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    check_shape,
    device_facts,
    power_of_two,
)

FP8 = torch.float8_e4m3fn
GROUP = 128  # columns with a scale of their own, where rows do not have a single one
LEAST_CAPABILITY = 89  # 8.9, the first with products of these numbers
_LARGEST = 448.0


def n_groups(n_in: int, group: int | None) -> int:
    """Scales of a row of n_in numbers; group is `GROUP`, or None for a single scale."""
    return 1 if group is None else -(-n_in // group)


def quantize_rows(x: torch.Tensor, group: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Round rows to 8-bit floats and powers of two; a row's bits depend on itself alone.

    A group's scale is the least power of two, of at least 2**-126, that brings its largest number
    to at most 448; numbers are then rounded to nearest, ties to even. NaN and infinity become NaN.

    Bytes: M * K * (itemsize + 1), so at least that / 4.8e12 seconds on an H200 (4.8 TB/s per the
    datasheet).

    Args:
        x: (M, K), bfloat16, float16 or float32; any row stride.
        group: `GROUP`, or None for one scale a row.

    Returns:
        (M, K) float8_e4m3fn, with a row stride that is a multiple of 16, and scales, (groups, M)
        float32.

    Raises:
        ValueError: another dtype, shape, stride or group, or a device that does not fit.
    """
    check_float(x=x)
    if x.dim() != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected 2 dimensions")
    check_last_stride("x", x)
    if group not in (None, GROUP):
        raise ValueError(f"group is {group}: pass {GROUP} or None")
    check_device(quantize_rows_kernel, x=x)
    n_rows, n_in = x.shape
    out = torch.empty(n_rows, -(-n_in // 16) * 16, dtype=FP8, device=x.device)[:, :n_in]
    scales = torch.empty(n_groups(n_in, group), n_rows, dtype=torch.float32, device=x.device)
    if n_rows == 0 or n_in == 0:
        return out, scales.fill_(1.0)
    width = power_of_two(n_in) if group is None else group
    groups = power_of_two(len(scales))
    quantize_rows_kernel[(n_rows,)](
        x,
        out,
        scales,
        n_in,
        x.stride(0),
        out.stride(0),
        scales.stride(0),
        GROUPS=groups,
        WIDTH=width,
        num_warps=min(max(groups * width // 512, 1), 16),
    )
    return out, scales


def quantize_rows_ref(
    x: torch.Tensor, group: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
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
    return y.flatten(1)[:, :n_in].to(FP8), scales.T.contiguous()


def linear_fp8_configs(capability: int) -> tuple[LinearConfig, LinearConfig]:
    """Tiles of products with scales of groups, for few rows and for many; see `linear_fp8`.

    They have two sets of sums, so that less fits in the registers than without groups.
    """
    if 90 <= capability < 100:
        return LinearConfig(64, 64, GROUP, 8, 4, 4), LinearConfig(64, 256, GROUP, 8, 8, 3)
    if 100 <= capability < 120:
        both = LinearConfig(128, 64, GROUP, 8, 8, 3)
        return both, both
    return LinearConfig(64, 64, GROUP, 8, 4, 3), LinearConfig(64, 128, GROUP, 8, 8, 2)


def linear_fp8(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    config: LinearConfig | None = None,
) -> torch.Tensor:
    """The product of rows and a weight with scales; a row's bits do not depend on other rows.

    As `linear`, with 8-bit matrix instructions: products are exact, and each output is one chain of
    sums from the first k to the last, multiplied by both scales at its end. With scales of groups
    there is a chain for each group, multiplied and added to the sum of those before with one
    rounding (as a fused multiply-add; Triton's interpreter rounds twice).

    The sums of these instructions have fewer bits than float32: about 14 on compute capability 9
    (DeepSeek-V3, 2024, section 3.3.2), which with K = 4,096 is less than a tenth of what rounding x
    and the weight to 8 bits changes; chains of groups are 128 long.

    Work: 2 M N K operations at twice the rate of bfloat16 (1,979 TFLOP/s dense per the datasheet of
    the H200), and M K + N K + 2 M N bytes moved.

    Args:
        x, x_scales: from `quantize_rows`.
        weight: (N, K) float8_e4m3fn; any row stride.
        weight_scales: (groups, N) float32, with as many groups as x.
        bias: (N,), bfloat16, float16 or float32, or None.
        out: (M, N), any of these dtypes, overwritten; None allocates bfloat16.
        config: None picks one. A row's bits are the same only for an equal block_k, which with
            several groups must be `GROUP`.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides, devices or a config that do not fit.
    """
    if out is None and x.dim() == 2 and weight.dim() == 2:
        out = torch.empty(x.shape[0], weight.shape[0], dtype=torch.bfloat16, device=x.device)
    _check(x, x_scales, weight, weight_scales, bias, out)
    assert out is not None
    (n_rows, n_in), n_out, grouped = x.shape, weight.shape[0], len(x_scales) > 1
    if n_rows == 0 or n_out == 0:
        return out
    capability, multiprocessors = device_facts(x.device)
    if config is None:
        if grouped:
            pair = linear_fp8_configs(capability)
        else:
            pair = configs_for(n_out, n_in, FP8, x.device)
        config = pick_config(n_rows, n_out, pair, multiprocessors)
    elif grouped and config.block_k != GROUP:
        raise ValueError(f"block_k is {config.block_k}: with scales of groups it must be {GROUP}")
    sizes = {
        "GROUPED": grouped,
        "HAS_BIAS": bias is not None,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "GROUP_M": config.group_m,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }
    tiles = -(-n_rows // config.block_m) * -(-n_out // config.block_n)
    if 90 <= capability < 120 and out.element_size() == 2 and suit_tma(x, weight, out):
        programs = min(tiles, multiprocessors * max(8 // config.num_warps, 1))
        linear_fp8_tma_kernel[(programs,)](
            tensor_descriptor(x, config.block_m, config.block_k),
            x_scales,
            tensor_descriptor(weight, config.block_n, config.block_k),
            weight_scales,
            bias,
            tensor_descriptor(out, config.block_m, config.block_n),
            n_rows,
            n_out,
            n_in,
            x_scales.stride(0),
            weight_scales.stride(0),
            **sizes,
        )
        return out
    linear_fp8_kernel[(tiles,)](
        x,
        x_scales,
        weight,
        weight_scales,
        bias,
        out,
        n_rows,
        n_out,
        n_in,
        x.stride(0),
        x_scales.stride(0),
        weight.stride(0),
        weight_scales.stride(0),
        out.stride(0),
        EVEN_K=n_in % config.block_k == 0,
        **sizes,
    )
    return out


def widened(numbers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The numbers of 8-bit rows and their scales, (M, K) float32.

    Args:
        numbers: (M, K) float8_e4m3fn.
        scales: (groups, M) float32; with more than one group, each is for `GROUP` columns.
    """
    n_in = numbers.shape[1]
    each = scales.T if len(scales) == 1 else scales.T.repeat_interleave(GROUP, 1)[:, :n_in]
    return numbers.float() * each


def linear_fp8_ref(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Reference for `linear_fp8`, in float64."""
    wide = widened(x, x_scales).double() @ widened(weight, weight_scales).double().T
    return wide if bias is None else wide + bias.double()


def _check(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor | None,
) -> None:
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dim() != 2:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected 2 dimensions")
        if tensor.dtype != FP8:
            raise ValueError(f"{name} is {tensor.dtype}: pass {FP8}")
        check_last_stride(name, tensor)
    (n_rows, n_in), n_out = x.shape, weight.shape[0]
    check_shape("weight", weight, (n_out, n_in))
    groups = len(x_scales)
    if groups not in (1, n_groups(n_in, GROUP)):
        raise ValueError(f"x_scales has {groups} groups: {n_in} columns have 1 or one per {GROUP}")
    for name, scales, n in (
        ("x_scales", x_scales, n_rows),
        ("weight_scales", weight_scales, n_out),
    ):
        if scales.dtype != torch.float32:
            raise ValueError(f"{name} is {scales.dtype}: pass float32")
        check_shape(name, scales, (groups, n))
    if bias is not None:
        check_shape("bias", bias, (n_out,))
    assert out is not None
    check_shape("out", out, (n_rows, n_out))
    check_float(bias=bias, out=out)
    check_device(
        linear_fp8_kernel,
        x=x,
        x_scales=x_scales,
        weight=weight,
        weight_scales=weight_scales,
        bias=bias,
        out=out,
    )
