"""Copies between host and device: many arrays in one transfer, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]

_ALIGNMENT = 16  # bytes: kernels are compiled for addresses that are multiples of it
_TORCH = {
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}


@dataclass(frozen=True)
class _Place:
    start: int
    end: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Layout:
    """Where named arrays lie in one buffer of bytes.

    Args:
        arrays: dtype and shape of each.

    Attributes:
        n_bytes: of the buffer.
    """

    def __init__(self, arrays: Mapping[str, tuple[Any, tuple[int, ...]]]) -> None:
        self._places: dict[str, _Place] = {}
        self.n_bytes = 0
        for name, (kind, shape) in arrays.items():
            dtype = np.dtype(kind)
            end = self.n_bytes + prod(shape) * dtype.itemsize
            self._places[name] = _Place(self.n_bytes, end, dtype, shape)
            self.n_bytes = -(-end // _ALIGNMENT) * _ALIGNMENT

    def on_host(self, buffer: torch.Tensor) -> Iterator[tuple[str, Array]]:
        """Each array's name and its view of a host buffer, uint8 (n_bytes,)."""
        whole = buffer.numpy()
        for name, place in self._places.items():
            yield name, whole[place.start : place.end].view(place.dtype).reshape(place.shape)

    def on_device(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each array as a view of a device buffer, uint8 (at least n_bytes,)."""
        return {
            name: buffer[place.start : place.end].view(_TORCH[place.dtype]).view(place.shape)
            for name, place in self._places.items()
        }


def send(arrays: Mapping[str, Array], device: torch.device) -> dict[str, torch.Tensor]:
    """Copy arrays to the device in one transfer; on a CPU they stay where they are.

    Args:
        arrays: int32, int64, float32 or float64.
        device: where the tensors go.
    """
    if device.type == "cpu" or not arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    layout = Layout({name: (array.dtype, array.shape) for name, array in arrays.items()})
    host = staging(layout.n_bytes, device)
    for name, view in layout.on_host(host):
        view[...] = arrays[name]
    return layout.on_device(host.to(device, non_blocking=True))


def staging(n_bytes: int, device: torch.device) -> torch.Tensor:
    """A host buffer, uint8 (n_bytes,), for a copy to the device that the host does not wait for.

    It is pinned, and its memory is used again only once the copy has ended.
    """
    return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=device.type != "cpu")


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A pinned copy of a device tensor, valid once the stream has come so far."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
