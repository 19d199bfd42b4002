"""Drafts for speculative decoding: token ids that an output is likely to contain."""

from __future__ import annotations

import json

from flipfast.prompts.encoding import TextEncoder

_START = -1  # stands for the output's start
OPENING = '{"REASONING": "'
BETWEEN = '", "INFERRED INSTRUCTION": "'
CLOSING = '"}'


class DraftWriter:
    """Writes likely outputs: the JSON object with the true instruction, or only the instruction.

    Args:
        encoder: of the model's tokenizer.
        end_id: the token that ends an output; None if unknown.
        wants_json: whether the prompt asks for the object.
    """

    def __init__(self, encoder: TextEncoder, end_id: int | None, *, wants_json: bool) -> None:
        self._encoder = encoder
        self._end = [] if end_id is None else [end_id]
        self._wants_json = wants_json
        self._opening = [_START, *self._encoder.encode_text(OPENING)]

    def __call__(self, instruction: str) -> tuple[list[int], ...]:
        """Make the drafts of an `InversionRequest` with this true instruction."""
        if not self._wants_json:
            return ([_START, *self._encoder.encode_text(instruction), *self._end],)
        value = json.dumps(instruction, ensure_ascii=False)[1:-1]
        rest = self._encoder.encode_text(BETWEEN + value + CLOSING)
        return (self._opening, [*rest, *self._end])
