"""A row's samples, and the row's scores computed from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean, pstdev
from typing import Any

from flipfast.errors import InputError
from flipfast.metrics import overlap_f1
from flipfast.prompts.rendering import RenderedPrompt
from flipfast.scores import failed, failure_status

PRUNED = "pruned"  # the status of an output that was ended because it could no longer win


@dataclass
class Sample:
    """The result of one inversion of a row.

    Attributes:
        inferred: the inferred instruction, or a function that extracts it on demand.
        status: see ScoreBatch.
        error: what was wrong, for status "error" or "contentless".
        n_output_tokens: length of the model's output.
        scores: F1, precision and recall; None until computed.
        reward: if it is not the F1.
    """

    inferred: str | Callable[[], str] = ""
    status: str = "error"
    error: str | None = None
    n_output_tokens: int = 0
    scores: list[float] | None = None
    reward: float | None = None

    @property
    def text(self) -> str:
        """The inferred instruction."""
        if not isinstance(self.inferred, str):
            self.inferred = self.inferred()
        return self.inferred

    @property
    def failed(self) -> bool:
        """Whether there is no inferred instruction."""
        return failed(self.status)


@dataclass
class Row:
    """One row on its way from texts to a reward.

    Attributes:
        instruction: the true instruction.
        prompt: None for a row that is not run: invalid input, or no text or too few words.
        samples: at least one, once the row has been run.
        copied: the share of the instruction that the response copied; None if not looked for.
        factor: multiplies non-negative rewards.
    """

    instruction: str = ""
    prompt: RenderedPrompt | None = None
    samples: list[Sample] = field(default_factory=list)
    copied: float | None = None
    factor: float = 1.0

    @property
    def shown(self) -> Sample:
        """The first sample that did not fail, else the first."""
        return next((sample for sample in self.samples if not sample.failed), self.samples[0])


def read_row(
    make: Callable[[str, str, str | None], Row],
    read: Callable[..., tuple[str, str, str | None]],
    *entries: Any,
) -> Row:
    """Make a row from a caller's input; invalid input becomes the row's error.

    Args:
        make: makes a row from an instruction, a response and a context.
        read: extracts those from the entries, or raises InputError.
        entries: as given.
    """
    try:
        return make(*read(*entries))
    except InputError as error:
        return Row(samples=[Sample(status=failure_status(error), error=str(error))])


@dataclass(frozen=True)
class RowScores:
    """Means over a row's samples, and the population standard deviation of its rewards.

    None where no sample counts.
    """

    reward: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    std: float | None


def score_rows(rows: list[Row], on_failure: float | None) -> list[RowScores]:
    """Compute the scores of every row.

    Args:
        rows: all of which have been run.
        on_failure: the reward of a failed sample; None leaves it out of the mean.
    """
    unscored = [(row, s) for row in rows for s in row.samples if s.scores is None]
    table = _table([(sample.text, row.instruction) for row, sample in unscored])
    for _, sample in unscored:
        sample.scores = next(table)
    return [_scores(row, on_failure) for row in rows]


def agreement(row: Row) -> float | None:
    """Return the mean F1 over all pairs of a row's samples; None for fewer than two."""
    texts = [sample.text for sample in row.samples if not sample.failed]
    values = [triple[0] for triple in _table(list(combinations(texts, 2)))]
    return fmean(values) if values else None


def _scores(row: Row, on_failure: float | None) -> RowScores:
    table = [(sample.failed, sample.scores or [0.0] * 3) for sample in row.samples]
    good = [triple for failed, triple in table if not failed]
    values = [
        triple[0] if sample.reward is None else sample.reward
        for sample, (_, triple) in zip(row.samples, table, strict=True)
    ]
    rewards = [
        on_failure if failed else min(value, value * row.factor)
        for value, (failed, _) in zip(values, table, strict=True)
    ]
    counted = [reward for reward in rewards if reward is not None]
    return RowScores(
        reward=fmean(counted) if counted else None,
        f1=fmean(triple[0] for triple in good) if good else None,
        precision=fmean(triple[1] for triple in good) if good else None,
        recall=fmean(triple[2] for triple in good) if good else None,
        std=pstdev(counted) if counted else None,
    )


def _table(pairs: list[tuple[str, str]]) -> Iterator[list[float]]:
    """Return F1, precision and recall of each (prediction, reference) pair."""
    return iter(overlap_f1([pair[0] for pair in pairs], [pair[1] for pair in pairs]).tolist())
