"""The positions in a text of the words that word F1 compares."""

from __future__ import annotations

import re
import string

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_WORD = re.compile(r"\S+")


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """Return the words of a text as in `normalize`, each with its position in the text.

    Args:
        text: any string.

    Returns:
        (word, start, end) in order, where text[start:end] is the word's source: from its first kept
        character to its last, including deleted punctuation between them.
    """
    lowered = text.lower()
    kept = [at for at, c in enumerate(lowered) if c not in _PUNCTUATION]
    plain = "".join([lowered[at] for at in kept])
    # As many spaces as the article has letters, so that positions stay the same.
    spaced = _ARTICLE.sub(lambda article: " " * len(article[0]), plain)
    places = kept if len(lowered) == len(text) else _through(_origins(text), kept)
    return [
        (word[0], places[word.start()], places[word.end() - 1] + 1)
        for word in _WORD.finditer(spaced)
    ]


def _origins(text: str) -> list[int]:
    """Return for each character of text.lower() the index of its source; some sources give two."""
    return [at for at, c in enumerate(text) for _ in c.lower()]


def _through(places: list[int], kept: list[int]) -> list[int]:
    return [places[at] for at in kept]
