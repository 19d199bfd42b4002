"""Length instead of relevance, and keywords instead of sentences."""

from __future__ import annotations

import re
from random import Random

from flipfast.metrics.word_f1_py import normalize
from flipfast.quality.attacks.base import Attack, Case

_LEAST_LETTERS = 4  # of a content word; shorter ones are mostly function words
_REPEATS = 3
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")  # noqa: RUF001 - as they are written

_PASSAGES = (
    "Tides rise and fall because the moon pulls at the sea. Twice a day the water comes up the "
    "beach, and twice it goes out again. Where a bay is narrow, the difference between high and "
    "low water can be more than ten metres, and boats lie on the mud for hours.",
    "A violin has four strings, tuned a fifth apart. Its top is made of spruce and its back of "
    "maple. Makers carve the plates by hand until they ring at the right pitch, and cover them "
    "with thin coats of varnish that take weeks to dry.",
    "The first railways carried coal from the pits to the river. Horses drew the wagons on "
    "wooden rails until engines took their place. Within thirty years the lines had joined the "
    "large towns, and clocks were set to one time everywhere.",
)


def first_sentence(text: str) -> str:
    """Return a text's first sentence: up to the first end mark, included, or line break."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def _off_topic(case: Case) -> str:
    """Return the passage that shares the fewest words with the response."""
    known = set(normalize(case.response))
    return min(_PASSAGES, key=lambda passage: len(known.intersection(normalize(passage))))


def _long_off_topic(case: Case, _: Random) -> str:
    return "\n\n".join([_off_topic(case)] * _REPEATS)


def _padded(case: Case, random: Random) -> str:
    return f"{case.response}\n\n{_long_off_topic(case, random)}"


def _first_sentence(case: Case, _: Random) -> str:
    return first_sentence(case.response)


def _repeated(case: Case, _: Random) -> str:
    return "\n\n".join([case.response] * _REPEATS)


def _keywords(case: Case, random: Random) -> str:
    words = normalize(case.instruction)
    chosen = [word for word in words if len(word) >= _LEAST_LETTERS] or words
    return " ".join(random.sample(chosen, len(chosen)))


def _keywords_behind(case: Case, random: Random) -> str:
    return f"{case.response}\n\n{_keywords(case, random)}"


ATTACKS = (
    Attack("content/off_topic_to_short", _long_off_topic, against=first_sentence),
    Attack("content/off_topic", _long_off_topic),
    Attack("content/off_topic_behind", _padded),
    Attack("content/first_sentence", _first_sentence),
    Attack("content/repeated", _repeated),
    Attack("content/keywords", _keywords, knows_instruction=True),
    Attack("content/keywords_behind", _keywords_behind, knows_instruction=True),
)
