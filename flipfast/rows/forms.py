"""The texts in a row's fields, in the forms in which data comes; docs/cli.md has them in a table.

A row has a question, an answer, and maybe a `context`, and of each the first field that is there
counts; null is absent. Any question goes with any answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flipfast.checks import as_string, as_string_or_none, brief, field_found, named
from flipfast.errors import ContentlessError, InputError
from flipfast.prompts.conversation import (
    before_reply,
    completion_text,
    final_answer,
    final_reply,
    split_messages,
    split_prompt,
    split_system,
)

Fields = Mapping[str, Any]
Question = tuple[str, "str | None"]  # the true instruction, and the context
Response = str | ContentlessError  # the error says why there is no text

_CONVERSATIONS = ("messages", "conversations")
_QUESTIONS = (*_CONVERSATIONS, "instruction", "prompt")
_ANSWERS = ("responses", "response", "completion", "output", "chosen")
FIELDS = (
    "use instruction, prompt or messages, and response, responses, completion, or chosen and "
    "rejected"
)
_PAIR_FIELDS = "a preference has prompt, chosen and rejected"


def read_texts(
    fields: Fields, target: str, tool_calls: bool
) -> tuple[Question, tuple[Response, ...], bool]:
    """Return a row's question, its responses, and whether the row may have several.

    Chosen responses come before rejected ones.

    Args:
        fields: of the row.
        target: of FlipConfig: which part of a conversation is the instruction.
        tool_calls: of FlipConfig.

    Raises:
        InputError: a field is missing or has a wrong shape. A response without a text does not
            raise, but is in its place as an error.
    """
    name = _first(fields, _ANSWERS)
    if name == "chosen":
        candidates = [*_candidates(fields, "chosen"), *_candidates(fields, "rejected")]
        question = _question_of(fields, candidates, target, tool_calls)
    else:
        question = _question(fields, target, tool_calls)
    return question, tuple(_responses(fields, name, tool_calls)), name in ("responses", "chosen")


def read_pair(
    fields: Fields, target: str, tool_calls: bool
) -> tuple[Question, tuple[str, ...], tuple[str, ...]]:
    """Return a preference's question, and its chosen and its rejected responses.

    Args:
        fields, target, tool_calls: as for `read_texts`.

    Raises:
        InputError: there is no chosen response; a response has no text; and as for `read_texts`.
    """
    chosen, rejected = _candidates(fields, "chosen"), _candidates(fields, "rejected")
    if not chosen:
        raise InputError(f"no chosen response: {field_found(fields, 'chosen')}; {_PAIR_FIELDS}")
    texts = []
    for name, candidates in (("chosen", chosen), ("rejected", rejected)):
        with named(name):
            texts.append(tuple(completion_text(one, tool_calls=tool_calls) for one in candidates))
    question = _question_of(fields, [*chosen, *rejected], target, tool_calls)
    return question, texts[0], texts[1]


def _first(fields: Fields, names: Sequence[str]) -> str | None:
    return next((name for name in names if fields.get(name) is not None), None)


def _question(fields: Fields, target: str, tool_calls: bool) -> Question:
    context = as_string_or_none(fields.get("context"), "context")
    name, earlier = _first(fields, _QUESTIONS), None
    if name is None:
        raise InputError(f"{field_found(fields, 'instruction')}: {FIELDS}")
    if name == "instruction":
        instruction = as_string(fields[name], name)
        below = as_string_or_none(fields.get("input"), "input")  # Alpaca's
        if below and below.strip():
            instruction = f"{instruction}\n{below}"
    elif name == "prompt":
        with named(name):
            instruction, earlier = split_prompt(fields[name], target, tool_calls=tool_calls)
    else:
        split = split_system if target == "system" else split_messages
        with named(name):
            instruction, earlier = split(fields[name], tool_calls=tool_calls)
    return instruction, earlier if context is None else context


def _question_of(fields: Fields, candidates: list[Any], target: str, tool_calls: bool) -> Question:
    """Return a preference's question; without one of its own, what its responses answer."""
    if _first(fields, _QUESTIONS) is not None:
        return _question(fields, target, tool_calls)
    if not all(isinstance(candidate, list) for candidate in candidates):
        raise InputError(f"{field_found(fields, 'prompt')}: {_PAIR_FIELDS}")
    context = as_string_or_none(fields.get("context"), "context")
    with named("no prompt, and before the response"):
        found = {
            split_prompt(before_reply(one), target, tool_calls=tool_calls) for one in candidates
        }
    if len(found) > 1:
        raise InputError("no prompt, and the responses answer different ones: give the prompt")
    instruction, earlier = found.pop()
    return instruction, earlier if context is None else context


def _responses(fields: Fields, name: str | None, tool_calls: bool) -> list[Response]:
    if name == "responses":
        if not isinstance(fields[name], list):
            raise InputError(f"responses must be a list, got {brief(fields[name])}")
        several = enumerate(fields[name])
        return [_response(f"responses[{place}]", one, tool_calls) for place, one in several]
    if name == "chosen":
        return [
            _response(side, one, tool_calls)
            for side in ("chosen", "rejected")
            for one in _candidates(fields, side)
        ]
    if name is not None:
        found = _response(name, fields[name], tool_calls)
        # Completions are those of trainers, as in score_chats.
        return [final_answer(found) if name == "completion" and isinstance(found, str) else found]
    empty = next((answer for answer in _ANSWERS if answer in fields), None)
    conversation = _first(fields, _CONVERSATIONS)
    try:
        if conversation is None:
            raise InputError(f"{field_found(fields, 'response')}: {FIELDS}")
        with named(f"no response, and {conversation}"):
            return [final_reply(fields[conversation], tool_calls=tool_calls)]
    except ContentlessError as error:
        return [error]
    except InputError:
        if empty is None:
            raise
        return [ContentlessError(f"{empty} is None")]


def _response(name: str, value: object, tool_calls: bool) -> Response:
    try:
        with named(name):
            return completion_text(value, tool_calls=tool_calls)
    except ContentlessError as error:
        return error


def _candidates(fields: Fields, name: str) -> list[Any]:
    """Return the responses of a field, each a string, a message or a list of messages."""
    value = fields.get(name)
    if value is None:
        return []
    if isinstance(value, (str, dict)) or _is_conversation(value):
        return [value]
    if not isinstance(value, list):
        raise InputError(f"{name} must be a string, messages or a list of such, got {brief(value)}")
    for at, one in enumerate(value):
        if not isinstance(one, str) and not _is_conversation(one):
            raise InputError(f"{name}[{at}] must be a string or messages, got {brief(one)}")
    return value


def _is_conversation(value: Any) -> bool:
    """Return whether a value is meant as a conversation; only its first message is checked."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
