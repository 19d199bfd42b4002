"""Checkpoints, read tensor by tensor: config.json with safetensors, or a GGUF file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.families import read_spec
from flipfast.engine.models.fp8 import FP8, kinds_of, with_scales
from flipfast.engine.models.gguf.checkpoint import GgufCheckpoint
from flipfast.engine.models.gguf.reader import open_gguf
from flipfast.engine.models.gguf.spec import read_gguf_spec
from flipfast.engine.models.hub import fetch, gguf_path
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.ops.blocks import Blocks
from flipfast.errors import ModelLoadError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": FP8,
}
_Headers = dict[str, tuple[torch.dtype, tuple[int, ...]]]  # dtypes and shapes by name


class Checkpoint(Protocol):
    """The weights of a model on disk."""

    @property
    def source(self) -> str:
        """What error messages call them."""

    @property
    def dtype(self) -> torch.dtype:
        """The most frequent dtype of the numbers."""

    @property
    def kinds(self) -> Mapping[str, str]:
        """Of quantised tensors, see `Blocks`, by name without prefix."""

    def tensors(self) -> Iterator[tuple[str, torch.Tensor | Blocks]]:
        """Names, as transformers has them, and tensors, each read when it is reached."""


@dataclass(frozen=True)
class SafetensorsCheckpoint:
    """The weights of a model in safetensors files, all present and complete.

    Attributes:
        source: name in error messages: the path of the only file, or of the index.
        files: the safetensors files.
        dtype: the most frequent dtype of the numbers; float32 for 8-bit floats with scales.
        kinds: of 8-bit floats, see `Checkpoint`.
    """

    source: str
    files: tuple[Path, ...]
    dtype: torch.dtype
    kinds: Mapping[str, str] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor | Blocks]]:
        """Names and tensors, file by file, each mapped from disk when it is reached."""
        return with_scales(self._stored(), self.source)

    def _stored(self) -> Iterator[tuple[str, torch.Tensor]]:
        for path in self.files:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 - no mapping
                    yield name, file.get_tensor(name)


def read_model(name: str, revision: str | None = None) -> tuple[DecoderSpec, Checkpoint]:
    """Read a model's specification and the headers of its weights.

    The weights of a hub model are downloaded only if its config.json shows that it is supported.

    Args:
        name: a local folder, a hub name, a GGUF file, or "REPO:FILE.gguf" on the hub.
        revision: of the hub model; None is its main branch.

    Raises:
        UnsupportedModelError: the model may be valid, but is not supported here.
        ModelLoadError: no such model, or a broken file; the message names file and field.
    """
    gguf = gguf_path(name, revision)
    if gguf is not None:
        file = open_gguf(gguf)
        return read_gguf_spec(file), GgufCheckpoint(file)
    path = fetch(name, revision, ["config.json"]) / "config.json"
    config = _read_json(path)
    try:
        spec = read_spec(config)
    except ModelLoadError as error:
        raise type(error)(f"{path}: {error}") from error
    return spec, _checkpoint(name, revision)


def _checkpoint(name: str, revision: str | None) -> SafetensorsCheckpoint:
    folder = fetch(name, revision, [_SINGLE, _INDEX])
    index = folder / _INDEX
    if (folder / _SINGLE).is_file():
        source, shards = folder / _SINGLE, {_SINGLE: set[str]()}
    elif index.is_file():
        source, shards = index, _read_index(index)
        fetch(name, revision, list(shards))
    else:
        raise UnsupportedModelError(f"{folder} holds no {_SINGLE} and no {_INDEX}")
    headers: _Headers = {}
    for shard, listed in shards.items():
        path = folder / shard
        if not path.is_file():
            raise ModelLoadError(f"{source} names {shard}, which is not in {folder}")
        held = _headers(path)
        headers |= held
        if lacking := sorted(listed - held.keys()):
            raise ModelLoadError(
                f"{source} puts {len(lacking)} tensors into {shard} that it does not hold, the "
                f"first is {lacking[0]}"
            )
    if not headers:
        raise ModelLoadError(f"{source} holds no tensor")
    numbers: Counter[torch.dtype] = Counter()
    for dtype, shape in headers.values():
        numbers[torch.float32 if dtype == FP8 else dtype] += torch.Size(shape).numel()
    files = tuple(folder / shard for shard in shards)
    return SafetensorsCheckpoint(
        str(source), files, numbers.most_common(1)[0][0], kinds_of(headers)
    )


def _read_index(path: Path) -> dict[str, set[str]]:
    """The shards that an index names, and the tensors that it lists for each."""
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelLoadError(f"{path}: the field 'weight_map' is {weight_map!r}, not a table")
    shards: dict[str, set[str]] = {}
    for tensor, shard in sorted(weight_map.items()):
        shards.setdefault(str(shard), set()).add(tensor)
    return shards


def _headers(path: Path) -> _Headers:
    """What a file says of its tensors."""
    headers: _Headers = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            part = file.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise UnsupportedModelError(
                    f"{path}: the tensor {name} is {part.get_dtype()}; "
                    f"served are {', '.join(_DTYPES)}"
                )
            headers[name] = _DTYPES[part.get_dtype()], tuple(part.get_shape())
    return headers


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{path} is truncated, or no safetensors file: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(f"there is no {path}") from None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds a {type(content).__name__}, not a table of fields")
    return content
