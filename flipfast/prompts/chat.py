"""Applies a model's own chat template to our texts, with slots for untrusted ones."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flipfast.errors import ConfigError, InputError
from flipfast.prompts.encoding import TextEncoder, without_surrogates
from flipfast.prompts.jinja_program import JinjaProgram, RefusalError, load_program
from flipfast.prompts.probing import MessageForm, find_form, missing_header, unkept

_log = logging.getLogger(__name__)

Pieces = list["list[int] | str"]  # token ids, with the names of slots between them


class ChatTemplate:
    """Renders messages in the format the model was trained on.

    A template that reads messages as lists of parts gets those. Where it refuses or loses system
    messages, their text goes in front of the user's. Logs a warning if prompts end without what
    the model has before an answer.

    Attributes:
        encoder: encodes texts that are only parts of a prompt.

    Args:
        tokenizer: a transformers tokenizer backed by the tokenizers library.
        date: what the template takes for today, such as "2024-07-26".
        thinking: leave the model's thinking on, if its template has a switch for it.

    Raises:
        ModelLoadError: the template cannot be read, or it is not clear which of several to take.
        ConfigError: the template drops, changes or repeats messages.
    """

    def __init__(self, tokenizer: Any, *, date: str, thinking: bool = False) -> None:
        self._tokenizer = tokenizer
        self.encoder = TextEncoder(tokenizer)
        self._program = load_program(tokenizer, thinking=thinking, date=date)
        if self._program is not None:
            self._form = find_form(self._program)
            _warn_without_header(self._program, self._form)

    def pieces(self, system: str | None, user: str, slots: Sequence[str]) -> Pieces:
        """Tokenize a prompt once for all the texts that will fill its slots.

        Args:
            system: the system message, a `str.format` template without fields; None for none.
            user: the user message, a `str.format` template whose fields are the slots.
            slots: their names, of letters and underscores.

        Raises:
            ConfigError: the chat template drops, changes or repeats a message.
        """
        # Letters only, so that no template trims, escapes or splits a slot's mark.
        marks = {f"FLIPFASTx{name.upper().replace('_', 'x')}xSLOT": name for name in slots}
        pattern = re.compile(f"({'|'.join(marks)})")
        message = {"role": "user", "content": user.format(**{marks[mark]: mark for mark in marks})}
        messages = [{"role": "system", "content": system.format()}] if system else []
        try:
            text = self._render([*messages, message], kept=("system", "user"))
            if self._program and pattern.findall(text) != pattern.findall(message["content"]):
                raise unkept(self._program, message["content"], text)
        except RefusalError as error:
            raise ConfigError(str(error)) from error
        pieces: Pieces = [
            marks[part] if i % 2 else self.encoder.encode_template(part, first=i == 0)
            for i, part in enumerate(pattern.split(text))
        ]
        if self._program is None:
            pieces.insert(0, self._leading_ids())
        return pieces

    def message_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokenize a conversation for the model to answer.

        Unlike in a slot, text that spells a special token becomes one.

        Raises:
            InputError: see `text`.
        """
        text = self.text(messages)
        if self._program is None:
            return [*self._leading_ids(), *self.encoder.encode_text(text)]
        return list(self._tokenizer(without_surrogates(text), add_special_tokens=False).input_ids)

    def text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write a conversation for the model to answer.

        Raises:
            InputError: the chat template refuses the conversation, or loses a user's message.
        """
        # Of the others' some templates keep a part: an answer loses its think block.
        try:
            return self._render(messages, kept=("user",))
        except RefusalError as error:
            raise InputError(str(error)) from error

    def _render(self, messages: Sequence[Mapping[str, str]], kept: tuple[str, ...]) -> str:
        """Write messages; RefusalError if the template loses one of a role that is to be kept."""
        if self._program is None:
            return "\n\n".join([*(message["content"] for message in messages), ""])
        text = self._program.render(self._form.apply(messages))
        for message in messages:
            if message["role"] in kept and message["content"].strip() not in text:
                raise unkept(self._program, message["content"], text)
        return text

    def _leading_ids(self) -> list[int]:
        """Return the begin-of-text token if the tokenizer itself puts it before a text, else []."""
        bos = self._tokenizer.bos_token_id
        return [bos] if bos is not None and self._tokenizer("a").input_ids[0] == bos else []


def _warn_without_header(program: JinjaProgram, form: MessageForm) -> None:
    missing = missing_header(program, form)
    if missing is not None:
        _log.warning(
            "%s ignores add_generation_prompt: prompts lack %s before the answer, and the model "
            "may go on with the user's message",
            program.name,
            repr(missing) if missing else "what the model was trained to have",
        )
