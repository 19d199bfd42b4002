"""Splits conversations into the instruction to infer, its context, and the response to score.

`messages` has the forms in which messages may come. The published code works on one string
instead; `split_query` and `final_answer` do the same as it does, for parity.
"""

from collections.abc import Sequence
from typing import Any

from flipfast.checks import as_string, as_string_or_none, brief, named
from flipfast.errors import ContentlessError, InputError
from flipfast.prompts.messages import (
    MESSAGES,
    REASONING,
    TOOL_ROLES,
    Turn,
    read_turns,
    require_list,
)


def split_messages(messages: Sequence[Any], *, tool_calls: bool = False) -> tuple[str, str | None]:
    """Return (instruction, context) of a conversation.

    The instruction is the whole last user turn. The context is every turn before it, system turns
    included, as "role: content" lines; None if there are none. Turns after the last user turn are
    left out.

    Args:
        messages: see `prompts.messages`.
        tool_calls: see `read_turns`.

    Raises:
        InputError: a message has a wrong shape, there is no user turn, or the last one has no text.
    """
    turns = read_turns(messages, tool_calls=tool_calls)
    last = _last(turns, "user")
    return _required(turns[last]), _render(turns[:last]) if last else None


def split_system(messages: Sequence[Any], *, tool_calls: bool = False) -> tuple[str, str]:
    """Return (system_prompt, context) for inferring only the system prompt.

    The context is the user prompt, or in a longer conversation all turns up to the last user turn
    as "role: content" lines. Several system turns are joined by line breaks. Raises InputError for
    a wrong shape, if a system or user turn is missing, or if a system turn has no text.
    """
    turns = read_turns(messages, tool_calls=tool_calls)
    _last(turns, "system")
    system = "\n".join(_required(turn) for turn in turns if turn.role == "system")
    rest = [turn for turn in turns if turn.role != "system"]
    rest = rest[: _last(rest, "user") + 1]
    return system, rest[0].text if len(rest) == 1 else _render(rest)


def split_prompt(prompt: Any, target: str, *, tool_calls: bool = False) -> tuple[str, str | None]:
    """Return (instruction, context) of a prompt.

    Args:
        prompt: a string, which has no context, or messages, which are split.
        target: "instruction", or "system" for the system prompt instead.
        tool_calls: see `read_turns`.

    Raises:
        InputError: the prompt has a wrong shape or lacks a turn.
    """
    if isinstance(prompt, str):
        return prompt, None
    require_list(prompt, f"a string or {MESSAGES}")
    split = split_system if target == "system" else split_messages
    return split(prompt, tool_calls=tool_calls)


def chat_texts(
    prompt: Any, completion: Any, target: str, tool_calls: bool = False
) -> tuple[str, str, str | None]:
    """Return (instruction, response, context) of a trainer's prompt and completion.

    Args:
        prompt: a string, or messages, which are split.
        completion: a string, a message or messages; the response is the `final_answer` of its text.
        target: "instruction", or "system" for the system prompt instead.
        tool_calls: see `read_turns`.

    Raises:
        ContentlessError: the completion has no text.
        InputError: one of them has a wrong shape or lacks a turn.
    """
    with named("prompt"):
        instruction, context = split_prompt(prompt, target, tool_calls=tool_calls)
    with named("completion"):
        response = final_answer(completion_text(completion, tool_calls=tool_calls))
    return instruction, response, context


def checked_texts(
    instruction: object, response: object, context: object
) -> tuple[str, str, str | None]:
    """Return (instruction, response, context) unchanged.

    Raises:
        ContentlessError: the response is None.
        InputError: one of them is not a text; or it is the response itself, if that is an error.
    """
    asked = as_string(instruction, "the instruction")
    if isinstance(response, InputError):
        raise response
    if response is None:
        raise ContentlessError("the response is None")
    return (
        asked,
        as_string(response, "the response"),
        as_string_or_none(context, "the context"),
    )


def completion_text(completion: object, *, tool_calls: bool = False) -> str:
    """Return the text of a completion: a string, a message, or the last assistant turn of messages.

    Args:
        completion: see `prompts.messages`. A string may be empty.
        tool_calls: see `read_turns`; with it, turns of tools may follow the calls.

    Raises:
        ContentlessError: it is None or an empty list; it ends in a tool's turn or in reasoning; or
            its last assistant turn has no text: no content, only tool calls, only reasoning.
        InputError: it has another wrong shape, or no assistant turn.
    """
    if completion is None or (isinstance(completion, (list, tuple)) and not completion):
        raise ContentlessError(f"there is no text in {completion!r}")
    if isinstance(completion, str):
        return completion
    if isinstance(completion, dict):
        completion = [completion]
    require_list(completion, f"a string or {MESSAGES}")
    turns = read_turns(completion, tool_calls=tool_calls)
    role = turns[-1].role
    if role == REASONING or (role in TOOL_ROLES and not tool_calls):
        raise ContentlessError(
            f"it ends in a turn of the role {role!r}, without an answer after it"
        )
    last = turns[_last(turns, "assistant")]
    if last.lack is not None:
        raise ContentlessError(last.lack)
    return last.text


def final_reply(messages: Sequence[Any], *, tool_calls: bool = False) -> str:
    """Return the text of the reply that a conversation ends with; see `completion_text`.

    Raises:
        ContentlessError: the reply has no text.
        InputError: a message has a wrong shape, or the last turn is that of a user or the system.
    """
    turns = read_turns(messages)
    if not turns or turns[-1].role not in ("assistant", REASONING, *TOOL_ROLES):
        roles = brief([turn.role for turn in turns][-3:])
        raise InputError(f"the last turns have the roles {roles}: the last must be the assistant's")
    return completion_text(messages, tool_calls=tool_calls)


def before_reply(messages: Sequence[Any]) -> Sequence[Any]:
    """Return the messages before the last assistant turn; InputError if there is none."""
    return messages[: _last(read_turns(messages), "assistant")]


def assistant_texts(messages: object) -> list[str]:
    """Return the text of every assistant turn, in order, "" for one without.

    Raises InputError for a wrong shape and if there is no assistant turn.
    """
    turns = read_turns(messages)
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


def _last(turns: list[Turn], role: str) -> int:
    for index in range(len(turns) - 1, -1, -1):
        if turns[index].role == role:
            return index
    roles = brief([*dict.fromkeys(turn.role for turn in turns)])
    raise InputError(f"no {role} turn in a conversation with the roles {roles}: add one")


def _required(turn: Turn) -> str:
    if turn.lack is not None:
        raise InputError(f"the {turn.role} turn: {turn.lack}")
    return turn.text


def _render(turns: list[Turn]) -> str:
    return "\n".join(f"{turn.role}: {turn.text}" for turn in turns if turn.role != REASONING)
