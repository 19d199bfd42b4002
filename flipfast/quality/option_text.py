"""Parses options of FlipConfig from a single command-line argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError

_NONE = ("none", "null")
_SWITCH = {"true": True, "false": False}


def read_options(text: str) -> dict[str, Any]:
    """Parse options of FlipConfig from "name=value,name=value", each value to its option's type.

    "none" or "null" stands for None, "true" and "false" for a switch.

    Raises:
        ConfigError: an option does not exist, or does not take the value.
    """
    kinds = get_type_hints(FlipConfig)
    found = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise ConfigError(f"{part!r} is no option: write name=value,name=value")
        if name not in kinds:
            known = ", ".join(field.name for field in fields(FlipConfig))
            raise ConfigError(f"unknown option {name!r}: the options are {known}")
        found[name] = _value(name, value.strip(), get_args(kinds[name]) or (kinds[name],))
    return found


def _value(name: str, text: str, kinds: Sequence[Any]) -> Any:
    if type(None) in kinds and text.lower() in _NONE:
        return None
    for kind in (bool, int, float):
        if kind in kinds:
            try:
                return _SWITCH[text.lower()] if kind is bool else kind(text)
            except (KeyError, ValueError):
                wanted = "true or false" if kind is bool else kind.__name__
                raise ConfigError(f"{name}={text}: {name} takes {wanted}") from None
    return text
