"""Cuts texts to the room that a prompt has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flipfast.prompts.chat import Pieces

GAP = "\n[...]\n"  # replaces a text's cut middle
SMALLEST_ROOM = 16  # tokens; a prompt that leaves less room for texts is rejected


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt ready for an inverter.

    Attributes:
        token_ids: the whole prompt.
        cut: whether one of its texts lost its middle to fit.
    """

    token_ids: list[int]
    cut: bool


def length_of(pieces: Pieces) -> int:
    """Count the tokens of a template without its texts."""
    return sum(len(piece) for piece in pieces if not isinstance(piece, str))


def fill(pieces: Pieces, texts: Mapping[str, list[int]]) -> list[int]:
    """Fill texts into their slots."""
    return [i for piece in pieces for i in (texts[piece] if isinstance(piece, str) else piece)]


def cut_middle(ids: list[int], room: int, gap: list[int]) -> list[int]:
    """Return the text, or if longer than the room its beginning, the gap and its end."""
    if len(ids) <= room:
        return ids
    kept = max(room - len(gap), 0)
    n_tail = kept // 3  # openings say more about the request than endings
    return ids[: kept - n_tail] + gap + ids[len(ids) - n_tail :]


def fair_shares(lengths: Sequence[int], room: int) -> list[int]:
    """Cut the longest texts until all fit: each gets its length, or at least an equal share."""
    shares = [0] * len(lengths)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for n_done, i in enumerate(by_length):
        shares[i] = min(lengths[i], room // (len(lengths) - n_done))
        room -= shares[i]
    return shares
