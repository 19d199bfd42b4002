"""Model families: one file each, found by name and imported when a model needs it.

A family is a module with

    ARCHITECTURES: tuple[str, ...]                     # as in a config.json's "architectures"
    spec(config: Mapping[str, Any]) -> DecoderSpec     # from the contents of config.json

and its name is that of its architectures up to the "For", in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.spec import DecoderSpec

__all__ = ["available_families", "read_spec"]


def available_families() -> list[str]:
    """Sorted names of the families in this folder; imports none of them."""
    names = (module.name for module in iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def read_spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder that a config.json describes.

    Raises:
        UnsupportedModelError: its family, or a feature that it needs, is not supported here.
        ModelLoadError: a field is missing or invalid.
    """
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise UnsupportedModelError(
            f"the field 'architectures' is {architectures!r}, not a list of names"
        )
    architecture = str(architectures[0])
    family = architecture.split("For")[0].lower()
    if family in available_families():
        module = import_module(f"{__name__}.{family}")
        if architecture in module.ARCHITECTURES:
            spec: DecoderSpec = module.spec(config)
            return spec
    known = ", ".join(available_families())
    raise UnsupportedModelError(f"{architecture} is of no family known here; known are: {known}")
