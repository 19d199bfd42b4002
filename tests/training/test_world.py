"""The closed world keeps its promises: size, splits, failures, groups."""

from random import Random

import pytest

from flipfast.training.world import World
from flipfast.training.world.generator import FAILURES, REPEATED_INSTRUCTION
from flipfast.training.world.vocabulary import Vocabulary

DRAWS = 4000


def test_there_are_many_kinds_wordings_and_entities() -> None:
    kinds = World().kinds
    assert len(kinds) >= 40
    assert len({kind.name for kind in kinds}) == len(kinds)
    assert all(len(kind.asks) >= 2 and kind.body for kind in kinds)
    assert all(ask.leads for kind in kinds for ask in kind.asks)
    rng, vocabulary = Random(0), Vocabulary()
    classes = {name for kind in kinds for name in kind.slots.values()} - {"sum", "sentence", "num"}
    entities = {str(vocabulary.draw(name, rng)) for name in classes for _ in range(3000)}
    assert len(entities) > 3000


@pytest.mark.parametrize("held_out", [False, True])
def test_every_slot_is_filled(held_out: bool) -> None:
    rng, world = Random(1), World(held_out=held_out)
    for _ in range(DRAWS):
        sample = world.good(rng)
        assert not set("{}!") & set(sample.instruction)
        assert not set("{}") & set(sample.response)
        assert sample.target == sample.instruction


def test_no_held_out_instruction_is_ever_drawn_for_training() -> None:
    rng, kept, left_out = Random(2), World(), World(held_out=True)
    seen = {kept.good(rng).instruction for _ in range(DRAWS)}
    held_out = {left_out.good(rng).instruction for _ in range(400)}
    assert len(held_out) > 300
    assert not seen & held_out


def test_the_same_seed_draws_the_same_samples() -> None:
    world = World()
    assert world.group(Random(3)) == world.group(Random(3)) != world.group(Random(4))


def test_a_group_has_two_good_responses_and_every_failure() -> None:
    group = World().group(Random(4))
    labels = [sample.label for sample in group.samples]
    assert sorted(labels) == sorted(["good", "good", *FAILURES])
    assert {sample.instruction for sample in group.samples} == {group.instruction}


@pytest.mark.parametrize("label", FAILURES)
def test_failures_fail(label: str) -> None:
    rng, world = Random(5), World()
    samples = [world.failure(rng, label) for _ in range(50)]
    assert {sample.label for sample in samples} == {label}
    assert sum(sample.target != sample.instruction for sample in samples) >= 45
    if label == "repeated":
        assert all(s.instruction in s.response for s in samples)
        assert {s.target for s in samples} == {REPEATED_INSTRUCTION}


def test_an_unknown_failure_is_refused() -> None:
    with pytest.raises(ValueError, match="'lazy'"):
        World().failure(Random(0), "lazy")
