"""The parser for models that are asked for the instruction alone, without JSON."""

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
    """Return (instruction, status) from an output that should be the instruction and no more.

    Think blocks, answer tags, a code fence, a leading label ("Instruction:") and one pair of
    enclosing quotes are stripped. An object with a key for the instruction, given against the
    request, is read as `parse_robust` reads it. think_open: whether the prompt may have opened a
    think block, so that all up to a `</think>` that was not opened here is thought. status: "ok"
    for text, "empty" without any, "unparsed" where a think block never closes. Whether the text
    was cut off only the caller knows, from the number of tokens.
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
