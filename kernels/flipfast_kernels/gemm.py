"""Batch-invariant matrix product: a row's bits do not depend on the other rows or their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch

from flipfast_kernels import tuning
from flipfast_kernels.jit.gemm import linear_kernel, linear_tma_kernel
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    check_shape,
    device_facts,
)

_DESCRIPTOR: Any = import_module("triton.tools.tensor_descriptor").TensorDescriptor
_REACH = 2.0  # of tuned entries: for example, one side of the weight four times as long


@dataclass(frozen=True)
class LinearConfig:
    """Tile sizes and launch options of the product.

    Attributes:
        block_m, block_n, block_k: rows, columns and depth of a tile, powers of two.
        group_m: tiles of rows that share the columns' weights through L2.
        num_warps, num_stages: Triton launch options.
    """

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    num_warps: int
    num_stages: int

    @property
    def is_persistent(self) -> bool:
        """Whether a program of the kernel with descriptors computes several tiles.

        With fewer warps a multiprocessor holds several programs: one works while another starts or
        writes.
        """
        return self.num_warps >= 8

    def launch_options(self) -> dict[str, int]:
        """What a kernel is compiled with, by the names of its arguments and Triton's options."""
        return {
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "BLOCK_K": self.block_k,
            "GROUP_M": self.group_m,
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
        }


def linear_configs(
    n_out: int, n_in: int, dtype: torch.dtype, capability: int
) -> tuple[LinearConfig, LinearConfig]:
    """The configuration for few rows and the one for many, which give a row the same bits.

    See `linear` for what the bits rest on.

    Args:
        n_out, n_in: shape of the weight.
        dtype: of x and the weight.
        capability: the device's compute capability, 90 for 9.0.
    """
    if dtype == torch.float32:
        few = LinearConfig(32, 64, 16, 8, 4, 3)
        return few, few
    # 128 bytes of a row: one line of what the hardware copies at a time.
    block_k = 128 // dtype.itemsize
    if capability == 90:
        # Few rows and narrow outputs make few tiles: narrow ones keep more multiprocessors busy.
        # With these stages, two programs of the low tile have room on one.
        block_n, stages = (32, 8) if n_out < 2048 else (64, 6) if n_out < 8192 else (128, 4)
        few = LinearConfig(64, block_n, block_k, 8, 4, stages)
        return few, LinearConfig(128, 256, block_k, 8, 8, 3)
    block_n = 128 if n_out >= 4096 else 64
    many = LinearConfig(128, block_n, block_k, 8, 8, 3)
    if 100 <= capability < 120:
        return many, many
    return LinearConfig(64, block_n, block_k, 8, 4, 3), many


def check_linear_configs(few: LinearConfig, many: LinearConfig, capability: int) -> None:
    """Raise ValueError unless both give a row the same bits at this capability; see `linear`."""
    for name in ("block_m", "block_n", "block_k", "group_m", "num_warps", "num_stages"):
        for value in (getattr(few, name), getattr(many, name)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}: it must be a whole number above 0")
            if name in ("block_m", "block_n", "block_k", "num_warps") and value & (value - 1):
                raise ValueError(f"{name} is {value}: it must be a power of two")
    if few.block_k != many.block_k:
        raise ValueError(f"{few} and {many} differ in block_k")
    tiles = {(config.block_m, config.block_n) for config in (few, many)}
    if len(tiles) > 1 and 100 <= capability < 120:
        raise ValueError(f"{few} and {many} differ in tiles, which are other instructions here")


@lru_cache(maxsize=4096)
def configs_for(
    n_out: int, n_in: int, dtype: torch.dtype, device: torch.device
) -> tuple[LinearConfig, LinearConfig]:
    """The tuned configurations nearest to this weight (see `tuning`), else `linear_configs`.

    Args:
        n_out, n_in: shape of the weight.
        dtype: of x and the weight.
        device: with its index.
    """
    capability = device_facts(device)[0]

    def make(few: Mapping[str, Any], many: Mapping[str, Any]) -> tuple[LinearConfig, LinearConfig]:
        pair = LinearConfig(**few), LinearConfig(**many)
        check_linear_configs(*pair, capability)
        return pair

    bucket: tuning.Bucket = {
        "n_out": n_out,
        "n_in": n_in,
        "dtype": str(dtype).removeprefix("torch."),
    }
    found = tuning.tuned_pair("gemm", device, bucket, make, reach=_REACH)
    return found or linear_configs(n_out, n_in, dtype, capability)


def pick_config(
    n_rows: int, n_out: int, pair: tuple[LinearConfig, LinearConfig], multiprocessors: int
) -> LinearConfig:
    """Of two configurations, the one whose busiest multiprocessor reads less through L2.

    Args:
        n_rows: of x.
        n_out: rows of the weight.
        pair: for few rows and for many.
        multiprocessors: of the device.
    """

    def most_read(config: LinearConfig) -> int:
        tiles = -(-n_rows // config.block_m) * -(-n_out // config.block_n)
        return -(-tiles // multiprocessors) * (config.block_m + config.block_n)

    few = pair[0]
    return few if n_rows <= few.block_m else min(pair, key=most_read)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    config: LinearConfig | None = None,
    *,
    validate: bool = True,
) -> torch.Tensor:
    """x @ weight.T + bias with float32 sums; a row's bits do not depend on the other rows.

    Each output is one chain of matrix instructions from the first k to the last; K is never split.
    All that its bits depend on is the instruction and block_k, which are chosen by the weight's
    shape, the dtype and the device alone. The rest of a tile may depend on the number of rows: on
    compute capability 9 the instruction is m64nNk16, whose width N only says how many columns are
    computed beside, on 8 and 12 it is m16n8k16, and each output belongs to exactly one of them.
    On 10 and 11, where tiles of other sizes may use other instructions, all have one size. float32
    is IEEE: fused multiply-adds, ascending in k.

    On compute capability 9 to 11 the hardware copies tiles by itself (TMA), and a program of eight
    warps computes several: see `linear_tma_kernel`. It needs 16-bit x and out, and addresses and
    row strides that are multiples of 16 bytes; otherwise `linear_kernel` runs, with the same bits.

    Work: 2 M N K operations and (M K + N K + M N) numbers moved. On an H200 (989 TFLOP/s dense
    bf16, 4.8 TB/s per the datasheet) bf16 takes at least max(2 M N K / 989e12, 2 (M K + N K + M N)
    / 4.8e12) seconds: below about 206 rows, reading the weight is the bound.

    Args:
        x: (M, K), bfloat16, float16 or float32; any row stride.
        weight: (N, K) of x's dtype; any row stride.
        bias: (N,), any of these dtypes, or None.
        out: (M, N), x's dtype or float32, overwritten; None allocates one of x's dtype.
        config: None picks one. A row's bits are the same only for an equal block_k.
        validate: check the tensors, which takes the host 4 to 8 microseconds. Unchecked, wrong ones
            make the kernel read or write memory that is not theirs.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit.
    """
    if out is None and x.dim() == 2 and weight.dim() == 2:
        out = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype, device=x.device)
    if validate:
        _check(x, weight, bias, out)
    assert out is not None
    (n_rows, n_in), n_out = x.shape, weight.shape[0]
    capability, multiprocessors = device_facts(x.device)
    if n_rows == 0 or n_out == 0:
        return out
    if config is None:
        pair = configs_for(n_out, n_in, x.dtype, x.device)
        config = pick_config(n_rows, n_out, pair, multiprocessors)
    sizes = {"HAS_BIAS": bias is not None, **config.launch_options()}
    tiles = -(-n_rows // config.block_m) * -(-n_out // config.block_n)
    if 90 <= capability < 120 and out.dtype == x.dtype and suit_tma(x, weight, out):
        programs = min(tiles, multiprocessors) if config.is_persistent else tiles
        linear_tma_kernel[(programs,)](
            tensor_descriptor(x, config.block_m, config.block_k),
            tensor_descriptor(weight, config.block_n, config.block_k),
            bias,
            tensor_descriptor(out, config.block_m, config.block_n),
            n_rows,
            n_out,
            n_in,
            PERSISTENT=config.is_persistent,
            **sizes,
        )
        return out
    linear_kernel[(tiles,)](
        x,
        weight,
        bias,
        out,
        n_rows,
        n_out,
        n_in,
        x.stride(0),
        weight.stride(0),
        out.stride(0),
        EVEN_K=n_in % config.block_k == 0,
        **sizes,
    )
    return out


def linear_ref(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Reference for `linear`: computed in float64 and rounded to x's dtype at the end."""
    out = x.double() @ weight.double().T
    if bias is not None:
        out += bias.double()
    return out.to(x.dtype)


def suit_tma(*tensors: torch.Tensor) -> bool:
    """Whether tensors are such as the hardware copies tiles of, and their numbers short."""
    return all(
        tensor.element_size() <= 2
        and tensor.shape[1] > 0
        and tensor.stride(0) >= tensor.shape[1]
        and tensor.stride(0) * tensor.element_size() % 16 == 0
        and tensor.data_ptr() % 16 == 0
        for tensor in tensors
    )


def tensor_descriptor(tensor: torch.Tensor, rows: int, columns: int) -> Any:
    """What copies tiles of so many rows and columns; a launch, also a recorded one, copies it."""
    return _DESCRIPTOR(tensor, list(tensor.shape), [tensor.stride(0), 1], [rows, columns])


def _check(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor | None
) -> None:
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dim() != 2:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected 2 dimensions")
        check_last_stride(name, tensor)
    check_float(x=x, bias=bias)
    if weight.dtype != x.dtype:
        raise ValueError(f"weight is {weight.dtype}, x {x.dtype}: they must be of one dtype")
    check_shape("weight", weight, (weight.shape[0], x.shape[1]))
    if bias is not None:
        check_shape("bias", bias, (weight.shape[0],))
    assert out is not None
    check_shape("out", out, (x.shape[0], weight.shape[0]))
    if out.dtype not in (x.dtype, torch.float32):
        raise ValueError(f"out is {out.dtype}: pass {x.dtype} or torch.float32")
    check_device(linear_kernel, x=x, weight=weight, bias=bias, out=out)
