"""What is wrong with a value that was given, told in the same words everywhere."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flipfast.errors import InputError

_LONGEST = 100  # characters of a value in a message

# repr() itself takes long for a large value, and fails for one that is nested deeply.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _LONGEST
_SHORT.maxlist = _SHORT.maxtuple = 20


def brief(value: object) -> str:
    """A value as a message shows it, in at most 100 characters."""
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def field_found(fields: Mapping[str, object], name: str) -> str:
    """What there is of a field: "role is 3", or "no role among the fields ['content']"."""
    if name in fields:
        return f"{name} is {brief(fields[name])}"
    return f"no {name} among the fields {brief(sorted(fields, key=str))}"


@contextmanager
def named(field: str) -> Iterator[None]:
    """Have an InputError begin with the name of the field that is being read."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{field}: {error}") from None


def as_string(value: object, name: str) -> str:
    """The value, which is a string; InputError where it is none."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, got {brief(value)}")
    return value


def as_string_or_none(value: object, name: str) -> str | None:
    """The value, which is a string or None; InputError where it is neither."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be a string or None, got {brief(value)}")
    return value
