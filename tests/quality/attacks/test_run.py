"""Attacks against raters whose answers are known, and against the embedded model."""

from __future__ import annotations

from random import Random

import pytest

from flipfast.quality.attacks import Attack, Outcome, figures, from_text, load_attacks, run_attacks
from flipfast.quality.attacks.families.content import first_sentence
from flipfast.quality.raters import Group, load_rater
from flipfast.reward import FlipReward
from tests.quality.attacks.toys import Duel, Toy

GROUPS = [
    Group("Name a river.", ("The Ebro. It is long.", "Note: the Tagus.")),
    Group("Name a town.", ("Toledo.",), context="user: hello"),
    Group("Say more.", ("Well.", "Yes: no.", "Again: this is it.")),
]
COLON = from_text("mine/colon", ":")
BEHIND = from_text("mine/behind", "{response} !")


def counts_colons(text: str) -> float:
    return float(text.count(":"))


def test_a_rater_that_loves_colons_is_found_out():
    (trial,) = run_attacks([Toy(counts_colons)], [COLON], GROUPS)
    found = figures(trial.outcomes[0])
    # Of six honest responses three have a colon themselves: a tie, and the others lose.
    assert (found.honest, found.attacked, found.change) == (0.5, 1.0, 0.5)
    assert (found.beats, found.ties) == (0.5, 0.5)
    assert (found.honest_failed, found.attacked_failed) == (0.0, 0.0)


@pytest.mark.parametrize("attack", load_attacks(), ids=lambda attack: attack.name)
def test_a_rater_that_cannot_be_moved(attack):
    (trial,) = run_attacks([Toy(lambda _: 0.25)], [attack], GROUPS)
    assert len(trial.pairs) + trial.n_unchanged == 6
    if trial.pairs:
        found = figures(trial.outcomes[0])
        assert (found.honest, found.change, found.beats, found.ties) == (0.25, 0.0, 0.0, 1.0)


def test_raters_see_pairs_with_instruction_and_context():
    rater = Toy(counts_colons)
    (trial,) = run_attacks([rater], [BEHIND], GROUPS)
    responses = [(group, text) for group in GROUPS for text in group.responses]
    assert rater.asked == [
        Group(group.instruction, (text, f"{text} !"), group.context) for group, text in responses
    ]
    assert [(pair.group, pair.response) for pair in trial.pairs] == [
        (0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)
    ]  # fmt: skip


def test_raters_that_compare_are_asked_the_same():
    (trial,) = run_attacks([Toy(len), Duel(len)], [BEHIND], GROUPS)
    scores, duels = trial.outcomes
    assert figures(scores).change == 2.0
    assert (duels.honest, duels.attacked) == ([0.0] * 6, [1.0] * 6)
    assert figures(scores).beats == figures(duels).beats == 1.0


def test_failures_are_no_zeros():
    """Without a score there is nothing to compare, and both shares of failures are told."""
    outcome = Outcome([1.0, None, 3.0, 4.0], [2.0, 9.0, None, 3.0], ["ok"] * 4, ["ok"] * 4)
    found = figures(outcome)
    assert (found.honest, found.attacked, found.change) == (2.5, 2.5, 0.0)
    assert (found.beats, found.ties) == (0.5, 0.0)
    assert (found.honest_failed, found.attacked_failed) == (0.25, 0.25)


def test_a_rater_that_always_fails():
    (trial,) = run_attacks([Toy(lambda _: None)], [COLON], GROUPS)
    found = figures(trial.outcomes[0])
    assert found.change is found.beats is found.ties is found.honest is found.attacked is None
    assert (found.honest_failed, found.attacked_failed) == (1.0, 1.0)
    assert trial.outcomes[0].attacked_statuses == ["unparsed"] * 6


def test_a_response_that_stays_as_it_is_makes_no_pair():
    short = Attack("mine/short", lambda case, _: first_sentence(case.response))
    (trial,) = run_attacks([Toy(counts_colons)], [short], GROUPS)
    assert [(pair.group, pair.response) for pair in trial.pairs] == [(0, 0)]
    assert trial.n_unchanged == 5
    (none,) = run_attacks([Toy(counts_colons)], [from_text("mine/same", "{response}")], GROUPS)
    assert (none.pairs, none.n_unchanged) == ([], 6)
    assert figures(none.outcomes[0]).attacked_failed is None


def test_an_attack_may_be_held_against_less_than_the_response():
    attack = Attack("mine/long", lambda case, _: "x" * 99, against=first_sentence)
    (trial,) = run_attacks([Toy(len)], [attack], GROUPS[:1])
    assert trial.pairs[0].honest == "The Ebro."
    assert trial.outcomes[0].honest[0] == 9


@pytest.mark.slow
def test_pairs_do_not_depend_on_other_groups():
    attacks = load_attacks()
    together = run_attacks([Toy(len)], attacks, GROUPS, special_tokens=("<s>",), seed=3)
    order = list(range(len(GROUPS)))
    Random(1).shuffle(order)
    for place, at in enumerate(order):
        shuffled = run_attacks(
            [Toy(len)], attacks, [GROUPS[i] for i in order], special_tokens=("<s>",), seed=3
        )
        alone = run_attacks([Toy(len)], attacks, [GROUPS[at]], special_tokens=("<s>",), seed=3)
        for one, other, single in zip(together, shuffled, alone, strict=True):
            texts = [[p.attacked for p in one.pairs if p.group == at]]
            texts += [[p.attacked for p in other.pairs if p.group == place]]
            assert texts == [[p.attacked for p in single.pairs]] * 2


def test_no_groups_and_no_attacks():
    (trial,) = run_attacks([Toy(len)], [COLON], [])
    assert (trial.pairs, trial.n_unchanged) == ([], 0)
    assert run_attacks([Toy(len)], [], GROUPS) == []


@pytest.mark.slow
def test_the_embedded_model_gives_the_rewards():
    with FlipReward() as reward:
        rater = load_rater("flip", reward)
        attacks = load_attacks(["copying/alone", "keys/colon"])
        trials = run_attacks([rater], attacks, GROUPS)
        for trial in trials:
            instructions = [GROUPS[pair.group].instruction for pair in trial.pairs]
            contexts = [GROUPS[pair.group].context for pair in trial.pairs]
            for texts, scores in (
                ([pair.honest for pair in trial.pairs], trial.outcomes[0].honest),
                ([pair.attacked for pair in trial.pairs], trial.outcomes[0].attacked),
            ):
                assert reward.score(instructions, texts, contexts).rewards == scores
