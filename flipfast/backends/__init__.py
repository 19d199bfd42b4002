"""Inverters: one file a backend, found by its name, imported when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from flipfast.backends.base import (
    Inversion,
    InversionRequest,
    Inverter,
    Likelihood,
    LikelihoodRequest,
    SamplingParams,
)
from flipfast.errors import ConfigError, MissingDependencyError
from flipfast.models.errors import UnsupportedModelError

__all__ = [
    "Inversion",
    "InversionRequest",
    "Inverter",
    "Likelihood",
    "LikelihoodRequest",
    "SamplingParams",
    "available_backends",
    "load_inverter",
]

_log = logging.getLogger(__name__)


def available_backends() -> list[str]:
    """Names of the backends in this folder, sorted; nothing is imported to find them."""
    names = (module.name for module in iter_modules(__path__))
    return sorted(name for name in names if name != "base" and not name.startswith("_"))


def load_inverter(
    backend: str | None,
    model: str,
    *,
    native: Mapping[str, Any] | None = None,
    **options: Any,
) -> Inverter:
    """Load a model with one of the backends.

    Args:
        backend: a name from `available_backends()`. None takes the native engine, and transformers,
            with one logged line, for a model that the engine does not know.
        model: what that backend takes as a model: a local folder or a hub name.
        native: options that only the native engine has.
        options: passed on to the backend's `load`.

    Raises:
        ConfigError: there is no such backend, or it refuses an option.
        MissingDependencyError: a package that the backend needs is not installed.
        ModelLoadError: the model cannot be loaded.
    """
    if backend is None:
        try:
            return _load("native", model, **options, **(native or {}))
        except UnsupportedModelError as error:
            _log.warning("%s: running it with the transformers backend instead", error)
        return _load("transformers", model, **options)
    if backend not in available_backends():
        known = ", ".join(available_backends())
        raise ConfigError(f"there is no backend {backend!r}; the backends are: {known}")
    if backend == "native":
        options.update(native or {})
    return _load(backend, model, **options)


def _load(backend: str, model: str, **options: Any) -> Inverter:
    try:
        module = import_module(f"{__name__}.{backend}")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the {backend} backend needs the package {error.name}, which is not installed; "
            f"install it with pip, or choose another backend"
        ) from error
    inverter: Inverter = module.load(model, **options)
    return inverter
