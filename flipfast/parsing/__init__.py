"""Finds the inferred instruction in a model's output; one module per parser, no heavy imports."""

from collections.abc import Callable

from flipfast.errors import ConfigError, InputError
from flipfast.parsing.plain import parse_plain
from flipfast.parsing.reference import parse_reference
from flipfast.parsing.robust import parse_robust

__all__ = ["extract_instruction", "parse_plain", "parse_reference", "parse_robust"]

_PARSERS: dict[str, Callable[[str], tuple[str, str]]] = {
    "robust": parse_robust,
    "reference": parse_reference,
    "plain": parse_plain,
}


def extract_instruction(
    text: str, parser: str = "robust", *, think_open: bool = True
) -> tuple[str, str]:
    """Return (instruction, status) for one model output.

    text: the decoded output, any string. parser: "robust" finds the instruction in well- and
    ill-formed JSON; "reference" does what the published parser does, quirks included; "plain"
    expects only the instruction. think_open: for "plain", whether the prompt may have opened a
    think block that the output only closes.

    status: "ok" (clean output), "recovered" (found, but the output or the value's backslashes
    needed repair), "prose" (no object could be read: the whole text is taken), "truncated" (the
    instruction's value was cut off; its beginning is returned), "empty" (no text, or an empty
    value), "unparsed" (text, but no instruction in it). The last two come with "", except that the
    reference parser keeps a value of white space.

    Raises ConfigError for an unknown parser and InputError if text is not a string; no string
    makes it raise.
    """
    parse = _PARSERS.get(parser)
    if parse is None:
        raise ConfigError(f"unknown parser {parser!r}: use one of {', '.join(_PARSERS)}")
    if not isinstance(text, str):
        raise InputError(f"a model output must be a string, got {type(text).__name__}: {text!r}")
    if parser == "plain":
        return parse_plain(text, think_open)
    return parse(text)
