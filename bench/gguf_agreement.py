"""How far engines' outputs for the same prompts agree, by first tokens and by rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flipfast.quality.agreement import agreement

GOAL_FIRST_TOKENS, GOAL_SPEARMAN = 0.95, 0.97
_CHANCE = 0.1  # of the rows: what chance may take from either engine's agreement with floats

Outputs = Sequence[list[int]]
Rewards = Sequence[float]


def checked_agreement(
    ours: Outputs, theirs: Outputs, floats: Outputs, rewards_of: Callable[[Outputs], Rewards]
) -> dict[str, float]:
    """Share of rows with equal first tokens, and rank correlation of rewards, by pairs of engines.

    Two engines round the same blocks differently, so that greedy outputs part where two tokens are
    about as likely. How often that is depends on the model: `as_alike_as_wanted` is 1.0 where ours
    and theirs reach the goals. What must hold on any model is that ours are about as close to
    outputs with the same weights in floats as theirs are.

    Raises:
        AssertionError: ours are farther from floats, or rows are missing.
    """
    assert len(ours) == len(theirs), f"{len(theirs)} outputs for {len(ours)} prompts"
    rewards = {"ours": rewards_of(ours), "theirs": rewards_of(theirs), "floats": rewards_of(floats)}
    outputs = {"ours": ours, "theirs": theirs, "floats": floats}
    found = {}
    for one, other in (("ours", "theirs"), ("ours", "floats"), ("theirs", "floats")):
        pairs = zip(outputs[one], outputs[other], strict=True)
        equal = [a[:1] == b[:1] for a, b in pairs]
        found[f"{one}_{other}_first_tokens"] = sum(equal) / len(equal)
        found[f"{one}_{other}_spearman"] = spearman(rewards[one], rewards[other])
    mine, peer = found["ours_floats_first_tokens"], found["theirs_floats_first_tokens"]
    assert mine >= peer - _CHANCE, (
        f"{mine:.1%} of our outputs begin as with floats, {peer:.1%} of theirs do"
    )
    first, rank = found["ours_theirs_first_tokens"], found["ours_theirs_spearman"]
    wanted = first >= GOAL_FIRST_TOKENS and rank >= GOAL_SPEARMAN
    return {**found, "as_alike_as_wanted": float(wanted)}


def spearman(ours: Rewards, theirs: Rewards) -> float:
    """The rank correlation; 1 for equal rewards, also for rewards that are all the same one."""
    if list(ours) == list(theirs):
        return 1.0
    found = agreement([ours], [theirs]).spearman
    return 0.0 if found is None else found
