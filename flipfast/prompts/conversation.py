"""Splits conversations into the instruction to infer, its context, and the response to score.

Messages are lists of {"role", "content"}; content is a string, None, or a list of parts, of which
only those of type "text" are used. The published code works on one string instead; `split_query`
and `final_answer` do the same as it does, for parity.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flipfast.checks import as_string, as_string_or_none, brief, field_found, named
from flipfast.errors import InputError

_MESSAGE = '{"role": ..., "content": ...}'
_MESSAGES = f"a list of {_MESSAGE} messages"


class _Turn(NamedTuple):
    role: str
    text: str


def split_messages(messages: Sequence[Any]) -> tuple[str, str | None]:
    """Return (instruction, context) of a conversation.

    The instruction is the whole last user turn. The context is every turn before it, system turns
    included, as "role: content" lines; None if there are none. Turns after the last user turn are
    left out. Raises InputError for a wrong shape or if there is no user turn.
    """
    turns = _read_turns(messages)
    last = _last(turns, "user")
    return turns[last].text, _render(turns[:last]) if last else None


def split_system(messages: Sequence[Any]) -> tuple[str, str]:
    """Return (system_prompt, context) for inferring only the system prompt.

    The context is the user prompt, or in a longer conversation all turns up to the last user turn
    as "role: content" lines. Several system turns are joined by line breaks. Raises InputError for
    a wrong shape or if a system or user turn is missing.
    """
    turns = _read_turns(messages)
    _last(turns, "system")
    system = "\n".join(turn.text for turn in turns if turn.role == "system")
    rest = [turn for turn in turns if turn.role != "system"]
    rest = rest[: _last(rest, "user") + 1]
    return system, rest[0].text if len(rest) == 1 else _render(rest)


def split_prompt(prompt: Any, target: str) -> tuple[str, str | None]:
    """Return (instruction, context) of a prompt.

    Args:
        prompt: a string, which has no context, or messages, which are split.
        target: "instruction", or "system" for the system prompt instead.

    Raises:
        InputError: the prompt has a wrong shape or lacks a turn.
    """
    if isinstance(prompt, str):
        return prompt, None
    _require_list(prompt, f"a string or {_MESSAGES}")
    return (split_system if target == "system" else split_messages)(prompt)


def chat_texts(prompt: Any, completion: Any, target: str) -> tuple[str, str, str | None]:
    """Return (instruction, response, context) of a trainer's prompt and completion.

    Args:
        prompt: a string, or messages, which are split.
        completion: a string, or messages; the response is the `final_answer` of its text.
        target: "instruction", or "system" for the system prompt instead.

    Raises:
        InputError: one of them has a wrong shape or lacks a turn.
    """
    with named("completion"):
        response = final_answer(completion_text(completion))
    with named("prompt"):
        instruction, context = split_prompt(prompt, target)
    return instruction, response, context


def checked_texts(
    instruction: object, response: object, context: object
) -> tuple[str, str, str | None]:
    """Return (instruction, response, context) unchanged; InputError if one is not a text."""
    return (
        as_string(instruction, "the instruction"),
        as_string(response, "the response"),
        as_string_or_none(context, "the context"),
    )


def completion_text(completion: object) -> str:
    """Return the text of a completion: a string, or the last assistant turn of a message list.

    None, as a completion or as a turn's content, gives "". Raises InputError for any other shape
    and if there is no assistant turn.
    """
    if completion is None:
        return ""
    if isinstance(completion, str):
        return completion
    _require_list(completion, f"a string or {_MESSAGES}")
    turns = _read_turns(completion)
    return turns[_last(turns, "assistant")].text


def assistant_texts(messages: object) -> list[str]:
    """Return the text of every assistant turn, in order, "" for one without.

    Raises InputError for a wrong shape and if there is no assistant turn.
    """
    turns = _read_turns(messages)
    _last(turns, "assistant")
    return [turn.text for turn in turns if turn.role == "assistant"]


def join_turns(before: str, text: str) -> str:
    """Return what is scored of several turns: their texts, with an empty line between them."""
    return f"{before}\n\n{text}" if before and text else before + text


def final_answer(text: str) -> str:
    """Return the part of a reply that the published RL code scores.

    That is the text between the first `<answer>` and `</answer>`, else after the first `</think>`,
    else without `<|assistant|>`, stripped; else the text unchanged. Raises InputError if text is
    not a string.
    """
    _, _, opened = as_string(text, "a reply").partition("<answer>")
    answer, closing, _ = opened.partition("</answer>")
    if closing:
        return answer.strip()
    _, closing, answer = text.partition("</think>")
    if closing:
        return answer.strip()
    return text.replace("<|assistant|>", "").strip() if "<|assistant|>" in text else text


def split_query(query: str | None, label: str) -> tuple[str, str]:
    """Return (ground_truth, context) of a conversation in one string, as the published code does.

    It finds the last line that begins with "user", in any case, and contains a colon: the ground
    truth is only the rest of that line, the context all lines before it. Without such a line the
    ground truth is `label` and the context the whole query. Raises InputError if query is neither
    a string nor None.
    """
    if query is None:
        return label, ""
    lines = as_string(query, "a query").split("\n")
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index].strip()
        if line.lower().startswith("user") and ":" in line:
            return line.partition(":")[2].strip(), "\n".join(lines[:index])
    return label, query


def _read_turns(messages: object) -> list[_Turn]:
    turns = []
    for position, message in enumerate(_require_list(messages, _MESSAGES)):
        with named(f"message {position}"):
            turns.append(_read_turn(message))
    return turns


def _require_list(messages: object, wanted: str) -> Sequence[Any]:
    if not isinstance(messages, (list, tuple)):
        raise InputError(f"expected {wanted}, got {brief(messages)}")
    return messages


def _read_turn(message: object) -> _Turn:
    if not isinstance(message, dict):
        raise InputError(f"expected {_MESSAGE}, got {brief(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise InputError(f'{field_found(message, "role")}: use a string such as "user"')
    if content is None or isinstance(content, str):
        return _Turn(role, content or "")
    if not isinstance(content, (list, tuple)):
        raise InputError(f"content is {brief(content)}: use text, None or a list of parts")
    return _Turn(role, "".join(map(_read_part, content)))


def _read_part(part: object) -> str:
    """Return the text of one part; that of an image or a sound is empty."""
    if isinstance(part, dict) and isinstance(part.get("type"), str):
        text = part.get("text") if part["type"] == "text" else ""
        if isinstance(text, str):
            return text
    raise InputError(f'content has the part {brief(part)}: use {{"type": "text", "text": "..."}}')


def _last(turns: list[_Turn], role: str) -> int:
    for index in range(len(turns) - 1, -1, -1):
        if turns[index].role == role:
            return index
    roles = brief([*dict.fromkeys(turn.role for turn in turns)])
    raise InputError(f"no {role} turn in a conversation with the roles {roles}: add one")


def _render(turns: list[_Turn]) -> str:
    return "\n".join(f"{turn.role}: {turn.text}" for turn in turns)
