"""How far two engines' outputs for the same prompts agree, by first tokens and by rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flipfast.quality.agreement import agreement

LEAST_FIRST_TOKENS, LEAST_SPEARMAN = 0.95, 0.97

Outputs = Sequence[list[int]]
Rewards = Sequence[float]


def checked_agreement(
    ours: Outputs, theirs: Outputs, rewards_of: Callable[[Outputs], Rewards]
) -> dict[str, float]:
    """`equal_first_tokens`, a share of the rows, and `spearman` of the rewards.

    The engines round differently, so that greedy outputs part where two tokens are as likely; the
    rewards must rank responses alike all the same.

    Raises:
        AssertionError: one of them is too small, or rows are missing.
    """
    assert len(ours) == len(theirs), f"{len(theirs)} outputs for {len(ours)} prompts"
    equal = [a[:1] == b[:1] for a, b in zip(ours, theirs, strict=True)]
    first, rank = sum(equal) / len(equal), spearman(rewards_of(ours), rewards_of(theirs))
    assert first >= LEAST_FIRST_TOKENS, (
        f"{first:.1%} of the rows begin with the same token, {LEAST_FIRST_TOKENS:.0%} must; the "
        f"first that does not is row {equal.index(False)}"
    )
    assert rank >= LEAST_SPEARMAN, (
        f"the rewards' rank correlation is {rank:.3f}, it must be {LEAST_SPEARMAN}"
    )
    return {"equal_first_tokens": first, "spearman": rank}


def spearman(ours: Rewards, theirs: Rewards) -> float:
    """The rank correlation; 1 for equal rewards, also for rewards that are all the same one."""
    if list(ours) == list(theirs):
        return 1.0
    found = agreement([ours], [theirs]).spearman
    return 0.0 if found is None else found
