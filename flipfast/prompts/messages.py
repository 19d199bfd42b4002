"""Reads messages, in the forms of several frameworks, as turns of plain text.

- `{"role", "content"}`: content is a string, None, or a list of parts as in OpenAI's APIs.
- `{"from", "value"}`, as ShareGPT has them, with the roles human and gpt.
- items of the Responses API that have no role: function_call, function_call_output, reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flipfast.checks import brief, field_found, named
from flipfast.errors import InputError

MESSAGE = '{"role": ..., "content": ...}'
MESSAGES = f"a list of {MESSAGE} messages"
TOOL_ROLES = ("tool", "function", "observation", "ipython")  # whose turns hold what a tool returned
REASONING = "reasoning"  # the role of an item that holds reasoning alone
_ROLES = {"human": "user", "gpt": "assistant"}
# The key of the text in each type of part; a part of another type, such as an image, has none.
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


class Turn(NamedTuple):
    """One turn of a conversation.

    Attributes:
        role: "user", "assistant", "system", or another as given.
        text: "" if there is none.
        lack: why there is no text; None if there is one, which may be empty.
    """

    role: str
    text: str
    lack: str | None = None


def read_turns(messages: object, *, tool_calls: bool = False) -> list[Turn]:
    """Return one turn per message.

    Args:
        messages: see the module.
        tool_calls: whether an assistant's tool calls are part of its text, as `name(arguments)`
            lines below the rest.

    Raises:
        InputError: a message has a wrong shape.
    """
    turns = []
    for position, message in enumerate(require_list(messages, MESSAGES)):
        with named(f"message {position}"):
            turns.append(_read_turn(message, tool_calls))
    return turns


def require_list(messages: object, wanted: str) -> Sequence[Any]:
    """Return the messages if they are a list, else raise InputError."""
    if not isinstance(messages, (list, tuple)):
        raise InputError(f"expected {wanted}, got {brief(messages)}")
    return messages


def _read_turn(message: object, tool_calls: bool) -> Turn:
    if not isinstance(message, dict):
        raise InputError(f"expected {MESSAGE}, got {brief(message)}")
    role, kind = message.get("role"), message.get("type")
    if role is None and kind == "reasoning":
        return Turn(REASONING, "")
    if role is None and kind == "function_call":
        return _turn("assistant", message, "content", [message], tool_calls)
    if role is None and kind == "function_call_output":
        return _turn("tool", message, "output", [], tool_calls)
    role_key, key = ("from", "value") if role is None and "from" in message else ("role", "content")
    role = message.get(role_key)
    if not isinstance(role, str):
        raise InputError(f'{field_found(message, role_key)}: use a string such as "user"')
    if role == "function_call":  # LLaMA-Factory's name for an assistant that calls a tool
        return _turn("assistant", {}, key, [message.get(key)], tool_calls)
    return _turn(_ROLES.get(role, role), message, key, _calls(message), tool_calls)


def _turn(
    role: str, message: Mapping[str, Any], key: str, calls: Sequence[Any], tool_calls: bool
) -> Turn:
    """Make the turn of a message that has its content under `key`."""
    content = message.get(key)
    text = _read_content(message.get("refusal") if content is None else content, key)
    if calls and tool_calls:
        return Turn(role, "\n".join([*([text] if text else []), *map(_call_text, calls)]))
    if text is not None and text.strip():
        return Turn(role, text)
    if calls:
        return Turn(
            role, "", "it has only tool calls, which count as text with the option tool_calls"
        )
    reasoning = next((name for name in _REASONING_KEYS if message.get(name)), None)
    if reasoning is not None:
        return Turn(role, "", f"its {key} is empty beside its {reasoning}")
    if text is None:
        return Turn(role, "", f"it has no text: {field_found(message, key)}")
    return Turn(role, text)


def _calls(message: Mapping[str, Any]) -> list[Any]:
    given = message.get("tool_calls") or message.get("function_call")
    return list(given) if isinstance(given, (list, tuple)) else [given] if given else []


def _call_text(call: object) -> str:
    if isinstance(call, str):
        return call
    if isinstance(call, dict):
        function = call.get("function")
        inner = function if isinstance(function, dict) else call
        name, arguments = inner.get("name"), inner.get("arguments")
        if isinstance(name, str):
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
            return f"{name}({text})"
    raise InputError(f'a tool call is {brief(call)}: use {{"name": ..., "arguments": ...}}')


def _read_content(content: object, key: str) -> str | None:
    """Return the text of a message's content; None if there is none, not even an empty one."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise InputError(f"{key} is {brief(content)}: use text, None or a list of parts")
    texts = [text for text in map(_read_part, content) if text is not None]
    return "".join(texts) if texts else None


def _read_part(part: object) -> str | None:
    """Return the text of one part; None for an image or a sound."""
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InputError(
            f'content has the part {brief(part)}: use {{"type": "text", "text": "..."}}'
        )
    key = _TEXT_KEYS.get(part["type"])
    text = part.get(key or "text")
    if key is None and not (isinstance(text, str) and text):
        return None
    if key is None or not isinstance(text, str):
        known = ", ".join(_TEXT_KEYS)
        raise InputError(f"content has the part {brief(part)}: texts are in parts of type {known}")
    return text
