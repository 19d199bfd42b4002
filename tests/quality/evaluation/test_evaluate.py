"""Figures of raters whose answers are known."""

import random
from dataclasses import dataclass
from statistics import fmean

import pytest

from flipfast.errors import InputError
from flipfast.quality.evaluation import Preference, evaluate
from flipfast.quality.evaluation.accuracy import outcome
from flipfast.quality.raters import Cost, Ratings
from tests.quality.evaluation.raters import (
    FakeRater,
    all_equal,
    always_fails,
    bad_wins,
    good_wins,
    likes_length,
    one_to_ten,
)


def items(n, n_rejected=3, subsets=("one", "two")):
    draw = random.Random(n)

    def text(kind):
        return f"{kind} " + "x" * draw.randint(1, 300)

    return [
        Preference(
            line=i + 1,
            instruction=f"task {i}",
            chosen=(text("good"),),
            rejected=tuple(text("bad") for _ in range(n_rejected)),
            subset=subsets[i % len(subsets)],
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("score", "strict", "split", "pairs", "ties", "failed"),
    [
        (good_wins, 1, 1, 1, 0, 0),
        (bad_wins, 0, 0, 0, 0, 0),
        (all_equal, 0, 0.25, 0.5, 1, 0),
        (always_fails, 0, 0.25, 0.5, 0, 1),
        (lambda text, draw: good_wins(text, draw) or None, 1, 1, 1, 0, 0.75),
        (lambda text, draw: bad_wins(text, draw) or None, 0, 0, 0, 0, 0.25),
    ],
)
def test_known_raters(score, strict, split, pairs, ties, failed):
    report = evaluate(items(40), FakeRater(score))
    for found in (*report.subsets.values(), report.mean, report.overall):
        assert found.strict.value == strict
        assert found.split.value == split
        assert found.pairs.value == pairs
        assert found.strict.over_items == (strict, strict)
        assert (found.tie_rate, found.failure_rate, found.chance) == (ties, failed, 0.25)
        assert found.length_controlled.value == pytest.approx(pairs, abs=0.01)
    assert [found.n_items for found in report.subsets.values()] == [20, 20]
    assert report.mean.n_items == report.overall.n_items == 40


@pytest.mark.slow
def test_a_uniform_rater_of_four_responses():
    n = 6000
    report = evaluate(items(n), FakeRater(one_to_ten))
    found = report.overall
    five_errors = 5 * (0.25 / n) ** 0.5  # no share varies more than one of a half
    assert found.strict.value == pytest.approx(0.2025, abs=five_errors)
    assert found.split.value == pytest.approx(0.25, abs=five_errors)
    assert found.length_controlled.value == pytest.approx(0.5, abs=five_errors)
    assert found.chance == 0.25
    low, high = found.strict.over_items
    error = (0.2025 * 0.7975 / n) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_rater_that_likes_length():
    pairs = [
        Preference(i, "task", ("g" * (200 + d),), ("b" * 200,))
        for i, d in enumerate([*range(-60, 180, 3), *range(-180, 60, 9)])
        if d
    ]
    found = evaluate(pairs, FakeRater(likes_length)).overall
    assert found.pairs.value > 0.6
    assert found.length_controlled.value == pytest.approx(0.5, abs=0.1)


def test_subsets_count_the_same_in_the_mean_whatever_their_size():
    several = items(30, subsets=("large", "large", "small"))

    def score(text, draw):
        return good_wins(text, draw)

    class BySubset(FakeRater):
        def _scores(self, group, seed):
            place = int(group.instruction.split()[1])
            return [good_wins(text, None) if place % 3 == 2 else 0.0 for text in group.responses]

    report = evaluate(several, BySubset(score))
    assert list(report.subsets) == ["large", "small"]
    assert [found.n_items for found in report.subsets.values()] == [20, 10]
    assert [found.strict.value for found in report.subsets.values()] == [0, 1]
    assert report.mean.strict.value == 0.5
    assert report.overall.strict.value == pytest.approx(1 / 3)
    assert report.mean.strict.over_items == (0.5, 0.5)
    low, high = report.overall.strict.over_items
    assert low < 1 / 3 < high


def test_items_of_several_chosen_responses():
    item = Preference(1, "task", ("good", "good too"), ("bad",))
    report = evaluate([item], FakeRater(good_wins))
    assert report.overall.strict.value == 1
    assert report.overall.chance == pytest.approx(2 / 3)
    assert report.runs[0].scores == [[1.0, 1.0, 0.0]]


def test_seeds():
    rater = FakeRater(one_to_ten, uses_seed=True)
    several = items(60)
    report = evaluate(several, rater, seeds=[3, 4, 5])
    assert report.seeds == (3, 4, 5)
    assert [seed for _, seed in rater.calls] == [3, 4, 5]
    alone = [evaluate(several, FakeRater(one_to_ten), seeds=[seed]) for seed in (3, 4, 5)]
    assert [run.scores for run in report.runs] == [one.runs[0].scores for one in alone]
    values = [one.overall.strict.value for one in alone]
    found = report.overall.strict
    assert found.value == pytest.approx(fmean(values))
    assert found.over_seeds[0] < found.value < found.over_seeds[1]
    assert sum(found.over_seeds) / 2 == pytest.approx(found.value)
    controlled = report.overall.length_controlled
    assert controlled.value == pytest.approx(
        fmean(one.overall.length_controlled.value for one in alone)
    )
    assert controlled.over_seeds is not None
    assert report.cost == Cost(3 * 240, 30 * 240, 6 * 240, 0.75)


def test_a_rater_without_chance_runs_once():
    rater = FakeRater(good_wins)
    report = evaluate(items(8), rater, seeds=[7, 8])
    assert report.seeds == (7,)
    assert rater.calls == [(8, 7)]
    assert report.overall.strict.over_seeds is None


def test_large_sets_are_rated_in_parts_with_the_same_scores():
    several, rater, done = items(600), FakeRater(one_to_ten), []
    report = evaluate(several, rater, on_progress=done.append)
    assert [n for n, _ in rater.calls] == [256, 256, 88]
    assert done == [256, 512, 600]
    whole = FakeRater(one_to_ten).rate([item.group for item in several])
    assert report.runs[0].scores == whole.scores
    assert report.runs[0].statuses == whole.statuses


def test_neither_the_order_of_items_nor_their_neighbours_count():
    several = items(90)
    shuffled = random.Random(1).sample(several, len(several))
    first, second = (evaluate(group, FakeRater(one_to_ten)) for group in (several, shuffled))
    for subset, found in first.subsets.items():
        other = second.subsets[subset]
        assert found.strict.value == pytest.approx(other.strict.value)
        assert found.split.value == pytest.approx(other.split.value)
        assert found.length_controlled.value == pytest.approx(other.length_controlled.value)
    part = evaluate(several[:10], FakeRater(one_to_ten))
    assert part.runs[0].scores == first.runs[0].scores[:10]


def test_counts_of_a_rater_add_up_over_parts_and_runs():
    @dataclass(frozen=True)
    class Counted(Ratings):
        n_groups: int

    class Counting(FakeRater):
        def rate(self, groups, *, seed=0):
            return Counted(**vars(super().rate(groups, seed=seed)), n_groups=len(groups))

    several = items(300)
    report = evaluate(several, Counting(one_to_ten, uses_seed=True), seeds=[0, 1])
    assert [run.n_groups for run in report.runs] == [300, 300]
    assert report.counts == {"n_groups": 600}
    assert report.runs[1].cost.n_runs == 1200
    assert evaluate(several, FakeRater(one_to_ten)).counts == {}


def test_figures_come_from_the_scores_that_are_kept():
    several = items(50)
    report = evaluate(several, FakeRater(one_to_ten))
    again = [outcome(scores[:1], scores[1:]) for scores in report.runs[0].scores]
    assert report.overall.strict.value == pytest.approx(fmean(one.strict for one in again))
    assert report.overall.tie_rate == pytest.approx(fmean(one.tie for one in again))


@pytest.mark.parametrize(
    ("given", "seeds", "message"),
    [
        ([], [0], "got 0 items"),
        (items(2), [], "0 seeds"),
        ([*items(1), Preference(5, "task", ("a",), ())], [0], "line 5 has 1 chosen and 0 rejected"),
        ([Preference(6, "task", (), ("a",))], [0], "line 6 has 0 chosen"),
    ],
)
def test_what_cannot_be_compared(given, seeds, message):
    rater = FakeRater(good_wins)
    with pytest.raises(InputError, match=message):
        evaluate(given, rater, seeds=seeds)
    assert rater.calls == []
