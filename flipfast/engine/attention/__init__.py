"""Attention backends: one file each, found by name and imported on first use."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from flipfast.engine.attention.base import (
    AttentionBackend,
    AttentionMetadata,
    AttentionShape,
    LayerCache,
)
from flipfast.errors import ConfigError, MissingDependencyError

__all__ = [
    "AttentionBackend",
    "AttentionMetadata",
    "AttentionShape",
    "LayerCache",
    "available_attention",
    "load_attention",
]

# Best first.
_PREFERENCE = {
    "cpu": ("cpu", "reference"),
    "cuda": ("triton_paged", "flash_attn", "torch_varlen", "reference"),
}


def available_attention() -> list[str]:
    """Sorted names of the backends in this folder; imports none of them."""
    names = (module.name for module in iter_modules(__path__))
    return sorted(name for name in names if name != "base" and not name.startswith("_"))


def load_attention(
    name: str | None, shape: AttentionShape, *, batch_invariant: bool = False
) -> AttentionBackend:
    """Load a backend by name, or the best one that supports the shape.

    Args:
        name: one of `available_attention()`; None takes the first that supports the shape.
        shape: of the model and its cache.
        batch_invariant: accept only backends whose results do not depend on the batch.

    Raises:
        ConfigError: there is no such backend, it does not support the shape or is not
            batch-invariant, or none is left; the message says what was tried and why it failed.
        MissingDependencyError: the named backend needs a package that is not installed.
    """
    if name is not None:
        return _load(name, shape, batch_invariant)
    refusals = []
    for candidate in _PREFERENCE.get(shape.device.type, ("reference",)):
        if candidate not in available_attention():
            continue
        try:
            return _load(candidate, shape, batch_invariant)
        except (ConfigError, MissingDependencyError) as error:
            refusals.append(f"{candidate}: {error}")
    asked = "batch-invariant attention backend" if batch_invariant else "attention backend"
    raise ConfigError(
        f"no {asked} serves {shape.n_heads} heads of {shape.head_dim} ({shape.n_kv_heads} for "
        f"keys) in {shape.dtype} on {shape.device}; tried " + "; ".join(refusals)
    )


def _load(name: str, shape: AttentionShape, batch_invariant: bool) -> AttentionBackend:
    if name not in available_attention():
        known = ", ".join(available_attention())
        raise ConfigError(f"there is no attention backend {name!r}; the backends are: {known}")
    try:
        module = import_module(f"{__name__}.{name}")
        backend: AttentionBackend = module.Backend(shape)
    except MissingDependencyError:
        raise
    except ImportError as error:  # not installed, or built for another torch
        raise MissingDependencyError(
            f"the {name} attention backend cannot be imported ({error}); install what it needs, "
            "or choose another backend"
        ) from error
    if batch_invariant and not backend.batch_invariant:
        raise ConfigError(
            f"the {name} attention backend is not batch-invariant; choose another one, or set "
            "deterministic=False"
        )
    return backend
