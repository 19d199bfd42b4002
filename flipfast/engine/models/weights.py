"""Assigns each tensor of a checkpoint to its place, with checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.ops.blocks import KINDS, Blocks, widened
from flipfast.errors import ModelLoadError

TABLE, HEAD = "embed_tokens.weight", "lm_head.weight"
VALUE_HEADS = ("v_head.", "value_head.")  # that trainers save beside the model: TRL, OpenRLHF

_PREFIXES = ("model.", "language_model.")
_COMPUTED = "rotary_emb.inv_freq"  # in old checkpoints; it follows from the configuration


@dataclass(frozen=True)
class Slot:
    """The destination of one tensor.

    Attributes:
        shape: that the tensor must have.
        meaning: of the shape, in terms of the configuration's fields.
        put: copies the tensor to its destination.
    """

    shape: tuple[int, ...]
    meaning: str
    put: Callable[[torch.Tensor | Blocks], None]


def fill(
    slots: Mapping[str, Slot],
    tensors: Iterable[tuple[str, torch.Tensor | Blocks]],
    source: str,
    *,
    ignored: tuple[str, ...] = (),
) -> None:
    """Put every tensor into its slot.

    Args:
        slots: by name, without the prefixes that checkpoints add.
        tensors: names, with or without prefixes, and tensors of any float dtype, on any device, or
            in blocks.
        source: name of the checkpoint in error messages.
        ignored: name prefixes of tensors to skip.

    Raises:
        UnsupportedModelError: a tensor has no slot.
        ModelLoadError: a tensor is missing, occurs twice, has the wrong shape or no float dtype, or
            holds what its place cannot; slots filled before stay filled.
    """
    filled: set[str] = set()
    for full_name, tensor in tensors:
        name = bare(full_name)
        if name.startswith(ignored) or name.endswith(_COMPUTED):
            continue
        slot = slots.get(name)
        if slot is None:
            raise UnsupportedModelError(
                f"{source}: the tensor {full_name} has no place in this model"
            )
        if name in filled:
            raise ModelLoadError(f"{source}: the tensor {full_name} comes twice")
        if tuple(tensor.shape) != slot.shape:
            raise ModelLoadError(
                f"{source}: the tensor {full_name} has shape {tuple(tensor.shape)}; the "
                f"configuration asks for {slot.shape} ({slot.meaning})"
            )
        if isinstance(tensor, torch.Tensor):
            if not tensor.is_floating_point():
                raise ModelLoadError(
                    f"{source}: the tensor {full_name} is {tensor.dtype}, not floats"
                )
            tensor = tensor.detach()
        try:
            slot.put(tensor)
        except ValueError as error:
            raise ModelLoadError(f"{source}: the tensor {full_name}: {error}") from error
        filled.add(name)
    missing = [name for name in slots if name not in filled]
    if missing:
        raise ModelLoadError(
            f"{source}: {len(missing)} tensors are missing, the first is {missing[0]}"
        )


def bare(name: str) -> str:
    """A tensor's name without the prefixes that checkpoints put before it."""
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def with_both(
    tensors: Iterable[tuple[str, torch.Tensor | Blocks]], untie: Callable[[], object]
) -> Iterator[tuple[str, torch.Tensor | Blocks]]:
    """The tensors of a model whose configuration ties two, its embedding and its head, both last.

    As in transformers, a head that differs from the embedding is a tensor of its own, and one that
    is alone stands for both.

    Args:
        tensors: names, and tensors; of the two, the first is held until the others have passed.
        untie: called before a head that differs.
    """
    pair: dict[str, tuple[str, torch.Tensor | Blocks]] = {}
    for full_name, tensor in tensors:
        name = bare(full_name)
        if name in (TABLE, HEAD) and name not in pair:
            pair[name] = full_name, tensor
        else:
            yield full_name, tensor
    if not pair:
        return
    table = pair.get(TABLE) or (TABLE, pair[HEAD][1])
    head = pair.get(HEAD) or (HEAD, table[1])
    yield table
    if not _same(table[1], head[1]):
        untie()
    yield head


def _same(one: torch.Tensor | Blocks, other: torch.Tensor | Blocks) -> bool:
    if isinstance(one, Blocks) and isinstance(other, Blocks) and one.kind == other.kind in KINDS:
        return torch.equal(one.data, other.data)
    one, other = widened(one), widened(other)
    if one.dtype != other.dtype:
        one, other = one.float(), other.float()
    return torch.equal(one, other.to(one.device))
