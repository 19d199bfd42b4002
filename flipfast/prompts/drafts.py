"""What an output may repeat, as token ids, known before the model has written a word."""

from __future__ import annotations

import json

from flipfast.prompts.encoding import TextEncoder

_START = -1  # stands for the output's start
OPENING = '{"REASONING": "'
BETWEEN = '", "INFERRED INSTRUCTION": "'
CLOSING = '"}'


class DraftWriter:
    """Writes down outputs that would be no surprise: the object that was asked for, with the true
    instruction in it, or the instruction alone.

    Args:
        encoder: of the model's tokenizer.
        end_id: the token that ends an output, None if it is not known.
        wants_json: whether the prompt asks for the object.
    """

    def __init__(self, encoder: TextEncoder, end_id: int | None, *, wants_json: bool) -> None:
        self._encoder = encoder
        self._end = [] if end_id is None else [end_id]
        self._wants_json = wants_json
        self._opening = [_START, *self._encoder.encode_text(OPENING)]

    def __call__(self, instruction: str) -> tuple[list[int], ...]:
        """Drafts for `InversionRequest`, for outputs whose true instruction this is."""
        if not self._wants_json:
            return ([_START, *self._encoder.encode_text(instruction), *self._end],)
        value = json.dumps(instruction, ensure_ascii=False)[1:-1]
        rest = self._encoder.encode_text(BETWEEN + value + CLOSING)
        return (self._opening, [*rest, *self._end])
