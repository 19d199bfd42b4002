"""Checkpoints of 8-bit floats with scales, as they are published: Qwen 3's, and llm-compressor's.

A weight W of float8_e4m3fn comes with W_scale_inv, (rows / 128, columns / 128), a scale for each
block (DeepSeek-V3, 2024), or with W_scale, which may also have one scale a row, or a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.weights import bare
from flipfast.engine.ops.blocks import FP8_GROUPS, FP8_ROWS, Blocks
from flipfast.errors import ModelLoadError

FP8 = torch.float8_e4m3fn
_BLOCK = 128
_ENDINGS = ("_scale_inv", "_scale")
_Served = dict[str, tuple[object, ...]]  # values by field
# What compressed-tensors says of weights and of rows that are read here.
_WEIGHTS: _Served = {
    "type": ("float",),
    "num_bits": (8,),
    "strategy": ("tensor", "channel", "block"),
}
_ROWS: _Served = {
    "type": ("float",),
    "num_bits": (8,),
    "dynamic": (True,),
    "strategy": ("token", "group"),
}


def check_quantization(asked: object) -> None:
    """Check a config.json's quantization_config: weights e4m3, rows rounded as they come.

    Raises:
        ModelLoadError: it is no table.
        UnsupportedModelError: it asks for anything else.
    """
    if not isinstance(asked, Mapping):
        raise ModelLoadError(f"quantization_config is {asked!r}, not a table of fields")
    method = asked.get("quant_method")
    if method == "fp8":
        fields = _fields_of_fp8(asked)
    elif method == "compressed-tensors":
        fields = _fields_of_compressed_tensors(asked)
    else:
        raise _refused("quant_method", method)
    for name, value, served in fields:
        if value not in served:
            raise _refused(name, value)


# A field's name, its value, and the values that are served.
_Field = tuple[str, object, tuple[object, ...]]


def _fields_of_fp8(asked: Mapping[str, Any]) -> Iterator[_Field]:
    yield "fmt", asked.get("fmt"), (None, "e4m3")
    yield "activation_scheme", asked.get("activation_scheme"), (None, "dynamic")
    yield "weight_block_size", asked.get("weight_block_size"), (None, [_BLOCK, _BLOCK])


def _fields_of_compressed_tensors(asked: Mapping[str, Any]) -> Iterator[_Field]:
    yield "format", asked.get("format"), ("float-quantized",)
    # Keys and values of 8 bits, and rows that are turned on their way.
    for name in ("kv_cache_scheme", "transform_config"):
        yield name, asked.get(name), (None, {}, {"config_groups": {}})
    groups = _table("config_groups", asked.get("config_groups"))
    for name, value in groups.items():
        group = _table(f"config_groups.{name}", value)
        yield "output_activations", group.get("output_activations"), (None, {})
        for part, wanted in (("weights", _WEIGHTS), ("input_activations", _ROWS)):
            found = _table(part, group.get(part) or {})
            for field, served in wanted.items():
                yield f"{part}.{field}", found.get(field), served
            block = found.get("block_structure")
            yield f"{part}.block_structure", block, (None, [_BLOCK, _BLOCK])


def _table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refused(name, value)
    return value


def _refused(name: str, value: object) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"quantization_config: {name} {value!r} is not served here; served are 8-bit floats "
        "(e4m3) with scales of rows or of blocks of 128 x 128, and rows rounded as they come"
    )


def kinds_of(
    headers: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
) -> dict[str, str]:
    """The kinds of 8-bit weights, see `Blocks`, by name without prefix.

    Args:
        headers: dtypes and shapes of all tensors, by name.
    """
    kinds = {}
    for name, (dtype, shape) in headers.items():
        if dtype == FP8:
            scales = [headers[name + end][1] for end in _ENDINGS if name + end in headers]
            grouped = any(_is_of_blocks(scale, shape) for scale in scales)
            kinds[bare(name)] = FP8_GROUPS if grouped else FP8_ROWS
    return kinds


def with_scales(
    tensors: Iterable[tuple[str, torch.Tensor | Blocks]], source: str
) -> Iterator[tuple[str, torch.Tensor | Blocks]]:
    """The tensors, with 8-bit weights and their scales as blocks; in whatever order they come.

    Args:
        tensors: names and tensors.
        source: of them, in error messages.

    Raises:
        ModelLoadError: one has no partner, or scales do not fit the weight, or are not finite.
    """
    weights: dict[str, torch.Tensor] = {}
    scales: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        owner = next((name.removesuffix(end) for end in _ENDINGS if name.endswith(end)), None)
        if not isinstance(tensor, torch.Tensor):
            yield name, tensor
        elif tensor.dtype == FP8:
            weights[name] = tensor
            owner = name
        elif owner is not None:
            scales[owner] = tensor
        else:
            yield name, tensor
        if owner in weights and owner in scales:
            yield owner, _joined(weights.pop(owner), scales.pop(owner), f"{source}: {owner}")
    for name in weights:
        raise ModelLoadError(f"{source}: the tensor {name} is {FP8}, and no scale comes with it")
    for name in scales:
        raise ModelLoadError(
            f"{source}: a scale of {name} comes without 8-bit weights of that name; scales of "
            "activations, keys and values are not served: publish weights whose rows are rounded "
            "as they come"
        )


def _joined(weight: torch.Tensor, scale: torch.Tensor, what: str) -> Blocks:
    shape, found = tuple(weight.shape), tuple(scale.shape)
    weight, scale = weight.detach(), scale.detach()
    if not scale.is_floating_point():
        raise ModelLoadError(f"{what} has scales of {scale.dtype}, not floats")
    scale = scale.float()
    if not scale.isfinite().all():
        broken = scale[~scale.isfinite()][0].item()
        raise ModelLoadError(f"{what} has a scale of {broken}")
    if len(shape) == 2 and _is_of_blocks(found, shape):
        rows = scale.repeat_interleave(_BLOCK, 0)[: shape[0]]
        return Blocks(FP8_GROUPS, shape, weight, rows)
    if len(shape) == 2 and found in ((), (1,), (1, 1), shape[:1], (shape[0], 1)):
        return Blocks(FP8_ROWS, shape, weight, scale.reshape(-1, 1).expand(shape[0], 1))
    raise ModelLoadError(
        f"{what} has shape {shape}, and scales of shape {found}: expected one of the whole, one a "
        f"row, or one per block of {_BLOCK} x {_BLOCK}"
    )


def _is_of_blocks(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    if len(weight) != 2 or max(weight) <= _BLOCK:
        return False
    return scale == tuple(-(-n // _BLOCK) for n in weight)
