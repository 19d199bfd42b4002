"""Finds out, with marker texts, how a chat template takes its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flipfast.errors import ConfigError
from flipfast.prompts.jinja_program import JinjaProgram, RefusalError

_ALL_ROLES = ("system", "user", "assistant")
# Quotes, brackets and a line break: what writing as JSON, HTML or a Python value would change.
_SYSTEM = 'FLIPFAST\'s "system" marker,\nin <two> & more lines'
_USER = 'FLIPFAST\'s "user" marker,\nin <two> & more lines'
_ANSWER = "FLIPFASTxANSWERxMARKER"


@dataclass(frozen=True)
class MessageForm:
    """The form in which a template reads messages.

    Attributes:
        roles_in_parts: whose contents are lists of parts instead of strings.
        folds_system: put system messages in front of the next user message.
    """

    roles_in_parts: tuple[str, ...] = ()
    folds_system: bool = False

    def apply(self, messages: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Put messages with strings as contents into this form."""
        return [
            {"role": message["role"], "content": self._content(message)}
            for message in (_folded(messages) if self.folds_system else messages)
        ]

    def _content(self, message: Mapping[str, str]) -> Any:
        content = message["content"]
        in_parts = message["role"] in self.roles_in_parts
        return [{"type": "text", "text": content}] if in_parts else content


# The first that keeps all texts is taken.
_FORMS = (
    MessageForm(),
    MessageForm(_ALL_ROLES),  # models with images
    MessageForm(("user", "assistant")),
    MessageForm(folds_system=True),  # Gemma 2 raises an error on a system message, Phi-3 drops it
    MessageForm(_ALL_ROLES, folds_system=True),
)


def find_form(program: JinjaProgram) -> MessageForm:
    """Return the first form whose texts the template writes as they are.

    Raises:
        ConfigError: it does so in none.
    """
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    for form in _FORMS:
        try:
            text = program.render(form.apply(messages))
        except RefusalError:
            continue
        if text.count(_USER) == 1 and _SYSTEM in text:
            return form
    try:
        [message] = MessageForm(folds_system=True).apply(messages)
        raise unkept(program, message["content"], program.render([message]))
    except RefusalError as error:
        raise ConfigError(str(error)) from error


def unkept(program: JinjaProgram, message: str, text: str) -> RefusalError:
    """Make the error for a message that is not once, as it is, in what a template makes of it."""
    return RefusalError(
        f"{program.name} does not keep the message {message[:200]!r}: it makes {text[:200]!r} of "
        "it; the model needs a template that writes each message once, as it is"
    )


def missing_header(program: JinjaProgram, form: MessageForm) -> str | None:
    """Return what a prompt lacks of the text before an answer, if the template never writes it.

    Some templates write nothing there but the end of the user's message: those of Mistral. Their
    prompts lack nothing.

    Returns:
        None if the prompt is whole, "" if the template cannot tell.
    """
    messages = [{"role": "user", "content": _USER}]
    try:
        prompt = program.render(form.apply(messages))
        if prompt != program.render(form.apply(messages), add_generation_prompt=False):
            return None
    except RefusalError:  # of a user message alone, or of the switch: nothing to compare
        return None
    messages.append({"role": "assistant", "content": _ANSWER})
    try:
        header, answer, _ = program.render(form.apply(messages)).partition(_ANSWER)
    except RefusalError:
        return ""
    if not answer:
        return ""
    return None if prompt.startswith(header.rstrip()) else header.removeprefix(prompt)


def _folded(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    folded: list[Mapping[str, str]] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(message["content"])
        elif message["role"] == "user":
            folded.append({"role": "user", "content": "\n\n".join([*held, message["content"]])})
            held = []
        else:
            folded.append(message)
    if held:
        folded.append({"role": "user", "content": "\n\n".join(held)})
    return folded
