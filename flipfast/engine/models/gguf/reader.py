"""GGUF files: opened, checked, and their tensors read one at a time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.ops.blocks import Blocks
from flipfast.errors import ModelLoadError

# Stored as they are, and quantised: blocks of 32 or 256 numbers with scales.
PLAIN_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
QUANTISED_TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
_FIRST_SHARD = re.compile(r"(.*)-00001-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor is stored, and how.

    Attributes:
        name: as the file calls it.
        kind: how it is stored, "F32" or "Q4_K".
        shape: rows first, as torch has it.
        path: of the file.
        offset: of its first byte there.
        n_bytes: how many there are.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    n_bytes: int

    def read(self) -> torch.Tensor | Blocks:
        """The numbers as they are stored.

        Raises:
            ModelLoadError: the file is gone, or has been cut off.
        """
        # Not mapped: what was read of a map counts as this process's memory while the map lives.
        try:
            raw = torch.from_numpy(
                np.fromfile(self.path, np.uint8, self.n_bytes, offset=self.offset)
            )
        except OSError as error:
            raise ModelLoadError(f"{self.path} cannot be read again: {error}") from error
        if len(raw) < self.n_bytes:
            raise ModelLoadError(f"{self.path} has been cut off since it was opened")
        dtype = PLAIN_TYPES.get(self.kind)
        if dtype is None:
            return Blocks(self.kind, self.shape, raw.view(*self.shape[:-1], -1))
        return raw.view(dtype).view(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """A model in one file, or in several that were split.

    Attributes:
        path: of the first file, for messages.
        fields: the metadata, by name.
        tensors: of all files.
    """

    path: Path
    fields: dict[str, Any]
    tensors: tuple[GgufTensor, ...]

    def without_lists(self) -> GgufFile:
        """The same without what is long: the lists that only the tokenizer is made from."""
        kept = {name: value for name, value in self.fields.items() if not isinstance(value, list)}
        return replace(self, fields=kept)

    def field(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """A field of the metadata.

        Raises:
            ModelLoadError: it is of another type, or missing and without a default.
        """
        value = self.fields.get(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ModelLoadError(f"{self.path}: the field {name!r} is {value!r:.80}")
        return value


def open_gguf(path: Path) -> GgufFile:
    """Read the metadata of a file and, where it was split, of its siblings.

    Args:
        path: of the only file, or of the first.

    Raises:
        ModelLoadError: a file that is missing, cut off, or no GGUF.
        UnsupportedModelError: a tensor of a type that is not served.
    """
    fields: dict[str, Any] = {}
    tensors: list[GgufTensor] = []
    for part in shards_of(path):
        own, found = _read(part)
        fields = fields or own
        tensors += found
    return GgufFile(path, fields, tuple(tensors))


def shards_of(path: Path) -> list[Path]:
    """The files of a model, in their order.

    Args:
        path: of the only file, or of the first.

    Raises:
        ModelLoadError: one of them is missing.
    """
    named = _FIRST_SHARD.fullmatch(path.name)
    if named is None:
        return [path]
    stem, n = named.groups()
    parts = [path.with_name(f"{stem}-{i:05d}-of-{n}.gguf") for i in range(1, int(n) + 1)]
    for part in parts:
        if not part.is_file():
            raise ModelLoadError(f"{path} is one of {int(n)} files, and {part.name} is missing")
    return parts


def _read(path: Path) -> tuple[dict[str, Any], list[GgufTensor]]:
    # Here, so that other models are read where gguf is not installed.
    from flipfast.engine.models.gguf.bounded import BoundedReader, value_of

    try:
        reader = BoundedReader(path)
        fields = {name: value_of(field) for name, field in reader.fields.items()}
        found = [_tensor(path, tensor) for tensor in reader.tensors]
    except Exception as error:
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise ModelLoadError(f"{path} is cut off, or no GGUF file: {reason}") from error
    for tensor in found:
        if tensor.kind not in PLAIN_TYPES and tensor.kind not in QUANTISED_TYPES:
            served = ", ".join((*PLAIN_TYPES, *QUANTISED_TYPES))
            raise UnsupportedModelError(
                f"{path}: the tensor {tensor.name} is {tensor.kind}; served are {served}"
            )
    return fields, found


def _tensor(path: Path, read: Any) -> GgufTensor:
    shape = tuple(int(n) for n in reversed(read.shape))
    if math.prod(shape) != read.n_elements or not read.n_elements:  # gguf's product overflows
        raise ValueError(f"the tensor {read.name} has shape {shape}")
    kind = read.tensor_type.name
    return GgufTensor(read.name, kind, shape, path, read.data_offset, int(read.n_bytes))
