"""The bound on what a growing text can still reach, against all texts that it can become."""

from __future__ import annotations

import itertools
import random
import sys

import pytest

from flipfast.metrics.reachable_f1 import ReachableF1
from flipfast.metrics.word_f1_py import normalize, scores_of_counts, word_f1

SPACES = [chr(c) for c in range(sys.maxunicode + 1) if chr(c).isspace()]
WORDS = ["x", "y", "z", "the", "?"]  # two of a reference, one beside it, two that are none


def bound_of(reference: str, *parts: str) -> float:
    reachable = ReachableF1(reference)
    for part in parts:
        reachable.add(part)
    return reachable.bound


def sentences(longest: int) -> list[str]:
    choices = (itertools.product(WORDS, repeat=n) for n in range(longest + 1))
    return [" ".join(words) for words in itertools.chain.from_iterable(choices)]


@pytest.mark.slow
def test_it_is_the_best_of_all_continuations() -> None:
    continuations = sentences(3)
    for reference in ("x", "x y", "x x", "y x the", "X y, x", "z y x"):
        for given in sentences(3):
            reached = [word_f1(f"{given} {more}", reference)[0] for more in continuations]
            assert bound_of(reference, given) == max(reached)


def test_the_last_word_may_still_become_another() -> None:
    for reference in ("thermal x", "xyz", "an x", "x"):
        for cut in ("the", "x", "a", "xy", "y", "th", "'"):
            for rest in ("", "rmal", "yz", "n", "n x", " ", " x", "z", "'", "\u0301"):
                for behind in sentences(2):
                    grown = f"y {cut}{rest} {behind}"
                    assert word_f1(grown, reference)[0] <= bound_of(reference, "y ")


@pytest.mark.slow
def test_counts_of_any_size_keep_below_it() -> None:
    rng = random.Random(3)
    for _ in range(30_000):
        n_reference = rng.choice([rng.randint(1, 9), rng.randint(1, 3000)])
        n_same = rng.randint(0, n_reference)
        n_given = n_same + rng.choice([0, 1, rng.randint(0, 9), rng.randint(0, 3000)])
        n_best = n_given + n_reference - n_same
        bound = scores_of_counts(n_reference, n_best, n_reference)[0]
        for lost, more in itertools.product((0, 1, 2, n_reference - n_same), (0, 1, 2)):
            same = max(n_reference - lost, n_same)
            words = max(n_given + same - n_same, 1) + more
            f1 = scores_of_counts(same, words, n_reference)[0]
            assert f1 <= bound, (n_reference, n_same, n_given, lost, more)


@pytest.mark.parametrize("space", SPACES)
def test_white_space_parts_a_text_for_good(space: str) -> None:
    before = ["\u0391\u03a3", "\u03a3", "a", "x-the", "\u2014an", "\u0130", "'", "A\u0301\u03a3"]
    behind = ["\u03b1", "a", "\u0301\u03b1", "n", "the", "\u2014", "'", "\u0307", "\u00ad\u0391"]
    for one, other in itertools.product(before, behind):
        parts = normalize(one + space) + normalize(other)
        assert normalize(one + space + other) == parts
        assert bound_of(one + other, one + space, other) == bound_of(one + other, f"{one} {other}")


def test_without_white_space_it_would_not() -> None:
    assert normalize("\u0391\u03a3" + "\u03b1") != normalize("\u0391\u03a3") + normalize("\u03b1")


def test_nothing_to_reach() -> None:
    assert bound_of("", "") == bound_of("the ?!", "x") == 0.0
    assert bound_of("x y") == 1.0


@pytest.mark.slow
def test_texts_that_rounding_could_matter_for_are_not_bounded() -> None:
    assert bound_of("x", "y " * 2**20) == 1.0
    assert bound_of("x", "y " * 2**19) < 1e-5
