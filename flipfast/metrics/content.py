"""The visible characters of a text, and its number of words with content."""

from __future__ import annotations

import re

from flipfast.metrics.cjk_f1 import UNSPACED

# Unicode's Default_Ignorable_Code_Point: soft hyphens, joiners, direction marks, fillers,
# variation selectors, tags.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Return the text without its invisible characters."""
    return _INVISIBLE.sub("", text)


def n_content_words(text: str) -> int:
    """Count the words of a text that contain a letter or a digit.

    Words are separated by white space, and each Chinese or Japanese character is its own word;
    invisible characters do not count. Unlike in word F1, articles are words: "A" may be the whole
    answer to a multiple-choice question.
    """
    words = UNSPACED.sub(r" \g<0> ", visible(text)).split()
    return sum(any(map(str.isalnum, word)) for word in words)
