"""Whole rewards of groups with the embedded model, and the figures of a run."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from bench.workloads import Groups, columns
from flipfast import FlipReward, ScoreBatch


class Run(NamedTuple):
    """The rewards, and what each of them took; of best-of-N the winners with their rewards."""

    rewards: list[float | None]
    figures: dict[str, float]


def warm_reward(options: dict[str, Any], warm_up: Groups) -> FlipReward:
    """A reward that has scored some groups besides those that count.

    Its drafts know what a process knows that has been at work for a while; no prompt but the
    template's start is cached.
    """
    reward = FlipReward(**{"device": "cpu", **options})
    reward.score(*columns(warm_up))
    reward.inverter.forget_prefixes()  # type: ignore[attr-defined]
    return reward


def score(reward: FlipReward, groups: Groups) -> tuple[ScoreBatch, Run]:
    """Score groups in one call."""
    batch, counted = _counted(reward, lambda: reward.score(*columns(groups)))
    n, seconds = len(batch), counted["seconds"]
    figures = {
        "passes_a_reward": counted["sampling_passes"] / n,
        "tokens_a_reward": sum(batch.n_output_tokens) / n,
        "rows_a_reward": counted["computed_tokens"] / n,
        "rewards_per_s": n / seconds,
        "prompt_tokens_per_s": sum(batch.n_prompt_tokens) / seconds,
        "output_tokens_per_s": sum(batch.n_output_tokens) / seconds,
    }
    return batch, Run(batch.rewards, figures)


def best_of_groups(reward: FlipReward, groups: Groups, *, prune: bool) -> Run:
    """The winners' places and rewards, a call a group, and what each group took."""

    def best(instruction: str, responses: list[str]) -> tuple[int | None, float | None, int]:
        if prune:
            batch: Any = reward.score_best_of(instruction, responses)
            place = batch.best
        else:
            batch = reward.score([instruction] * len(responses), responses)
            place = max(range(len(batch)), key=lambda i: (batch.rewards[i] or 0.0, -i))
        return place, batch.rewards[place], sum(batch.n_output_tokens)

    found, counted = _counted(reward, lambda: [best(*group) for group in groups])
    figures = {
        "passes_a_group": counted["sampling_passes"] / len(groups),
        "output_tokens_a_group": sum(n_tokens for *_, n_tokens in found) / len(groups),
        "groups_per_s": len(groups) / counted["seconds"],
        "rewards_per_s": sum(len(responses) for _, responses in groups) / counted["seconds"],
    }
    return Run([value for place, best_f1, _ in found for value in (place, best_f1)], figures)


def _counted(reward: FlipReward, run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call gives, its seconds, and by how much it has moved the engine's counters."""
    before, started = reward.inverter.counters, perf_counter()  # type: ignore[attr-defined]
    result = run()
    seconds, after = perf_counter() - started, reward.inverter.counters  # type: ignore[attr-defined]
    moved = {name: getattr(after, name) - value for name, value in vars(before).items()}
    return result, {**moved, "seconds": seconds}
