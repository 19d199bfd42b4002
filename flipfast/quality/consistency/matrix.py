"""Compares every instruction with every inversion: does a response's own one stand out?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flipfast.errors import ConfigError
from flipfast.metrics.base import Values
from flipfast.metrics.registry import load_metric
from flipfast.quality.raters import Group
from flipfast.reward import FlipReward
from flipfast.scores import failed


@dataclass(frozen=True)
class InstructionMatrix:
    """The metric between n instructions and the inversions of one response to each of them.

    Attributes:
        values: float64 (n, n); [i, j] compares instruction i with the inversion of j's response.
            A response that could not be inverted has a column of NaN, which no figure counts.
        own: mean of the diagonal; None if there are no inversions.
        others: mean of the rest; None also with fewer than two instructions.
        wins: share of columns whose diagonal entry is above all others: the response's own
            instruction fits best. None if `others` is.
        wins_split: the same with ties split: if k entries share the top, the diagonal's among
            them, the column counts 1/k.
        chance: 1/n, which is wins_split if all inversions are the same; None without instructions.
        n_failed: columns without an inversion.
        n_left_out: groups without responses.
    """

    values: Values
    own: float | None
    others: float | None
    wins: float | None
    wins_split: float | None
    chance: float | None
    n_failed: int
    n_left_out: int

    @classmethod
    def of(cls, values: Values, n_left_out: int = 0) -> InstructionMatrix:
        """Compute the figures of a matrix.

        Args:
            values: see the class.
            n_left_out: groups without responses, which are not in the matrix.
        """
        n = len(values)
        inverted = ~np.isnan(values).any(axis=0)
        columns, own = values[:, inverted], np.eye(n, dtype=bool)[:, inverted]
        top = columns == columns.max(axis=0, initial=-np.inf)
        parts = (top & own).sum(axis=0) / np.maximum(top.sum(axis=0), 1)
        alone = n < 2
        return cls(
            values,
            own=_mean(columns[own]),
            others=_mean(columns[~own]),
            wins=None if alone else _mean(parts == 1),
            wins_split=None if alone else _mean(parts),
            chance=1 / n if n else None,
            n_failed=n - int(inverted.sum()),
            n_left_out=n_left_out,
        )


def instruction_matrix(reward: FlipReward, groups: Sequence[Group]) -> InstructionMatrix:
    """Invert the first response of each group and compare it with every group's instruction.

    Each response is inverted once: n inversions and n * n values of the reward's metric. With
    several samples per response, the first inversion that did not fail counts.

    Args:
        reward: with scoring="generate"; any style and metric.
        groups: any number. Those without responses are left out.

    Raises:
        ConfigError: the reward generates no instructions, as with scoring="likelihood".
    """
    config = reward.config
    if config.scoring != "generate":
        raise ConfigError(f"scoring={config.scoring!r} writes no instructions to compare")
    rows = [group for group in groups if group.responses]
    instructions = [group.instruction for group in rows]
    batch = reward.score(
        instructions, [group.responses[0] for group in rows], [group.context for group in rows]
    )
    metric = load_metric(config.metric, reward.inverter.tokenizer)
    values = np.full((len(rows), len(rows)), np.nan)
    for j, (inferred, status) in enumerate(zip(batch.inferred, batch.status, strict=True)):
        if not failed(status):
            values[:, j] = metric([inferred] * len(rows), instructions)
    return InstructionMatrix.of(values, len(groups) - len(rows))


def _mean(values: Values) -> float | None:
    return float(values.mean()) if len(values) else None
