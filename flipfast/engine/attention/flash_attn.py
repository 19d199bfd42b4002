"""The FlashAttention packages: flash-attn versions 2 and 4, and version 3 as shipped with vLLM."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, Protocol

import torch

from flipfast.engine.attention._pages import PagedBackend, check_served, cuda_capability
from flipfast.engine.attention.base import AttentionMetadata, AttentionShape, LayerCache
from flipfast.errors import ConfigError, MissingDependencyError

_NAME = "flash_attn"


class _Version(Protocol):
    """The calling convention of one package.

    Attributes:
        page_size: tokens per page.
        batch_invariant: as in `AttentionBackend`.
    """

    page_size: int
    batch_invariant: bool

    def __call__(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        metadata: AttentionMetadata,
        out: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float,
    ) -> None: ...


class _VllmThree:
    """FlashAttention 3 from `vllm.vllm_flash_attn`, for compute capability 9.0.

    Batch-invariant up to head size 192: with num_splits=1, key blocks are at fixed positions, and
    pages smaller than a block keep the kernel on a load path whose block size does not depend on
    the step. Above 192, the block size changes if a window is as long as the longest sequence.
    """

    page_size = 16

    def __init__(self, shape: AttentionShape, capability: int) -> None:
        module = "vllm.vllm_flash_attn"
        is_supported = _function(module, "is_fa_version_supported", ())
        if capability // 10 != 9 or not is_supported(3):
            raise ConfigError(f"{module} has no version 3 for compute capability {capability / 10}")
        self._function = _function(
            module,
            "flash_attn_varlen_func",
            ("seqused_k", "block_table", "out", "num_splits", "fa_version"),
        )
        self.batch_invariant = shape.head_dim <= 192

    def __call__(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        metadata: AttentionMetadata,
        out: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float,
    ) -> None:
        self._function(
            query,
            *cache,
            max_seqlen_q=metadata.max_seqlen_q,
            cu_seqlens_q=metadata.cu_seqlens_q,
            max_seqlen_k=metadata.max_seq_len,
            seqused_k=metadata.seq_lens,
            block_table=metadata.block_tables,
            softmax_scale=scale,
            causal=True,
            window_size=[-1, -1] if window is None else [window - 1, 0],
            softcap=softcap,
            out=out,
            num_splits=1,
            fa_version=3,
        )


class _Two:
    """Version 2 of the flash-attn package.

    Not batch-invariant: with pages, `flash_attn_varlen_func` chooses its number of splits by the
    size of the batch, and has no argument to set it.
    """

    page_size = 256
    batch_invariant = False

    def __init__(self, shape: AttentionShape, capability: int) -> None:
        needed = ("block_table", "softcap")
        self._varlen = _function("flash_attn", "flash_attn_varlen_func", needed)
        self._decode = _function("flash_attn", "flash_attn_with_kvcache", (*needed, "num_splits"))

    def __call__(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        metadata: AttentionMetadata,
        out: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float,
    ) -> None:
        options: dict[str, Any] = {
            "softmax_scale": scale,
            "causal": True,
            "window_size": (-1, -1) if window is None else (window - 1, 0),
            "softcap": softcap,
            "block_table": metadata.block_tables,
        }
        if metadata.max_seqlen_q == 1 and len(query) == len(metadata.seq_lens):
            result = self._decode(
                query[:, None], *cache, cache_seqlens=metadata.seq_lens, num_splits=1, **options
            )
            out.copy_(result[:, 0])
            return
        ends = metadata.seq_lens.cumsum(0, dtype=torch.int32)
        out.copy_(
            self._varlen(
                query,
                *cache,
                metadata.cu_seqlens_q,
                torch.nn.functional.pad(ends, (1, 0)),
                metadata.max_seqlen_q,
                metadata.max_seq_len,
                **options,
            )
        )


class _Four:
    """Version 4, a pre-release: kernels in a CUDA DSL, for compute capability 9.0 to 11.

    Not batch-invariant: it is not documented what its tile sizes depend on.
    """

    page_size = 128
    batch_invariant = False

    def __init__(self, shape: AttentionShape, capability: int) -> None:
        self._function = _function(
            "flash_attn.cute",
            "flash_attn_varlen_func",
            ("seqused_k", "page_table", "num_splits"),
        )
        if not 90 <= capability < 120:
            raise ConfigError(
                f"flash-attn 4 reads pages on compute capability 9 to 11, not {capability / 10}"
            )
        if shape.softcap or shape.head_dim > 128:
            raise ConfigError(
                "flash-attn 4 is used for head sizes up to 128 without a cap on scores; this model "
                f"has head size {shape.head_dim}{' and a cap' if shape.softcap else ''}"
            )

    def __call__(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        metadata: AttentionMetadata,
        out: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float,
    ) -> None:
        result = self._function(
            query,
            *cache,
            cu_seqlens_q=metadata.cu_seqlens_q,
            seqused_k=metadata.seq_lens,
            page_table=metadata.block_tables,
            max_seqlen_q=metadata.max_seqlen_q,
            max_seqlen_k=metadata.max_seq_len,
            softmax_scale=scale,
            causal=True,
            window_size=(None, None) if window is None else (window - 1, 0),
            num_splits=1,
        )
        out.copy_(result[0] if isinstance(result, tuple) else result)


# Best first: version 3 was made for Hopper, version 4 for Blackwell and later.
_HOPPER: tuple[Callable[[AttentionShape, int], _Version], ...] = (_VllmThree, _Two, _Four)
_OTHERS: tuple[Callable[[AttentionShape, int], _Version], ...] = (_Four, _Two)


class Backend(PagedBackend):
    """The best installed FlashAttention package that supports the shape and the device."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(shape)
        capability = cuda_capability(_NAME, shape, lowest=80)
        check_served(
            _NAME,
            shape,
            dtypes=(torch.bfloat16, torch.float16),
            max_head_dim=256,
            head_dim_step=8,
            softcap=True,
        )
        self._version = _load(shape, capability)
        self.page_size = self._version.page_size
        self.batch_invariant = self._version.batch_invariant

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
        rows = out.view(query.shape)
        self._version(query, cache, metadata, rows, scale, window, softcap or 0.0)
        return out


def _load(shape: AttentionShape, capability: int) -> _Version:
    refusals: list[str] = []
    missing = True
    for version in _HOPPER if capability // 10 == 9 else _OTHERS:
        try:
            return version(shape, capability)
        except ImportError as error:
            refusals.append(str(error))
        except ConfigError as error:
            refusals.append(str(error))
            missing = False
    reasons = "; ".join(refusals)
    if missing:
        raise MissingDependencyError(
            f"no FlashAttention package can be imported ({reasons}); docs/flash_attention.md has "
            "the recipes"
        )
    raise ConfigError(f"no installed FlashAttention package serves this model here: {reasons}")


def _function(module: str, name: str, parameters: tuple[str, ...]) -> Any:
    """Import a package's function.

    Raises:
        ImportError: it does not exist; with version 4 alone, `flash_attn` is an empty namespace.
        ConfigError: it does not accept all of these parameters.
    """
    function = getattr(import_module(module), name, None)
    if function is None:
        raise ImportError(f"{module} has no {name}")
    lacking = [p for p in parameters if p not in signature(function).parameters]
    if lacking:
        raise ConfigError(f"{module}.{name} has no {', '.join(lacking)}: install a newer release")
    return function
