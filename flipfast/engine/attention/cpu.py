"""Attention on the CPU: C++ kernels with their own layout of 32-token pages."""

from __future__ import annotations

import math
import mmap

import torch

import flipfast._cpu as _cpu
from flipfast.engine.attention.base import (
    AttentionBackend,
    AttentionMetadata,
    AttentionShape,
    LayerCache,
)
from flipfast.errors import ConfigError

_DTYPES = (torch.float32, torch.bfloat16)
_LARGEST_HEAD = 512
_NO_WINDOW = 2**31 - 1


class Backend(AttentionBackend):
    """Online softmax over key blocks at fixed positions (FlashAttention, Dao et al. 2022).

    float32 pages: keys (kv head, head_dim, 32 tokens), values (kv head, 32 tokens, head_dim).
    bfloat16 pages: the same, with pairs of dimensions (keys) or of tokens (values) interleaved, as
    matrix instructions expect. head_dim is padded to a multiple of 32.

    Raises:
        ConfigError: another device or dtype, a head size that is not a multiple of 8 or is above
            512, or query heads that do not divide evenly among the key heads.
    """

    page_size = 32
    batch_invariant = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(shape)
        if shape.device.type != "cpu":
            raise ConfigError(f"the cpu attention runs on the CPU, not on {shape.device}")
        if shape.dtype not in _DTYPES:
            raise ConfigError(f"the cpu attention caches float32 or bfloat16, not {shape.dtype}")
        if shape.head_dim % 8 or not 0 < shape.head_dim <= _LARGEST_HEAD:
            raise ConfigError(
                f"the cpu attention takes heads of a multiple of 8 up to {_LARGEST_HEAD}, not "
                f"{shape.head_dim}"
            )
        if shape.n_kv_heads < 1 or shape.n_heads % shape.n_kv_heads:
            raise ConfigError(
                f"{shape.n_heads} query heads cannot share {shape.n_kv_heads} key heads evenly"
            )
        self._depth = -(-shape.head_dim // 32) * 32

    def allocate(self, n_pages: int) -> LayerCache:
        """Allocate key and value pages of one layer, all zeros."""
        heads, depth, page = self.shape.n_kv_heads, self._depth, self.page_size
        if self.shape.dtype is torch.float32:
            return _zeros(n_pages, heads, depth, page), _zeros(n_pages, heads, page, depth)
        return (
            _zeros(n_pages, heads, depth // 2, page).view(torch.bfloat16).unflatten(-1, (page, 2)),
            _zeros(n_pages, heads, page // 2, depth).view(torch.bfloat16).unflatten(-1, (depth, 2)),
        )

    def page_bytes(self) -> int:
        """Bytes of one page of keys and values of one layer, including padding."""
        s = self.shape
        return 2 * self.page_size * s.n_kv_heads * self._depth * s.dtype.itemsize

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: LayerCache,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Write a step's keys and values to their slots; see the base class.

        Raises:
            ValueError: another shape, dtype or stride, or a slot outside the cache.
        """
        heads = self.shape.n_kv_heads
        key = self._heads("key", key, heads)
        value = self._heads("value", value, heads)
        n = key.shape[0]
        if value.shape[0] != n:
            raise ValueError(f"{n} keys but {value.shape[0]} values")
        slots = _vector("slot_mapping", slot_mapping, n, torch.int64)
        self._pages(cache).write(
            key.data_ptr(),
            key.stride(0),
            key.stride(1),
            value.data_ptr(),
            value.stride(0),
            value.stride(1),
            slots,
            n,
        )

    def attend(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        metadata: AttentionMetadata,
        out: torch.Tensor,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attention of every query over the keys up to its own position; see the base class.

        Raises:
            ValueError: another shape, dtype or stride, or inconsistent metadata.
        """
        heads, head_dim = self.shape.n_heads, self.shape.head_dim
        query = self._heads("query", query, heads)
        if out.shape != (query.shape[0], heads * head_dim) or not out.is_contiguous():
            raise ValueError(
                f"out must be ({query.shape[0]}, {heads * head_dim}) and contiguous, not "
                f"{tuple(out.shape)} of stride {out.stride()}"
            )
        if window is not None and window < 1:
            raise ValueError(f"a window must be at least 1, not {window}")
        result = out if out.dtype is torch.float32 else out.float()
        n_seqs = metadata.seq_lens.shape[0]
        tables = metadata.block_tables
        if tables.ndim != 2 or tables.shape[0] != n_seqs or tables.dtype is not torch.int32:
            raise ValueError(
                f"block_tables must be ({n_seqs}, any width) int32, not {tuple(tables.shape)} "
                f"{tables.dtype}"
            )
        if tables.stride(1) != 1 and tables.shape[1] > 1:
            raise ValueError(f"block_tables' rows must have stride 1, not {tables.stride(1)}")
        self._pages(cache).attend(
            query.data_ptr(),
            query.stride(0),
            query.stride(1),
            query.shape[0],
            result.data_ptr(),
            heads,
            n_seqs,
            _vector("cu_seqlens_q", metadata.cu_seqlens_q, n_seqs + 1, torch.int32),
            _vector("seq_lens", metadata.seq_lens, n_seqs, torch.int32),
            tables.data_ptr(),
            tables.stride(0),
            tables.shape[1],
            _NO_WINDOW if window is None else min(window, _NO_WINDOW),
            scale,
            0.0 if softcap is None else softcap,
        )
        return out if result is out else out.copy_(result)

    def _heads(self, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
        """Check that x is (n, heads, head_dim) with last stride 1, and return it as float32."""
        head_dim = self.shape.head_dim
        if x.ndim != 3 or x.shape[1:] != (heads, head_dim) or x.stride(2) != 1 or not x.is_cpu:
            raise ValueError(
                f"{name} must be (n, {heads}, {head_dim}) on the CPU with stride 1 in the last "
                f"dimension, not {tuple(x.shape)} of stride {x.stride()} on {x.device}"
            )
        return x if x.dtype is torch.float32 else x.float()

    def _pages(self, cache: LayerCache) -> _cpu.PageCache:
        keys, values = cache
        s = self.shape
        return _cpu.PageCache(
            keys.data_ptr(),
            values.data_ptr(),
            keys.shape[0],
            s.dtype is torch.bfloat16,
            s.n_kv_heads,
            s.head_dim,
        )


def _vector(name: str, x: torch.Tensor, n: int, dtype: torch.dtype) -> int:
    """Address of a contiguous vector of n integers; raises ValueError for anything else."""
    if x.shape != (n,) or x.dtype is not dtype or not x.is_contiguous() or not x.is_cpu:
        raise ValueError(
            f"{name} must be ({n},) {dtype} on the CPU and contiguous, not {tuple(x.shape)} "
            f"{x.dtype} of stride {x.stride()} on {x.device}"
        )
    return x.data_ptr()


def _zeros(*shape: int) -> torch.Tensor:
    """Float32 zeros from the system itself, which gives memory as it is written to.

    torch.zeros would write to all of it, and so take seconds and all of the memory at once; so
    would calloc where it finds room in what has been freed.
    """
    n = math.prod(shape)
    memory = mmap.mmap(-1, 4 * n, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=torch.float32, count=n).view(shape)
