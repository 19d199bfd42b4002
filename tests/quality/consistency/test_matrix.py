"""The matrix of instructions and inversions: known answers, ties, failures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast import overlap_f1
from flipfast.errors import ConfigError
from flipfast.metrics.rouge_l import rouge_l
from flipfast.quality.consistency import InstructionMatrix, instruction_matrix
from flipfast.quality.raters import Group

INSTRUCTIONS = ["Name one river", "Name two towns", "Bake bread"]
GROUPS = [Group(text, (f"reply {i}", "reply x")) for i, text in enumerate(INSTRUCTIONS)]


def own_instruction(prompt, request):
    return next((x for i, x in enumerate(INSTRUCTIONS) if f"reply {i}" in prompt), "")


def by_numpy(values):
    """Own wins and tie-split wins of a matrix without failures, column after column."""
    wins, split = [], []
    for j, column in enumerate(values.T):
        top = np.flatnonzero(column == column.max())
        wins.append(list(top) == [j])
        split.append((j in top) / len(top))
    return np.mean(wins), np.mean(split)


def test_inversions_that_are_the_instructions(scripted):
    found = instruction_matrix(scripted(own_instruction), GROUPS)
    expected = [overlap_f1(INSTRUCTIONS, [x] * 3)[:, 0] for x in INSTRUCTIONS]
    assert np.array_equal(found.values, expected)
    assert found.values[0, 1] == pytest.approx(1 / 3)
    assert (found.own, found.wins, found.wins_split) == (1, 1, 1)
    assert found.others == pytest.approx(2 / 3 / 6)
    assert (found.chance, found.n_failed, found.n_left_out) == (pytest.approx(1 / 3), 0, 0)


def test_inversions_that_are_all_the_same(scripted):
    for text in ("Name one river", "Name", "nothing of this"):
        found = instruction_matrix(scripted(lambda *_, text=text: text), GROUPS)
        assert found.wins_split == pytest.approx(found.chance)
    assert (found.wins, found.own, found.others) == (0, 0, 0)  # all columns tie throughout


def test_the_row_is_the_instruction_and_the_first_response_counts(scripted):
    groups = [Group("k l", ("first", "second")), Group("k", ("other",))]
    reward = scripted(lambda prompt, _: "x" if "other" in prompt or "second" in prompt else "k")
    values = instruction_matrix(reward, groups).values
    assert values.tolist() == [[pytest.approx(2 / 3), 0], [1, 0]]
    assert len(reward.inverter.requests) == 2


def test_the_metric_of_the_reward_counts(scripted):
    found = instruction_matrix(scripted(own_instruction, metric="rouge_l"), GROUPS)
    expected = [rouge_l(INSTRUCTIONS, [x] * 3) for x in INSTRUCTIONS]
    assert np.array_equal(found.values, expected)


def test_the_diagonal_holds_the_rewards(scripted):
    reward = scripted(lambda prompt, _: "Name one loaf of bread", style="direct")
    found = instruction_matrix(reward, GROUPS)
    rewards = reward.score(INSTRUCTIONS, [group.responses[0] for group in GROUPS]).rewards
    assert found.values.diagonal().tolist() == rewards


@pytest.mark.parametrize("on_failure", [None, 0.0])
def test_a_failure_is_left_out_and_counted(scripted, on_failure):
    def script(prompt, request):
        return "" if "reply 1" in prompt else own_instruction(prompt, request)

    found = instruction_matrix(scripted(script, on_failure=on_failure), GROUPS)
    assert np.isnan(found.values).all(axis=0).tolist() == [False, True, False]
    assert (found.own, found.wins, found.n_failed) == (1, 1, 1)
    assert found.others == pytest.approx(1 / 3 / 4)


def test_groups_without_responses_and_a_group_alone(scripted):
    found = instruction_matrix(scripted(own_instruction), [Group("Hi", ()), GROUPS[2]])
    assert (found.values.tolist(), found.own, found.n_left_out) == ([[1]], 1, 1)
    assert found.others is found.wins is found.wins_split is None
    nothing = instruction_matrix(scripted(own_instruction), [])
    assert nothing.values.shape == (0, 0)
    assert nothing.own is nothing.wins is nothing.chance is None
    failed = instruction_matrix(scripted(lambda *_: ""), GROUPS)
    assert failed.own is failed.others is failed.wins is None
    assert failed.n_failed == 3


def test_the_order_of_groups_does_not_matter(scripted):
    order = [2, 0, 1]
    reward = scripted(own_instruction)
    straight = instruction_matrix(reward, GROUPS)
    shuffled = instruction_matrix(reward, [GROUPS[i] for i in order])
    assert np.array_equal(shuffled.values, straight.values[np.ix_(order, order)])
    part = instruction_matrix(reward, GROUPS[:2])
    assert np.array_equal(part.values, straight.values[:2, :2])


def test_two_groups_with_one_instruction_tie():
    found = InstructionMatrix.of(np.array([[1.0, 1.0], [1.0, 1.0]]))
    assert (found.wins, found.wins_split) == (0, 0.5)


@pytest.mark.slow
@given(st.integers(2, 6).flatmap(lambda n: st.lists(st.integers(0, 3), min_size=n * n)))
def test_wins_column_by_column(entries):
    n = int(len(entries) ** 0.5)
    values = np.array(entries[: n * n], dtype=np.float64).reshape(n, n)
    found = InstructionMatrix.of(values)
    assert (found.wins, found.wins_split) == pytest.approx(by_numpy(values))
    assert found.own == pytest.approx(np.trace(values) / n)
    assert found.others == pytest.approx((values.sum() - np.trace(values)) / (n * n - n))


def test_what_writes_nothing_has_no_matrix():
    class Likelihood:
        class config:
            scoring = "likelihood"

    with pytest.raises(ConfigError, match="likelihood"):
        instruction_matrix(Likelihood(), GROUPS)
