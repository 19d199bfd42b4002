"""Renders a response and its context to the token ids of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flipfast.errors import ConfigError, InputError
from flipfast.prompts.chat import ChatTemplate, Pieces
from flipfast.prompts.fitting import (
    GAP,
    SMALLEST_ROOM,
    RenderedPrompt,
    cut_middle,
    fill,
    length_of,
)
from flipfast.prompts.templates import PromptTemplate

__all__ = ["PromptRenderer", "RenderedPrompt"]

_RESPONSE, _CONTEXT = "response", "context"


class PromptRenderer:
    """Renders one prompt template with a model's own chat template.

    The pieces of the template are tokenized once, separately from the texts, so the prefix before
    the first text has the same tokens in every prompt.

    Attributes:
        encoder: encodes texts that are only parts of a prompt.

    Args:
        tokenizer: a transformers tokenizer backed by the tokenizers library.
        template: the prompt's texts.
        date: what the chat template takes for today, such as "2024-07-26".
        thinking: leave the model's thinking on, if its template has a switch for it.
        max_prompt_tokens: the longest prompt, in tokens, template included.
        max_response_tokens: a tighter bound for the response, or None.

    Raises:
        ConfigError: the chat template drops, changes or repeats a text, or the template leaves no
            room for a response.
        ModelLoadError: the chat template cannot be read.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: PromptTemplate,
        *,
        date: str,
        thinking: bool,
        max_prompt_tokens: int,
        max_response_tokens: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._chat = ChatTemplate(tokenizer, date=date, thinking=thinking)
        self._max_prompt_tokens = max_prompt_tokens
        self._max_response_tokens = max_response_tokens
        self.encoder = self._chat.encoder
        self._gap = self.encoder.encode_text(GAP)
        self._without_context = self._pieces(template.user)
        self._with_context = (
            self._pieces(template.user_with_context) if template.user_with_context else None
        )

    def render(
        self, response: str, context: str | None = None, *, reserved: int = 0
    ) -> RenderedPrompt:
        """Build the prompt for one response.

        Args:
            response: the text to invert; loses its middle if it is too long.
            context: the conversation before the response, or None; empty counts as None.
            reserved: number of tokens that will follow the prompt; they count toward
                `max_prompt_tokens`.

        Raises:
            InputError: the reserved tokens leave no room for the response, or there is a context
                and the template has no place for it.
        """
        texts = {_RESPONSE: self.encoder.encode_text(response)}
        pieces = self._without_context
        if context:
            if self._with_context is None:
                raise InputError(
                    f"the prompt {self._template.style!r} has no {{context}}, and a context of "
                    f"{len(context)} characters was given: use style='conversation'"
                )
            pieces = self._with_context
            texts[_CONTEXT] = self.encoder.encode_text(context)
        room = self._room(pieces) - reserved
        if sum(map(len, texts.values())) > room and room < SMALLEST_ROOM:
            raise InputError(
                f"the prompt's {self._max_prompt_tokens - room - reserved} tokens and the "
                f"{reserved} to follow it leave room for {room} tokens of response within "
                f"{self._max_prompt_tokens}"
            )
        fitted = self._fit(texts, room)
        return RenderedPrompt(fill(pieces, fitted), cut=fitted != texts)

    def prefixes(self) -> list[list[int]]:
        """Return the token ids before the first text, for prompts without and with a context."""
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
        """Return the text after the last slot, for prompts without and with a context."""
        pieces = filter(None, (self._without_context, self._with_context))
        return [self._tokenizer.decode(ids) for *_, ids in pieces if not isinstance(ids, str)]

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokenize a conversation for the model to answer, in its own chat template.

        Unlike in `render`, text that spells a special token becomes one.

        Raises:
            InputError: the chat template refuses the conversation, or loses a user's message.
        """
        return self._chat.message_ids(messages)

    def _pieces(self, user: str) -> Pieces:
        """Tokenize the template's parts, with the names of the slots between them."""
        pieces = self._chat.pieces(self._template.system, user, (_RESPONSE, _CONTEXT))
        room = self._room(pieces)
        if room < SMALLEST_ROOM:
            raise ConfigError(
                f"the prompt {self._template.style!r} leaves room for {room} tokens of response "
                f"within {self._max_prompt_tokens}: take a model with a longer context, a lower "
                "max_new_tokens or style='direct'"
            )
        return pieces

    def _room(self, pieces: Pieces) -> int:
        return self._max_prompt_tokens - length_of(pieces)

    def _fit(self, texts: dict[str, list[int]], room: int) -> dict[str, list[int]]:
        """Cut the middles so the texts fit; a context gets the room left over, or up to half."""
        response, context = texts[_RESPONSE], texts.get(_CONTEXT, [])
        room_for_response = max(room - len(context), room - room // 2)
        if self._max_response_tokens is not None:
            room_for_response = min(room_for_response, self._max_response_tokens)
        fitted = {_RESPONSE: self._cut_middle(response, room_for_response)}
        if _CONTEXT in texts:
            fitted[_CONTEXT] = self._cut_middle(context, room - len(fitted[_RESPONSE]))
        return fitted

    def _cut_middle(self, ids: list[int], room: int) -> list[int]:
        return cut_middle(ids, room, self._gap)
