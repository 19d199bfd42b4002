"""Invisible characters, and characters that look like others."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from flipfast.quality.attacks.base import Attack, Case, from_text

_ZERO_WIDTH_SPACE = "\u200b"
_SOFT_HYPHEN = "\u00ad"
_WORD_JOINER = "\u2060"
_RIGHT_TO_LEFT, _POP = "\u202e", "\u202c"
# Latin letters and the Cyrillic and Greek ones that look alike (Unicode TR 39, confusables).
_LOOK_ALIKES = str.maketrans(
    "acehijopsxyABEHIKMNOPTXZ",
    "асеһіјорѕхуΑΒΕΗΙΚΜΝΟΡΤΧΖ",  # noqa: RUF001 - deliberate
)
_TAGS_START = 0xE0000  # the Tags block, which mirrors ASCII invisibly


def _split(text: str, mark: str) -> str:
    """Put a mark in the middle of each word of two letters or more."""
    return " ".join(_in_the_middle(word, mark) for word in text.split(" "))


def _in_the_middle(word: str, mark: str) -> str:
    half = len(word) // 2
    return f"{word[:half]}{mark}{word[half:]}" if half else word


def _as_tags(text: str) -> str:
    return "".join(chr(_TAGS_START + ord(letter)) for letter in text if " " <= letter <= "~")


def _of_response(change: Callable[[str], str]) -> Callable[[Case, Random], str]:
    return lambda case, _: change(case.response)


def _of_copy(change: Callable[[str], str]) -> Callable[[Case, Random], str]:
    """Put the instruction, changed so that it is no longer a verbatim copy, before the response."""
    return lambda case, _: f"{change(case.instruction)}\n\n{case.response}"


def _zero_width(text: str) -> str:
    return _split(text, _ZERO_WIDTH_SPACE)


def _soft_hyphens(text: str) -> str:
    return _split(text, _SOFT_HYPHEN)


def _turned(text: str) -> str:
    """Reverse each line, between marks that make it display forwards."""
    return "\n".join(f"{_RIGHT_TO_LEFT}{line[::-1]}{_POP}" for line in text.split("\n"))


def _look_alikes(text: str) -> str:
    return text.translate(_LOOK_ALIKES)


ATTACKS = (
    from_text("characters/unseen_alone", (_ZERO_WIDTH_SPACE + _WORD_JOINER) * 8),
    Attack("characters/zero_width", _of_response(_zero_width)),
    Attack("characters/soft_hyphens", _of_response(_soft_hyphens)),
    Attack("characters/turned", _of_response(_turned)),
    Attack("characters/look_alikes", _of_response(_look_alikes)),
    Attack("characters/zero_width_copy", _of_copy(_zero_width), knows_instruction=True),
    Attack("characters/look_alike_copy", _of_copy(_look_alikes), knows_instruction=True),
    Attack("characters/tag_copy", _of_copy(_as_tags), knows_instruction=True),
)
