"""Extracts the response from a trainer's decoded rollout."""

import re

from flipfast.checks import brief
from flipfast.errors import InputError

# As tokenizers write them: <|im_end|>, </s>, <eos>, <end_of_turn>, and DeepSeek's wide bars.
_BAR = r"[|\uff5c]"
_SPECIAL = rf"(?:<{_BAR}[^<>|\uff5c\s]{{1,40}}{_BAR}>|</s>|<(?:eos|pad|end_of_turn)>)"
_TRAILING = re.compile(rf"{_SPECIAL}(?:\s*{_SPECIAL})*\s*\Z")
_ANCHOR = 64  # characters at a prompt's end used to find it


def strip_special(text: str) -> str:
    """Return a text without the special tokens at its end; others may be part of its content."""
    return _TRAILING.sub("", text)


def answer_of(response: object) -> object:
    """Return a response without special tokens at its end; the scorer refuses what is no text."""
    return strip_special(response) if isinstance(response, str) else response


def split_response(query: object, prompt: object) -> str:
    """Return the response of a decoded rollout, without the special tokens at its end.

    Args:
        query: prompt and response.
        prompt: the prompt. The query may lack its beginning, if the trainer cut a prompt that was
            too long.

    Raises:
        InputError: one of them is not a string, or the query does not contain the prompt's end.
    """
    if not isinstance(query, str) or not isinstance(prompt, str):
        raise InputError(
            f"a query and its prompt must be strings, got {brief(query)}, {brief(prompt)}"
        )
    if query.startswith(prompt):
        return strip_special(query[len(prompt) :])
    anchor = prompt[-_ANCHOR:]
    ends = [at.start() + len(anchor) for at in re.finditer(f"(?={re.escape(anchor)})", query)]
    ends = [end for end in ends if prompt.endswith(query[:end])]
    if not ends:
        raise InputError(
            f"the query does not begin with its prompt, which ends in {anchor!r}: the tokenizer "
            "does not decode to the text that it was given"
        )
    return strip_special(query[ends[-1] :])
