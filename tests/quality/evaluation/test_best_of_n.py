"""The best of n: who wins does not hang on the order, on the other groups, or on pruning."""

import gzip
import json
import random

import pytest

from flipfast import FlipReward
from flipfast.quality.evaluation.best_of_n import best_of_n, race
from flipfast.quality.raters import Cost, Group, Rater, Ratings, load_rater

NO_COST = Cost(0, 0, 0, 0.0)


class Given(Rater):
    """Has a score for each text; None for others, which it does not know."""

    name = "given"
    uses_seed = False

    def __init__(self, scores):
        self.scores = scores

    def rate(self, groups, *, seed=0):
        scores = [[self.scores.get(text) for text in group.responses] for group in groups]
        statuses = [["unparsed" if s is None else "ok" for s in found] for found in scores]
        return Ratings(scores, statuses, [[None] * len(found) for found in scores], NO_COST)


class ByPlace(Rater):
    """Likes what it is shown late, as judges do that see several responses at once."""

    name = "by place"
    uses_seed = True

    def rate(self, groups, *, seed=0):
        scores = [[float(at) for at, _ in enumerate(group.responses)] for group in groups]
        empty = [[None] * len(found) for found in scores]
        return Ratings(scores, [["ok"] * len(found) for found in scores], empty, NO_COST)


def group(*responses):
    return Group("Name a river.", responses)


def winner(rater, responses):
    (choice,) = best_of_n(rater, [group(*responses)]).choices
    return None if choice.best is None else responses[choice.best]


def test_the_highest_score_wins():
    rater = Given({"Ebro": 0.9, "Tagus": 0.4, "bread": -3.0})
    (choice,) = best_of_n(rater, [group("bread", "Ebro", "?", "Tagus")]).choices
    assert (choice.best, choice.tied) == (1, 1)
    assert choice.scores == [-3.0, 0.9, None, 0.4]
    assert choice.statuses == ["ok", "ok", "unparsed", "ok"]
    assert choice.errors == [None] * 4


@pytest.mark.parametrize("rater", [Given(dict.fromkeys("abcdef", 0.5)), ByPlace()])
def test_the_order_of_the_responses_does_not_count(rater):
    rng, responses = random.Random(3), list("abcdef")
    winners = set()
    for _ in range(20):
        rng.shuffle(responses)
        winners.add(winner(rater, responses))
    assert len(winners) == 1


def test_ties_are_told_and_no_place_is_favoured():
    names = [f"river {n:02}" for n in range(40)]
    rater = Given(dict.fromkeys(names, 0.5))
    found = best_of_n(rater, [group(*names[n : n + 4]) for n in range(36)]).choices
    assert {choice.tied for choice in found} == {4}
    assert {choice.best for choice in found} == {0, 1, 2, 3}


def test_of_equal_texts_the_first_is_named_and_they_are_no_tie():
    rater = Given({"Ebro": 0.9, "Tagus": 0.9, "bread": 0.1})
    (choice,) = best_of_n(rater, [group("bread", "Ebro", "Ebro", "bread")]).choices
    assert (choice.best, choice.tied, choice.scores) == (1, 1, [0.1, 0.9, 0.9, 0.1])
    assert winner(rater, ["Tagus", "Ebro"]) == winner(rater, ["Ebro", "Ebro", "Tagus", "Ebro"])
    (same,) = best_of_n(ByPlace(), [group("Ebro", "Tagus", "Ebro")]).choices
    assert same.scores[0] == same.scores[2]


@pytest.mark.parametrize(
    ("responses", "best", "tied"),
    [
        ((), None, 0),
        (("?", "!"), None, 0),
        (("Ebro",), 0, 1),
        (("?",), 0, 0),
        (("?", "?"), 0, 0),
        (("?", "\ud800", "Ebro"), 2, 1),
    ],
)
def test_small_groups_and_failures(responses, best, tied):
    (choice,) = best_of_n(Given({"Ebro": 0.0}), [group(*responses)]).choices
    assert (choice.best, choice.tied) == (best, tied)


def test_no_groups():
    assert best_of_n(ByPlace(), []).choices == []


@pytest.fixture(scope="module")
def rater():
    with FlipReward(style="direct") as reward:
        yield load_rater("flip", reward)


def check(found, raced):
    """Whether a race has named the same, with the same scores but for those that were pruned."""
    assert [choice.best for choice in raced.choices] == [choice.best for choice in found.choices]
    for one, other in zip(found.choices, raced.choices, strict=True):
        pruned = [status.startswith("pruned") for status in other.statuses]
        expected = [None if p else s for p, s in zip(pruned, one.scores, strict=True)]
        assert other.scores == expected
        assert other.tied is None


@pytest.mark.slow
def test_pruned_and_whole_agree_on_real_groups(rater, shared_file):
    with gzip.open(shared_file("data/workload_groups.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(4)]
    groups = [Group(row["instruction"], tuple(row["responses"])) for row in rows]
    found, raced = best_of_n(rater, groups), race(rater, groups)
    check(found, raced)
    assert raced.n_pruned > 0
    assert 0 < raced.cost.n_output_tokens < found.cost.n_output_tokens
    assert raced.cost.n_prompt_tokens == found.cost.n_prompt_tokens
    assert raced.cost.n_runs == found.cost.n_runs

    rng = random.Random(8)
    shuffled = [Group(g.instruction, tuple(rng.sample(g.responses, 8))) for g in groups]
    winners = [g.responses[c.best] for g, c in zip(groups, found.choices, strict=True)]
    again = race(rater, shuffled[::-1]).choices[::-1]
    assert [g.responses[c.best] for g, c in zip(shuffled, again, strict=True)] == winners


def test_pruned_and_whole_agree_on_ties(rater):
    rng = random.Random(5)
    texts = ["Flour.", "Flour!", "Flour is bread.", "The Ebro is a river in Spain."]
    picked = [tuple(rng.choices(texts, k=k)) for k in (0, 1, 4, 4, 5)]
    groups = [Group("What is flour?", responses) for responses in picked]
    found = best_of_n(rater, groups)
    check(found, race(rater, groups))
    alone = [best_of_n(rater, [one]).choices[0] for one in groups]
    assert alone == found.choices
