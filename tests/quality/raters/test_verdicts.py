"""Verdicts in what judges write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.quality.raters._verdicts import answer_part, last_letter, last_rating


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("It helps.\nRating: [[7]]", 7),
        ("[[7.5]]", 7.5),
        ("**Rating: [[ 7,5 ]]**", 7.5),
        ("[[Rating: 3]]", 3),
        ("[[8/10]] or rather [[ 6 / 10 ]].", 6),
        ("Rating: [[10]]", 10),
        ("[[0]]", 0),
        ("[[-3]]", -3),
        ("[[11]]", 11),
        ("[[" + "9" * 400 + "]]", float("inf")),
        ("[[[7]]]", 7),
        ("From [[1]] to [[10]], I say [[4]], not [[A]].", 4),
        ("```\nRating: [[2]]\n```", 2),
        ("Rating: 7", None),
        ("Rating: [7]", None),
        ("[[n]]", None),
        ("[[7", None),
        ("[[seven]]", None),
        ("[[٧]]", None),
        ("[[7]", None),
        ("[[1e3]]", None),
        ("", None),
    ],
)
def test_ratings(answer: str, rating: float | None) -> None:
    assert last_rating(answer) == rating


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A is clearer.\n[[A]]", 0),
        ("not [[A]] but [[B]]", 1),
        ("[[ c ]]", 2),
        ("[[Response B]]", 1),
        ("[[Z]]", 25),
        ("**[[B]]** [[2]]", 1),
        ("[[AB]]", None),
        ("[A]", None),
        ("A", None),
        ("[[]]", None),
        ("[[ª]]", None),
        ("[[ſ]]", None),
        ("", None),
    ],
)
def test_letters(answer: str, letter: int | None) -> None:
    assert last_letter(answer) == letter


@given(st.text(alphabet="[]() ABCabcresponserating:0123456789./,-<think>\n", max_size=80))
def test_no_text_breaks_the_reading(text: str) -> None:
    letter, rating = last_letter(text), last_rating(text)
    assert letter is None or 0 <= letter < 26
    assert rating is None or isinstance(rating, float)


@pytest.mark.parametrize(
    ("output", "think_open", "answer"),
    [
        ("<think>[[1]]</think>\n\nGood. [[9]]", False, "Good. [[9]]"),
        ("<think>[[1]]", False, ""),
        ("[[1]]</think>[[9]]", True, "[[9]]"),
        ("I think of [[1]]", True, ""),
        ("It says <think> and I say [[2]]", False, "It says <think> and I say [[2]]"),
        ("[[3]]", False, "[[3]]"),
        ("[[3]]</think>", False, "[[3]]"),
    ],
)
def test_thoughts_are_no_answer(output: str, think_open: bool, answer: str) -> None:
    assert answer_part(output, think_open=think_open) == answer
