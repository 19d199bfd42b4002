"""Inverters: one file per backend, found by name and imported on first use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from inspect import Parameter, signature
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
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.errors import ConfigError, MissingDependencyError

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

_ADDRESSES = ("http://", "https://")
_EXTRAS = {"openai_http": "client", "vllm": "vllm"}  # this package's extra for each backend


def available_backends() -> list[str]:
    """Sorted names of the backends in this folder; imports none of them."""
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
        backend: a name from `available_backends()`, or a server's address, which selects
            openai_http. None selects the native engine, or transformers (logging a warning) if
            the engine does not support the model.
        model: a local folder, a hub name, or the name a server uses for the model.
        native: options of the native engine; other backends receive only those they accept.
        options: passed on to the backend's `load`.

    Raises:
        ConfigError: there is no such backend, or it does not accept an option.
        MissingDependencyError: a package that the backend needs is not installed.
        ModelLoadError: the model cannot be loaded.
    """
    native = native or {}
    if backend is None:
        try:
            return _load("native", model, options, native)
        except UnsupportedModelError as error:
            from flipfast.engine.models.hub import gguf_path  # which imports the hub's package

            if gguf_path(model, options.get("revision")) is not None:
                raise  # no other backend here reads such files
            _log.warning("%s: running it with the transformers backend instead", error)
        return _load("transformers", model, options, native)
    if backend.startswith(_ADDRESSES):
        return _load("openai_http", model, {**options, "address": backend}, native)
    if backend not in available_backends():
        known = ", ".join(available_backends())
        raise ConfigError(
            f"there is no backend {backend!r}; the backends are: {known}, or the address of a "
            "server, such as 'http://localhost:8000'"
        )
    return _load(backend, model, options, native)


def _load(
    backend: str, model: str, options: Mapping[str, Any], native: Mapping[str, Any]
) -> Inverter:
    try:
        module = import_module(f"{__name__}.{backend}")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(backend)
        how = "with pip" if extra is None else f"with pip install 'flipfast[{extra}]'"
        raise MissingDependencyError(
            f"the {backend} backend needs the package {error.name}, which is not installed; "
            f"install it {how}, or choose another backend"
        ) from error
    parameters = signature(module.load).parameters
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    unknown = [name for name in options if name not in parameters and not takes_any]
    if unknown:
        raise ConfigError(
            f"the {backend} backend has no option {unknown[0]!r}, here "
            f"{options[unknown[0]]!r}: leave it out"
        )
    known = {name: value for name, value in native.items() if name in parameters}
    inverter: Inverter = module.load(model, **options, **known)
    return inverter
