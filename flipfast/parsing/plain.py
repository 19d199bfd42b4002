"""The parser for models that are asked only for the instruction, without JSON."""

from flipfast.parsing.robust import parse_fields
from flipfast.parsing.wrappers import (
    drop_answer_tags,
    drop_leading_think,
    drop_think,
    strip_fence,
    strip_label,
    strip_quotes,
)


def parse_plain(text: str, think_open: bool = True) -> tuple[str, str]:
    """Return (instruction, status) from an output that should be only the instruction.

    Think blocks, answer tags, a code fence, a leading label ("Instruction:") and one pair of
    enclosing quotes are stripped. An object with a key for the instruction, though not asked for,
    is read as in `parse_robust`. think_open: whether the prompt may have opened a think block, so
    that everything up to an unopened `</think>` is thinking. status: "ok" for text, "empty" without
    any, "unparsed" if a think block never closes. Only the caller knows whether the text was cut
    off, from the number of tokens.
    """
    body, reasoning_only = drop_leading_think(text)
    answer = drop_answer_tags(drop_think(body, think_open))
    if reasoning_only or answer.lstrip().startswith(("{", "[", "```")):
        found = parse_fields(body)
        if found:
            return found
    if reasoning_only:
        return "", "unparsed"
    instruction = strip_quotes(strip_label(strip_fence(answer)))
    return instruction, "ok" if instruction else "empty"
