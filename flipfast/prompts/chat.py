"""Applies a model's own chat template to our texts, with slots for untrusted ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flipfast.errors import ConfigError, InputError
from flipfast.prompts.encoding import TextEncoder, without_surrogates

# Llama 3.2's template prints today's date unless given one; a reward must not change from day to
# day. This is the default of Llama 3.1's template.
_DATE = "26 Jul 2024"

Pieces = list["list[int] | str"]  # token ids, with the names of slots between them


class ChatTemplate:
    """Renders messages in the format the model was trained on.

    Attributes:
        encoder: encodes texts that are only parts of a prompt.

    Args:
        tokenizer: a transformers tokenizer backed by the tokenizers library.
        thinking: leave the model's thinking on, if its template has a switch for it.
    """

    def __init__(self, tokenizer: Any, *, thinking: bool = False) -> None:
        self._tokenizer = tokenizer
        self._thinking = thinking
        self.encoder = TextEncoder(tokenizer)

    def pieces(self, system: str | None, user: str, slots: Sequence[str]) -> Pieces:
        """Tokenize a prompt once for all the texts that will fill its slots.

        Args:
            system: the system message, a `str.format` template without fields; None for none.
            user: the user message, a `str.format` template whose fields are the slots.
            slots: their names, of letters and underscores.

        Raises:
            ConfigError: the chat template drops, changes or repeats a slot.
        """
        # Letters only, so that no template trims, escapes or splits a slot's mark.
        marks = {f"FLIPFASTx{name.upper().replace('_', 'x')}xSLOT": name for name in slots}
        pattern = re.compile(f"({'|'.join(marks)})")
        message = user.format(**{name: mark for mark, name in marks.items()})
        text = self._chat(system.format() if system else None, message)
        if pattern.findall(text) != pattern.findall(message):
            raise ConfigError(
                f"the chat template of {self._tokenizer.name_or_path!r} does not keep the "
                f"message it is given: {text[:200]!r}"
            )
        pieces: Pieces = [
            marks[part] if i % 2 else self.encoder.encode_template(part, first=i == 0)
            for i, part in enumerate(pattern.split(text))
        ]
        if not self._tokenizer.chat_template:
            pieces.insert(0, self._leading_ids())
        return pieces

    def message_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokenize a conversation for the model to answer.

        Unlike in a slot, text that spells a special token becomes one.

        Raises:
            InputError: the chat template refuses the conversation.
        """
        if not self._tokenizer.chat_template:
            text = "\n\n".join([*(message["content"] for message in messages), ""])
            return [*self._leading_ids(), *self.encoder.encode_text(text)]
        from jinja2 import TemplateError

        try:
            text = self._apply([dict(message) for message in messages])
        except TemplateError as error:
            raise InputError(f"the model's chat template refuses the messages: {error}") from error
        return list(self._tokenizer(without_surrogates(text), add_special_tokens=False).input_ids)

    def _chat(self, system: str | None, user: str) -> str:
        if not self._tokenizer.chat_template:
            return "\n\n".join([*filter(None, (system, user)), ""])
        message = {"role": "user", "content": user}
        if system is None:
            return self._apply([message])
        from jinja2 import TemplateError

        try:
            return self._apply([{"role": "system", "content": system}, message])
        except TemplateError:  # Gemma 2 and some Mistral templates refuse a system message
            return self._apply([{"role": "user", "content": f"{system}\n\n{user}"}])

    def _apply(self, messages: list[dict[str, str]]) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self._thinking,  # the switch of Qwen 3 and most others
                thinking=self._thinking,  # the switch of Granite and DeepSeek
                date_string=_DATE,
            )
        )

    def _leading_ids(self) -> list[int]:
        """Return the begin-of-text token if the tokenizer itself puts it before a text, else []."""
        bos = self._tokenizer.bos_token_id
        return [bos] if bos is not None and self._tokenizer("a").input_ids[0] == bos else []
