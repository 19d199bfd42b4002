"""Explains a word F1 by its words: those that match, are missing, or are extra."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined

from flipfast.checks import as_string
from flipfast.metrics.word_f1_py import scores_of_counts
from flipfast.metrics.word_spans import word_spans

_HIDDEN = ("Cc", "Cf", "Cs")  # Unicode categories: control, format, surrogate


@dataclass(frozen=True)
class Word:
    """A word that counts, and its position.

    Attributes:
        word: as it is compared: in lower case, without ASCII punctuation.
        start, end: text[start:end] is the source of the word.
        matched: whether it has a partner in the other text.
    """

    word: str
    start: int
    end: int
    matched: bool


@dataclass(frozen=True)
class MarkedText:
    """A text and its words, in order; the characters between them do not count."""

    text: str
    words: tuple[Word, ...]

    @property
    def n_matched(self) -> int:
        """The number of words with a partner."""
        return sum(word.matched for word in self.words)

    @property
    def unmatched(self) -> list[str]:
        """The words without a partner, as they are compared, in order."""
        return [word.word for word in self.words if not word.matched]

    def pieces(self) -> Iterator[tuple[str, bool | None]]:
        """Yield the whole text in pieces: a word and whether it matched, or a gap and None.

        Invisible characters, and those that control a terminal, are escaped.
        """
        at = 0
        for word in self.words:
            if at < word.start:
                yield visible(self.text[at : word.start]), None
            yield visible(self.text[word.start : word.end]), word.matched
            at = word.end
        if at < len(self.text):
            yield visible(self.text[at:]), None


@dataclass(frozen=True)
class Explanation:
    """The words of two texts side by side, as word F1 counts them.

    Attributes:
        instruction: the true one; its words without a partner are missing.
        inferred: the inferred one; its words without a partner are extra.
        f1, precision, recall: bitwise those of `overlap_f1`.
    """

    instruction: MarkedText
    inferred: MarkedText
    f1: float
    precision: float
    recall: float

    def figures(self) -> dict[str, str]:
        """Return precision, recall and F1 by name, with the counts they come from."""
        same = self.inferred.n_matched
        n_inferred, n_true = len(self.inferred.words), len(self.instruction.words)
        return {
            "precision": f"{self.precision:.4f} ({same} of {n_inferred} inferred words)",
            "recall": f"{self.recall:.4f} ({same} of {n_true} words of the instruction)",
            "word F1": f"{self.f1:.4f}",
        }

    def to_html(self, facts: Mapping[str, str] | None = None) -> str:
        """Render a self-contained HTML page, with light and dark themes.

        Args:
            facts: other texts to show, by name.
        """
        environment = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined)
        source = resources.files("flipfast") / "assets" / "explanation.html.jinja"
        template = environment.from_string(source.read_text("utf-8"))
        shown = {name: visible(text) for name, text in (facts or {}).items()}
        return template.render(explanation=self, facts=shown)


def explain(inferred: str, instruction: str) -> Explanation:
    """Find which words of an inferred instruction are in the true one.

    Words are compared as multisets: the n-th occurrence of a word has a partner if the other text
    has the word at least n times.

    Args:
        inferred: any string.
        instruction: the true instruction.

    Raises:
        InputError: one of them is not a string.
    """
    as_string(inferred, "inferred")
    as_string(instruction, "instruction")
    spans, true_spans = word_spans(inferred), word_spans(instruction)
    shared = Counter(word for word, *_ in spans) & Counter(word for word, *_ in true_spans)
    marked, true_marked = _marked(inferred, spans, shared), _marked(instruction, true_spans, shared)
    scores = scores_of_counts(shared.total(), len(spans), len(true_spans))
    return Explanation(true_marked, marked, *scores)


def visible(text: str) -> str:
    """Escape the invisible characters of a text, except line breaks and tabs."""
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if c not in "\n\t" and unicodedata.category(c) in _HIDDEN
        else c
        for c in text
    )


def _marked(text: str, spans: list[tuple[str, int, int]], shared: Counter[str]) -> MarkedText:
    left = Counter(shared)
    words = []
    for word, start, end in spans:
        words.append(Word(word, start, end, left[word] > 0))
        left[word] -= 1
    return MarkedText(text, tuple(words))
