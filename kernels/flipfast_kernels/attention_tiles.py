"""Tile sizes and launch options of attention: the default rule and tuned entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from flipfast_kernels import tuning
from flipfast_kernels.launch import device_facts, power_of_two


@dataclass(frozen=True)
class AttentionConfig:
    """Tile sizes and launch options of attention.

    Attributes:
        block_m: rows per tile: tokens times the query heads that share a KV head.
        block_n: keys per step of the online softmax; divides split.
        split: keys per split; splits are computed separately and merged in order.
        num_warps, num_stages: Triton launch options.
    """

    block_m: int
    block_n: int
    split: int
    num_warps: int
    num_stages: int


def attention_configs(
    head_dim: int, dtype: torch.dtype, capability: int
) -> tuple[AttentionConfig, AttentionConfig]:
    """The configuration for few rows per sequence and the one for many.

    Both give a row the same bits (see `paged_attention`): they differ in the number of rows, and
    in warps so that each warp has the same number of rows.

    Args:
        head_dim: size of a head.
        dtype: of queries and pages.
        capability: the device's compute capability, 90 for 9.0.
    """
    if dtype == torch.float32:
        few = AttentionConfig(16, 32, 1024, 4, 1)
        return few, few
    wide = head_dim > 128
    # Half the keys on devices with little shared memory per block.
    block_n = (32 if wide else 64) // (1 if 90 <= capability < 120 else 2)
    # Loading keys first needs their page numbers: of five stages two hold those, three hold keys.
    stages = 3 if wide else 5
    few = AttentionConfig(64, block_n, 1024, 4, stages)
    many = few if wide else AttentionConfig(128, block_n, 1024, 8, stages)
    # Only on 9.0 do both heights use the same instruction and the same threads for a row.
    return (few, many) if capability == 90 else (many, many)


def check_attention_configs(few: AttentionConfig, many: AttentionConfig, capability: int) -> None:
    """Raise ValueError unless both give a row the same bits; see `paged_attention`."""
    for name in ("block_m", "block_n", "split", "num_warps", "num_stages"):
        for value in (getattr(few, name), getattr(many, name)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}: it must be a whole number above 0")
            if name in ("block_m", "block_n", "num_warps") and value & (value - 1):
                raise ValueError(f"{name} is {value}: it must be a power of two")
    if (few.block_n, few.split) != (many.block_n, many.split) or few.split % few.block_n:
        raise ValueError(f"{few} and {many} must share split and block_n, which divides it")
    if few.block_m * many.num_warps != many.block_m * few.num_warps:
        raise ValueError(f"{few} and {many} differ in rows a warp")
    if few.block_m != many.block_m and capability != 90:
        raise ValueError(f"{few} and {many} differ in rows, which only compute capability 9.0 may")


@lru_cache(maxsize=256)
def configs_for(
    head_dim: int, dtype: torch.dtype, device: torch.device
) -> tuple[AttentionConfig, AttentionConfig]:
    """The tuned configurations for this head size (see `tuning`), else `attention_configs`.

    Args:
        head_dim: size of a head.
        dtype: of queries and pages.
        device: with its index.
    """
    capability = device_facts(device)[0]

    def make(
        few: Mapping[str, Any], many: Mapping[str, Any]
    ) -> tuple[AttentionConfig, AttentionConfig]:
        pair = AttentionConfig(**few), AttentionConfig(**many)
        check_attention_configs(*pair, capability)
        return pair

    block_d = max(power_of_two(head_dim), 16)  # the tile's width: entries must match it exactly
    bucket: tuning.Bucket = {"block_d": block_d, "dtype": str(dtype).removeprefix("torch.")}
    found = tuning.tuned_pair("paged_attention", device, bucket, make, reach=0.0)
    return found or attention_configs(head_dim, dtype, capability)
