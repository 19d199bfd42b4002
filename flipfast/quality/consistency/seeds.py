"""Compares sampled rewards across seeds: how much of them is noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from flipfast.errors import ConfigError
from flipfast.quality.consistency.changes import Change, RankFlips, Run, change
from flipfast.quality.raters import Group
from flipfast.quality.raters.flip import FlipRater
from flipfast.reward import FlipReward

USUAL_TEMPERATURE = 1.0
Responses = list[list[float]]  # of a group: each response's rewards in the runs that have one


@dataclass(frozen=True)
class SeedNoise:
    """How rewards vary with the seed; None where undefined.

    Standard deviations are sample standard deviations, with n - 1 in the denominator.

    Attributes:
        temperature: the temperature of the inversions.
        runs: one per seed.
        noise: standard deviation of a response's reward over seeds; mean over the responses that
            have two rewards or more.
        signal: standard deviation over a group's responses of their mean rewards over seeds; mean
            over the groups with two or more responses that have a reward.
        signal_to_noise: signal / noise; None also if noise is 0.
        flips: over all pairs of seeds together.
        same_best, chance: see Agreement; mean over all pairs of seeds.
    """

    temperature: float
    runs: list[Run]
    noise: float | None
    signal: float | None
    signal_to_noise: float | None
    flips: RankFlips
    same_best: float | None
    chance: float | None

    @classmethod
    def of(cls, temperature: float, runs: list[Run]) -> SeedNoise:
        """Compute the figures of two or more runs over the same groups."""
        groups = rewards_by_response(runs)
        noises = [stdev(rewards) for group in groups for rewards in group if len(rewards) > 1]
        means = [[fmean(rewards) for rewards in group if rewards] for group in groups]
        noise, signal = _mean(noises), _mean([stdev(group) for group in means if len(group) > 1])
        changes = [change(a, b) for a, b in combinations(runs, 2)]
        agreements = [one.agreement for one in changes]
        return cls(
            temperature,
            runs,
            noise=noise,
            signal=signal,
            signal_to_noise=signal / noise if noise and signal is not None else None,
            flips=_pooled(changes),
            same_best=_mean([one.same_best for one in agreements if one.same_best is not None]),
            chance=_mean([one.chance for one in agreements if one.chance is not None]),
        )


def compare_seeds(reward: FlipReward, groups: Sequence[Group], n_seeds: int = 4) -> SeedNoise:
    """Score groups with sampled inversions, once per seed.

    Args:
        reward: a temperature of 0 is raised to 1.0; its seed is the first.
        groups: any number.
        n_seeds: at least 2.

    Raises:
        ConfigError: there are fewer seeds, or the reward cannot sample.
        MissingDependencyError: scipy is not installed.
    """
    if n_seeds < 2:
        raise ConfigError(f"there must be at least 2 seeds to compare, not {n_seeds}")
    if reward.config.scoring != "generate":
        raise ConfigError(f"scoring={reward.config.scoring!r} samples nothing")
    temperature = reward.config.temperature or USUAL_TEMPERATURE
    config = reward.config.with_options({"temperature": temperature})
    rater = FlipRater("flip", FlipReward(config, inverter=reward.inverter))
    seeds = range(config.seed, config.seed + n_seeds)
    runs = [Run.of(f"seed={seed}", rater.rate(groups, seed=seed).scores) for seed in seeds]
    return SeedNoise.of(temperature, runs)


def rewards_by_response(runs: Sequence[Run]) -> list[Responses]:
    """Collect each response's rewards in all runs, by group, leaving out failures."""
    return [
        [
            [reward for reward in rewards if reward is not None]
            for rewards in zip(*groups, strict=True)
        ]
        for groups in zip(*(run.rewards for run in runs), strict=True)
    ]


def _pooled(changes: Sequence[Change]) -> RankFlips:
    flips = [one.flips for one in changes]
    return RankFlips.of(sum(one.n_pairs for one in flips), sum(one.n_flipped for one in flips))


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
