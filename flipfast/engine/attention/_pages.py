"""Shared by most backends: pages of (page_size, key heads, head_dim), and support checks."""

from __future__ import annotations

import torch

from flipfast.engine.attention.base import AttentionBackend, AttentionShape, LayerCache
from flipfast.errors import ConfigError


class PagedBackend(AttentionBackend):
    """Stores keys and values in the layout that every paged FlashAttention reads."""

    plain_pages = True

    def allocate(self, n_pages: int) -> LayerCache:
        s = self.shape
        pages = (n_pages, self.page_size, s.n_kv_heads, s.head_dim)
        # Zeros: a kernel may read past a sequence's end, where 0 * NaN would be NaN.
        return (
            torch.zeros(pages, dtype=s.dtype, device=s.device),
            torch.zeros(pages, dtype=s.dtype, device=s.device),
        )

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: LayerCache,
        slot_mapping: torch.Tensor,
    ) -> None:
        for pages, new in zip(cache, (key, value), strict=True):
            pages.flatten(0, 1).index_copy_(0, slot_mapping, new.to(pages.dtype))


def check_served(
    name: str,
    shape: AttentionShape,
    *,
    dtypes: tuple[torch.dtype, ...],
    max_head_dim: int,
    head_dim_step: int,
    softcap: bool,
) -> None:
    """Raise ConfigError, with the reason, if a backend does not support a shape.

    Args:
        name: of the backend, for the message.
        shape: the requested shape.
        dtypes, max_head_dim: the supported dtypes and largest head size.
        head_dim_step: supported head sizes are multiples of it.
        softcap: whether the backend can cap scores.
    """
    if shape.dtype not in dtypes:
        served = ", ".join(str(dtype) for dtype in dtypes)
        raise ConfigError(f"{name} serves keys and values in {served}, not {shape.dtype}")
    if shape.head_dim > max_head_dim or shape.head_dim % head_dim_step:
        raise ConfigError(
            f"{name} serves head sizes up to {max_head_dim} in multiples of {head_dim_step}, not "
            f"{shape.head_dim}"
        )
    if shape.n_heads % shape.n_kv_heads:
        raise ConfigError(
            f"{name} needs a multiple of {shape.n_kv_heads} query heads, not {shape.n_heads}"
        )
    if shape.softcap and not softcap:
        raise ConfigError(f"{name} cannot cap attention scores, which this model does")


def cuda_capability(name: str, shape: AttentionShape, lowest: int) -> int:
    """Compute capability of the shape's device, 90 for 9.0.

    Raises:
        ConfigError: it is not a CUDA device, is not available, or is below `lowest`.
    """
    if shape.device.type != "cuda":
        raise ConfigError(f"{name} needs a CUDA device, not {shape.device}")
    if not torch.cuda.is_available():
        raise ConfigError(f"{name} is asked for on {shape.device}, but torch sees no CUDA device")
    major, minor = torch.cuda.get_device_capability(shape.device)
    if 10 * major + minor < lowest:
        raise ConfigError(
            f"{name} needs compute capability {lowest / 10} or newer; {shape.device} has "
            f"{major}.{minor}"
        )
    return 10 * major + minor
