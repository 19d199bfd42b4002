"""Explanations count what the metric counts, word for word."""

import unicodedata
from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.errors import InputError
from flipfast.metrics.word_f1 import overlap_f1
from flipfast.metrics.word_f1_py import normalize
from flipfast.quality.explain import explain, visible

_WORDS = ["a", "an", "the", "The", "soil", "Soil!", "soil-bad", "İx", "ΑΣ", "—", "\ud800", "is"]
_GAPS = [" ", "  ", "\n", "\u3000", "\x1c", ", ", ""]
_PARTS = st.sampled_from(_WORDS + _GAPS) | st.characters()
_TEXTS = st.lists(_PARTS).map("".join)


def bits(values):
    return [float(value).hex() for value in values]


@given(_TEXTS, _TEXTS)
def test_words_and_figures_are_those_of_the_metric(inferred, instruction):
    found = explain(inferred, instruction)
    for marked, text in ((found.inferred, inferred), (found.instruction, instruction)):
        assert marked.text == text
        assert [word.word for word in marked.words] == normalize(text)
    shared = Counter(normalize(inferred)) & Counter(normalize(instruction))
    for marked in (found.inferred, found.instruction):
        assert Counter(w.word for w in marked.words if w.matched) == shared
        assert marked.n_matched == shared.total()
        assert Counter(marked.unmatched) == Counter(normalize(marked.text)) - shared
    (expected,) = overlap_f1([inferred], [instruction])
    assert bits([found.f1, found.precision, found.recall]) == bits(expected)


@given(_TEXTS)
def test_pieces_are_the_whole_text_with_nothing_hidden(text):
    shown = "".join(piece for piece, _ in explain(text, "soil is bad").inferred.pieces())
    assert shown == visible(text)
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    assert hidden <= {"\n", "\t"}


def test_the_first_of_several_occurrences_match():
    found = explain("Name a river, the river, RIVER", "The river and the 'river' there")
    assert [(w.word, w.matched) for w in found.inferred.words] == [
        ("name", False),
        ("river", True),
        ("river", True),
        ("river", False),
    ]
    assert found.instruction.unmatched == ["and", "there"]
    assert list(found.instruction.pieces())[:3] == [("The ", None), ("river", True), (" ", None)]
    assert found.figures() == {
        "precision": "0.5000 (2 of 4 inferred words)",
        "recall": "0.5000 (2 of 4 words of the instruction)",
        "word F1": "0.5000",
    }


def test_what_steers_a_terminal_is_shown_as_an_escape():
    assert visible("a\x1b[31m\u202e\ud800\u00ad\u200b\r\n\té—") == (
        "a\\x1b[31m\\u202e\\ud800\\xad\\u200b\\r\n\té—"
    )


class _Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text in each class."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self._open = Counter(), {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self._open.append(dict(attrs).get("class") or tag)

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def test_a_page_holds_any_text_as_text():
    nasty = '<script>alert("1")</script> & "soil" <b>'
    page = explain(nasty, "soil </p><script>").to_html({"response <i>": nasty, "status": "ok"})
    plain = explain("bread", "soil and").to_html({"response": "x", "status": "ok"})
    found = _Page(page)
    assert found.tags["script"] == found.tags["b"] == found.tags["i"] == 0
    assert found.tags["p"] == _Page(plain).tags["p"]
    assert nasty in found.texts["dd"]
    assert "soil" in found.texts["matched"]
    assert "http" not in page


def test_a_page_of_odd_characters_can_be_written():
    page = explain("\ud800 soil\x00", "").to_html({"error": "\udfff"})
    assert "\\ud800" in page.encode("utf-8").decode("utf-8")
    assert "\\udfff" in page
    assert "(nothing)" in page


@pytest.mark.parametrize(("inferred", "instruction"), [(None, "x"), ("x", 3)])
def test_texts_must_be_strings(inferred, instruction):
    with pytest.raises(InputError, match="must be a string"):
        explain(inferred, instruction)
