"""Word F1 for scripts that write words without spaces: each character counts as a word."""

from __future__ import annotations

import re
import unicodedata

from flipfast.metrics.base import f1_of_units
from flipfast.metrics.word_f1_py import normalize

# Blocks of Han, Kana and Bopomofo; Hangul uses spaces. Their own punctuation separates words.
UNSPACED = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)


def words(text: str) -> list[str]:
    """Split a text into words as in word F1, with each unspaced character as its own word.

    Full-width forms of ASCII count as ASCII. Equal to `normalize` for pure ASCII text.
    """
    folded = "".join(_folded(c) for c in text)
    return normalize(UNSPACED.sub(r" \g<0> ", folded))


def _folded(c: str) -> str:
    if "\uff01" <= c <= "\uff5e":
        return chr(ord(c) - 0xFEE0)
    if c > "\x7f" and unicodedata.category(c).startswith("P"):
        return " "
    return c


cjk_f1 = f1_of_units(words)
