"""Comparisons of every two responses, in both orders."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from flipfast.quality.raters import Group

WORDS = Group("Say something.", ("one", "two two", "three three three", "4" * 40))


def test_a_judge_that_sees_only_places_likes_nobody_better(make_judge: Any) -> None:
    for letter in "ABC":
        judge, _ = make_judge("pairwise", lambda *_, x=letter: f"[[{x}]]")
        found = judge.rate([WORDS])
        assert found.scores == [[0.5] * 4]
        assert found.statuses == [["ok"] * 4]
        assert (found.n_pairs, found.n_inconsistent) == (6, 0 if letter == "C" else 6)
        assert found.n_ties == (12 if letter == "C" else 0)


def test_the_share_of_won_comparisons(make_judge: Any, shown: Any) -> None:
    def longer(prompt: str, request: Any) -> str:
        texts = shown(prompt)
        return f"The longer one is better.\n[[{max(texts, key=lambda x: len(texts[x]))}]]"

    judge, inverter = make_judge("pairwise", longer)
    found = judge.rate([WORDS])
    assert found.scores == [[0, 1 / 3, 2 / 3, 1]]
    assert (found.n_pairs, found.n_inconsistent, found.n_ties) == (6, 0, 0)
    prompts = [inverter.tokenizer.decode(request.prompt_ids) for request in inverter.requests]
    pairs = [tuple(shown(prompt).values()) for prompt in prompts]
    expected = [*combinations(WORDS.responses, 2)]
    assert sorted(pairs) == sorted([*expected, *(pair[::-1] for pair in expected)])


def test_ties_and_preferences_of_one_order(make_judge: Any, shown: Any) -> None:
    def says(prompt: str, request: Any) -> str:
        texts = shown(prompt)
        if "x" in texts.values():
            return "[[C]]"
        return "[[A]]" if texts["A"] == "y" else "[[C]]"

    judge, _ = make_judge("pairwise", says)
    found = judge.rate([Group("Hi", ("x", "y", "z"))])
    assert found.scores == [[0.5, (0.5 + 0.5 + 1 + 0.5) / 4, (0.5 + 0.5 + 0 + 0.5) / 4]]
    assert (found.n_pairs, found.n_inconsistent, found.n_ties) == (3, 1, 5)


def test_the_mean_is_of_what_could_be_read(make_judge: Any, shown: Any) -> None:
    def says(prompt: str, request: Any) -> str:
        texts = shown(prompt)
        if "mute" in texts.values():
            return "no comment"
        return "[[A]]" if texts["A"] == "good" else "[[B]]" if texts["B"] == "good" else "[[X]]"

    judge, _ = make_judge("pairwise", says)
    found = judge.rate([Group("Hi", ("good", "bad", "mute", "worse"))])
    assert found.scores == [[1.0, 0.0, None, 0.0]]
    assert found.statuses == [["recovered", "recovered", "unparsed", "recovered"]]
    assert found.errors == [[None] * 4]
    assert (found.n_pairs, found.n_inconsistent, found.n_ties) == (2, 0, 0)
    (mixed,) = judge.rate([Group("Hi", ("mute", "bad", "worse"))]).statuses
    assert mixed == ["unparsed"] * 3
    (alike,) = judge.rate([Group("Hi", ("bad", "worse"))]).statuses
    assert alike == ["out_of_range"] * 2


def test_equal_responses_are_equals(make_judge: Any) -> None:
    judge, inverter = make_judge("pairwise", lambda *_: "[[B]]")
    assert judge.rate([Group("Hi", ("same", "same"))]).scores == [[0.5, 0.5]]
    assert len(inverter.requests) == 1


def test_nothing_to_compare_with(make_judge: Any) -> None:
    judge, inverter = make_judge("pairwise", lambda *_: pytest.fail("there is nothing to ask"))
    found = judge.rate([Group("Hi", ("Hello!",)), Group("Hi", ("Hello!", None))])  # type: ignore[arg-type]
    assert found.scores == [[None], [None, None]]
    assert found.statuses == [["alone"], ["alone", "error"]]
    assert (found.n_pairs, found.n_inconsistent, found.n_ties) == (0, 0, 0)
    assert inverter.requests == []
