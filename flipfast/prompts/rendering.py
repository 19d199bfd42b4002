"""From a response and its context to the token ids of a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flipfast.errors import ConfigError, InputError
from flipfast.prompts.encoding import TextEncoder
from flipfast.prompts.templates import PromptTemplate

# Stand-ins for the two texts while the chat template is rendered; letters only, so that no
# template trims, escapes or splits them.
_RESPONSE, _CONTEXT = "FLIPFASTxRESPONSExSLOT", "FLIPFASTxCONTEXTxSLOT"
_SLOTS = re.compile(f"({_RESPONSE}|{_CONTEXT})")

# Llama 3.2's template prints today's date unless it is given one; a reward must not change
# with the day. This is the default of Llama 3.1's template.
_DATE = "26 Jul 2024"

_GAP = "\n[...]\n"
_SMALLEST_ROOM = 16


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt ready for an inverter.

    Attributes:
        token_ids: the whole prompt.
        cut: whether the response or the context lost its middle to fit.
    """

    token_ids: list[int]
    cut: bool


class PromptRenderer:
    """Renders one prompt template with a model's own chat template.

    The pieces of the template are tokenized once, apart from the texts, so the prefix before
    the first text is token-identical in every prompt.

    Attributes:
        encoder: of texts that are no prompts by themselves.

    Args:
        tokenizer: a transformers tokenizer backed by the tokenizers library.
        template: the prompt's texts.
        thinking: leave the model's thinking switched on, where its template has a switch.
        max_prompt_tokens: the longest prompt, in tokens, template included.
        max_response_tokens: a tighter bound on the response alone, or None.

    Raises:
        ConfigError: the chat template drops or repeats a text, or the template alone leaves no
            room for a response.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: PromptTemplate,
        *,
        thinking: bool,
        max_prompt_tokens: int,
        max_response_tokens: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._thinking = thinking
        self._max_prompt_tokens = max_prompt_tokens
        self._max_response_tokens = max_response_tokens
        self.encoder = TextEncoder(tokenizer)
        self._gap = self.encoder.encode_text(_GAP)
        self._without_context = self._pieces(template.user)
        self._with_context = (
            self._pieces(template.user_with_context) if template.user_with_context else None
        )

    def render(
        self, response: str, context: str | None = None, *, reserved: int = 0
    ) -> RenderedPrompt:
        """Build the prompt for one response.

        Args:
            response: the text to invert; its middle is cut where it is too long.
            context: what came before the response, or None; empty counts as None.
            reserved: tokens that will follow the prompt, within the longest prompt's length.

        Raises:
            InputError: what is reserved leaves no room for the response.
            ConfigError: there is a context and the template has no place for it.
        """
        texts = {_RESPONSE: self.encoder.encode_text(response)}
        pieces = self._without_context
        if context:
            if self._with_context is None:
                raise ConfigError(
                    f"the prompt {self._template.style!r} has no {{context}}, and a context of "
                    f"{len(context)} characters was given: use style='conversation'"
                )
            pieces = self._with_context
            texts[_CONTEXT] = self.encoder.encode_text(context)
        room = self._room(pieces) - reserved
        if sum(map(len, texts.values())) > room and room < _SMALLEST_ROOM:
            raise InputError(
                f"the prompt's {self._max_prompt_tokens - room - reserved} tokens and the "
                f"{reserved} to follow it leave room for {room} tokens of response within "
                f"{self._max_prompt_tokens}"
            )
        fitted = self._fit(texts, room)
        ids = [i for piece in pieces for i in (fitted[piece] if isinstance(piece, str) else piece)]
        return RenderedPrompt(ids, cut=fitted != texts)

    def prefixes(self) -> list[list[int]]:
        """What every prompt starts with: token ids before the first text, with context and not."""
        starts = []
        for pieces in filter(None, (self._without_context, self._with_context)):
            start: list[int] = []
            for piece in pieces:
                if isinstance(piece, str):
                    break
                start += piece
            starts.append(start)
        return starts

    def endings(self) -> list[str]:
        """What every prompt ends with: the text behind the last slot, with context and not."""
        pieces = filter(None, (self._without_context, self._with_context))
        return [self._tokenizer.decode(ids) for *_, ids in pieces if not isinstance(ids, str)]

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The prompt that asks the model to answer a conversation, as its own chat template has it.

        Unlike in `render`, a text that spells a special token becomes one.

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
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _pieces(self, user: str) -> list[list[int] | str]:
        """Token ids of the template's parts, with the names of the slots between them."""
        text = self._chat(user.format(response=_RESPONSE, context=_CONTEXT))
        parts = _SLOTS.split(text)
        expected = _SLOTS.findall(user.format(response=_RESPONSE, context=_CONTEXT))
        if _SLOTS.findall(text) != expected:
            raise ConfigError(
                f"the chat template of {self._tokenizer.name_or_path!r} does not keep the "
                f"message it is given: {text[:200]!r}"
            )
        pieces: list[list[int] | str] = [
            part if i % 2 else self.encoder.encode_template(part, first=i == 0)
            for i, part in enumerate(parts)
        ]
        if not self._tokenizer.chat_template:
            pieces.insert(0, self._leading_ids())
        room = self._room(pieces)
        if room < _SMALLEST_ROOM:
            raise ConfigError(
                f"the prompt {self._template.style!r} leaves room for {room} tokens of response "
                f"within {self._max_prompt_tokens}: take a model with a longer context, a lower "
                "max_new_tokens or style='direct'"
            )
        return pieces

    def _chat(self, user: str) -> str:
        system = self._template.system
        # Texts for str.format double their braces; the system message has no fields.
        system = system.format() if system else None
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
                thinking=self._thinking,  # that of Granite and DeepSeek
                date_string=_DATE,
            )
        )

    def _leading_ids(self) -> list[int]:
        """What the tokenizer itself puts before a text: usually a begin-of-text token or none."""
        bos = self._tokenizer.bos_token_id
        return [bos] if bos is not None and self._tokenizer("a").input_ids[0] == bos else []

    def _room(self, pieces: list[list[int] | str]) -> int:
        taken = sum(len(piece) for piece in pieces if not isinstance(piece, str))
        return self._max_prompt_tokens - taken

    def _fit(self, texts: dict[str, list[int]], room: int) -> dict[str, list[int]]:
        """Cut the middles so that the texts fit; a context keeps at most what is left, or half."""
        response, context = texts[_RESPONSE], texts.get(_CONTEXT, [])
        room_for_response = max(room - len(context), room - room // 2)
        if self._max_response_tokens is not None:
            room_for_response = min(room_for_response, self._max_response_tokens)
        fitted = {_RESPONSE: self._cut_middle(response, room_for_response)}
        if _CONTEXT in texts:
            fitted[_CONTEXT] = self._cut_middle(context, room - len(fitted[_RESPONSE]))
        return fitted

    def _cut_middle(self, ids: list[int], room: int) -> list[int]:
        if len(ids) <= room:
            return ids
        kept = max(room - len(self._gap), 0)
        n_tail = kept // 3  # openings say more about the request than endings
        return ids[: kept - n_tail] + self._gap + ids[len(ids) - n_tail :]
