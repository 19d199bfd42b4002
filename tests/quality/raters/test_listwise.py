"""The best of a list, shown in an order that only seed and texts decide."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from scipy.stats import chisquare

from flipfast.quality.raters import Group

GROUPS = [
    Group("Say something.", ("one", "two two", "a much longer response", "4")),
    Group("Say more.", ("the longest of these three", "mid size", "x")),
    Group("Say it all.", tuple("a" * (n + 1) for n in range(26))),
]


def test_the_verdict_goes_to_the_response_that_was_meant(make_judge: Any, shown: Any) -> None:
    letters = set()

    def longest(prompt: str, request: Any) -> str:
        texts = shown(prompt)
        letters.add(best := max(texts, key=lambda letter: len(texts[letter])))
        return f"[[{best}]]"

    judge, _ = make_judge("listwise", longest)
    for seed in range(12):
        found = judge.rate(GROUPS, seed=seed)
        for group, scores in zip(GROUPS, found.scores, strict=True):
            longest_one = max(group.responses, key=len)
            assert scores == [float(text == longest_one) for text in group.responses]
        assert {status for group in found.statuses for status in group} == {"ok"}
    assert len(letters) > 8


def test_places_are_shared_out_evenly(make_judge: Any) -> None:
    judge, _ = make_judge("listwise", lambda *_: "[[A]]")
    firsts = Counter(judge.rate(GROUPS[:1], seed=seed).scores[0].index(1.0) for seed in range(400))
    assert chisquare([firsts[i] for i in range(4)]).pvalue > 1e-3


@pytest.mark.parametrize(("verdict", "status"), [("[[E]]", "out_of_range"), ("B", "unparsed")])
def test_a_letter_that_was_not_offered(make_judge: Any, verdict: str, status: str) -> None:
    judge, _ = make_judge("listwise", lambda *_: verdict)
    found = judge.rate(GROUPS[:1])
    assert found.scores == [[None] * 4]
    assert found.statuses == [[status] * 4]


def test_more_responses_than_letters(make_judge: Any) -> None:
    judge, _ = make_judge("listwise", lambda *_: "[[A]]")
    found = judge.rate([Group("Hi", ("x",) * 27), GROUPS[0]])
    assert found.scores[0] == [None] * 27
    assert found.statuses[0] == ["error"] * 27
    assert "27 responses are more than the 26 letters" in found.errors[0][0]
    assert sum(found.scores[1]) == 1


def test_one_response_is_no_list(make_judge: Any) -> None:
    judge, inverter = make_judge("listwise", lambda *_: "[[A]]")
    found = judge.rate([Group("Hi", ("Hello!",)), Group("Hi", ())])
    assert (found.scores, found.statuses) == ([[None], []], [["alone"], []])
    assert inverter.requests == []


def test_one_of_equal_responses_is_the_best(make_judge: Any) -> None:
    judge, _ = make_judge("listwise", lambda *_: "[[C]]")
    assert sum(judge.rate([Group("Hi", ("same",) * 3)]).scores[0]) == 1
