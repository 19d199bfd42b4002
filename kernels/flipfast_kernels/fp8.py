"""Batch-invariant product of rows and a weight of 8-bit floats with scales: see `fp8_rows`."""

from __future__ import annotations

import torch

from flipfast_kernels.fp8_rows import FP8, GROUP, Fp8Rows, check_fp8, check_rows
from flipfast_kernels.gemm import (
    LinearConfig,
    configs_for,
    pick_config,
    suit_tma,
    tensor_descriptor,
)
from flipfast_kernels.jit.fp8 import linear_fp8_kernel, linear_fp8_tma_kernel
from flipfast_kernels.launch import check_device, check_float, check_shape, device_facts


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
    x: Fp8Rows,
    weight: Fp8Rows,
    bias: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    config: LinearConfig | None = None,
    *,
    validate: bool = True,
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
        x: (M, K), from `quantize_rows`.
        weight: (N, K), with as many scales a row, of which those of a group lie side by side.
        bias: (N,), bfloat16, float16 or float32, or None.
        out: (M, N), any of these dtypes, overwritten; None allocates bfloat16.
        config: None picks one. A row's bits are the same only for an equal block_k, which with
            several groups must be `GROUP`.
        validate: check the tensors, which takes the host some microseconds. Unchecked, wrong ones
            make the kernel read or write memory that is not theirs.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides, devices or a config that do not fit.
    """
    (n_rows, n_in), n_out, grouped = x.shape, len(weight), x.group is not None
    if out is None:
        out = torch.empty(n_rows, n_out, dtype=torch.bfloat16, device=x.numbers.device)
    if validate:
        _check(x, weight, bias, out)
    if n_rows == 0 or n_out == 0:
        return out
    capability, multiprocessors = device_facts(out.device)
    if config is None:
        if grouped:
            pair = linear_fp8_configs(capability)
        else:
            pair = configs_for(n_out, n_in, FP8, out.device)
        config = pick_config(n_rows, n_out, pair, multiprocessors)
    elif grouped and config.block_k != GROUP:
        raise ValueError(f"block_k is {config.block_k}: with scales of groups it must be {GROUP}")
    sizes = {"GROUPED": grouped, "HAS_BIAS": bias is not None, **config.launch_options()}
    tiles = -(-n_rows // config.block_m) * -(-n_out // config.block_n)
    if (
        90 <= capability < 120
        and out.element_size() == 2
        and suit_tma(x.numbers, weight.numbers, out)
    ):
        programs = min(tiles, multiprocessors) if config.is_persistent else tiles
        linear_fp8_tma_kernel[(programs,)](
            tensor_descriptor(x.numbers, config.block_m, config.block_k),
            x.scales,
            tensor_descriptor(weight.numbers, config.block_n, config.block_k),
            weight.scales,
            bias,
            tensor_descriptor(out, config.block_m, config.block_n),
            n_rows,
            n_out,
            n_in,
            x.scales.stride(0),
            weight.scales.stride(1),
            PERSISTENT=config.is_persistent,
            **sizes,
        )
        return out
    linear_fp8_kernel[(tiles,)](
        x.numbers,
        x.scales,
        weight.numbers,
        weight.scales,
        bias,
        out,
        n_rows,
        n_out,
        n_in,
        x.numbers.stride(0),
        x.scales.stride(0),
        weight.numbers.stride(0),
        weight.scales.stride(1),
        out.stride(0),
        EVEN_K=n_in % config.block_k == 0,
        **sizes,
    )
    return out


def linear_fp8_ref(x: Fp8Rows, weight: Fp8Rows, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Reference for `linear_fp8`, in float64."""
    wide = x.widened().double() @ weight.widened().double().T
    return wide if bias is None else wide + bias.double()


def _check(x: Fp8Rows, weight: Fp8Rows, bias: torch.Tensor | None, out: torch.Tensor) -> None:
    n_out = len(weight)
    check_rows("x", x, tuple(x.shape))
    check_fp8("weight", weight, (n_out, x.shape[1]))
    if x.scales.shape[1] != weight.scales.shape[1]:
        raise ValueError(
            f"x has {x.scales.shape[1]} scales a row, weight {weight.scales.shape[1]}: round x "
            "with the weight's group"
        )
    if n_out > 1 and weight.scales.stride(0) != 1:
        raise ValueError(
            f"weight has scales with strides {weight.scales.stride()}: the first one must be 1"
        )
    if bias is not None:
        check_shape("bias", bias, (n_out,))
    check_shape("out", out, (len(x), n_out))
    check_float(bias=bias, out=out)
    check_device(
        linear_fp8_kernel,
        x=x.numbers,
        x_scales=x.scales,
        weight=weight.numbers,
        weight_scales=weight.scales,
        bias=bias,
        out=out,
    )
