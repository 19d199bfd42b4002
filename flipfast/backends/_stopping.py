"""Texts that end an output, as a generation config's stop_strings names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria


class StopStrings(StoppingCriteria):
    """Ends a row once its output holds one of some texts, special tokens included.

    Args:
        tokenizer: of the model.
        strings: the texts.
        n_rows: of the batch.
        n_prompt: tokens of each row before its output.

    Attributes:
        lengths: per row, output tokens up to the end of the text that came first; None if none did.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        strings: Sequence[str],
        n_rows: int,
        n_prompt: int,
    ) -> None:
        self.lengths: list[int | None] = [None] * n_rows
        self._tokenizer = tokenizer
        self._strings = strings
        self._n_prompt = n_prompt
        # A token has a byte or more; one before them, as decoders drop the space of a first token.
        self._n_looked_at = max(len(string.encode()) for string in strings) + 1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Which rows have ended, (rows,) bool."""
        outputs = input_ids[:, self._n_prompt :]
        for row, ids in enumerate(outputs[:, -self._n_looked_at :].tolist()):
            if self.lengths[row] is None:
                text = _decode(self._tokenizer, ids, skip=False)
                if _first(text, self._strings) is not None:
                    self.lengths[row] = outputs.shape[1]
        ended = [length is not None for length in self.lengths]
        return torch.tensor(ended, device=input_ids.device)


def before_stop(
    tokenizer: PreTrainedTokenizerBase, output_ids: Sequence[int], strings: Sequence[str]
) -> tuple[list[int], str]:
    """The part of an output before the first of some texts, as tokens and without special tokens.

    The last of the tokens may hold the beginning of that text; the text returned does not.
    """
    ids = list(output_ids)
    for skip in (True, False):  # the text may be a special token, or a part of it
        at = _first(_decode(tokenizer, ids, skip=skip), strings)
        if at is None:
            continue
        while ids and len(_decode(tokenizer, ids[:-1], skip=skip)) >= at:
            ids.pop()
        text = _decode(tokenizer, ids, skip=True)
        return ids, text[:at] if skip else text
    return ids, _decode(tokenizer, ids, skip=True)


def _first(text: str, strings: Sequence[str]) -> int | None:
    """Where the first of some texts begins."""
    return min((at for at in map(text.find, strings) if at >= 0), default=None)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip: bool) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    return str(text)
