"""Prompts with any number of texts, for judges of several responses."""

from __future__ import annotations

from collections.abc import Mapping

from flipfast.errors import ConfigError
from flipfast.prompts.chat import ChatTemplate
from flipfast.prompts.fitting import (
    GAP,
    SMALLEST_ROOM,
    RenderedPrompt,
    cut_middle,
    fair_shares,
    fill,
    length_of,
)


class SlotPrompt:
    """One prompt whose texts are filled in later. A text never becomes a special token.

    Args:
        chat: the model's chat template.
        system: the system message, a `str.format` template without fields; None for none.
        user: the user message, a `str.format` template with one field per text.
        slots: the fields' names, of letters and underscores.
        max_prompt_tokens: the longest prompt, in tokens, template included.

    Raises:
        ConfigError: the chat template changes the message, or leaves no room for the texts.
    """

    def __init__(
        self,
        chat: ChatTemplate,
        system: str | None,
        user: str,
        slots: tuple[str, ...],
        *,
        max_prompt_tokens: int,
    ) -> None:
        self._encode = chat.encoder.encode_text
        self._gap = self._encode(GAP)
        self._pieces = chat.pieces(system, user, slots)
        self._room = max_prompt_tokens - length_of(self._pieces)
        if self._room < SMALLEST_ROOM * len(slots):
            raise ConfigError(
                f"a prompt with {len(slots)} texts leaves room for {self._room} tokens of them "
                f"within {max_prompt_tokens}: take a model with a longer context, or a lower "
                "max_new_tokens"
            )

    @property
    def start(self) -> list[int]:
        """Token ids before the first text."""
        ids: list[int] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                break
            ids += piece
        return ids

    @property
    def end(self) -> list[int]:
        """Token ids after the last text."""
        last = self._pieces[-1]
        return [] if isinstance(last, str) else last

    def render(self, texts: Mapping[str, str]) -> RenderedPrompt:
        """Build the prompt. If the texts are too long together, the longest lose their middle.

        Args:
            texts: one for each slot.
        """
        ids = {name: self._encode(text) for name, text in texts.items()}
        shares = fair_shares([len(text) for text in ids.values()], self._room)
        fitted = {
            name: cut_middle(text, share, self._gap)
            for (name, text), share in zip(ids.items(), shares, strict=True)
        }
        return RenderedPrompt(fill(self._pieces, fitted), cut=fitted != ids)
