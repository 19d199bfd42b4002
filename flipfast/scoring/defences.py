"""Optional checks of a response before it is inverted: the copy guard, the minimum of words."""

from __future__ import annotations

from collections.abc import Callable

from flipfast.config import FlipConfig
from flipfast.metrics.content import n_content_words
from flipfast.scores import CONTENTLESS
from flipfast.scoring.copying import copied_share, mask_copies
from flipfast.scoring.samples import Row, Sample

MakeRow = Callable[[str, str, str | None], Row]  # from an instruction, a response and a context


def defended(make: MakeRow, config: FlipConfig) -> MakeRow:
    """Wrap a maker of rows with the configuration's `copy_guard` and `min_response_words`.

    Args:
        make: makes a row from the unchanged response.
        config: of the reward.
    """

    def guarded(instruction: str, response: str, context: str | None) -> Row:
        if config.copy_guard == "off":
            return make(instruction, response, context)
        if config.copy_guard == "mask":
            response, share = mask_copies(instruction, response)
        else:
            share = copied_share(instruction, response)
        row = make(instruction, response, context)
        row.copied = share
        if config.copy_guard == "discount":
            row.factor = 1 - share
        return row

    def with_content(instruction: str, response: str, context: str | None) -> Row:
        if n_content_words(response) < config.min_response_words:
            return Row(instruction, samples=[Sample(status=CONTENTLESS)])
        return guarded(instruction, response, context)

    return with_content if config.min_response_words else guarded
