"""Checks of input values, with the same wording of errors everywhere."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flipfast.errors import InputError

_LONGEST = 100  # characters of a value in a message

# Plain repr() is slow for a large value, and fails for a deeply nested one.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _LONGEST
_SHORT.maxlist = _SHORT.maxtuple = 20


def brief(value: object) -> str:
    """Format a value for a message, in at most 100 characters."""
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def field_found(fields: Mapping[str, object], name: str) -> str:
    """Describe a field for a message: "role is 3", or "no role among the fields ['content']"."""
    if name in fields:
        return f"{name} is {brief(fields[name])}"
    return f"no {name} among the fields {brief(sorted(fields, key=str))}"


@contextmanager
def named(field: str) -> Iterator[None]:
    """Prefix any InputError raised inside with the name of the field being read."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{field}: {error}") from None


def as_string(value: object, name: str) -> str:
    """Return the value if it is a string, else raise InputError."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, got {brief(value)}")
    return value


def as_string_or_none(value: object, name: str) -> str | None:
    """Return the value if it is a string or None, else raise InputError."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be a string or None, got {brief(value)}")
    return value
