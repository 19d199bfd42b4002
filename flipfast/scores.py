"""The results of scoring: batches, their counters, and the best of several responses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Generic, TypeVar, overload

from flipfast.checks import brief
from flipfast.errors import ContentlessError, FlipfastError, InputError

_log = logging.getLogger(__name__)

Entry = TypeVar("Entry")
ScoredRow = dict[str, Any]  # with SCORE_KEYS as its keys, and those EXTRA_KEYS that apply

# The fields of ScoreBatch, in its order, under their names for a single row.
SCORE_KEYS = (
    "reward",
    "precision",
    "recall",
    "inferred",
    "status",
    "n_prompt_tokens",
    "n_output_tokens",
    "error",
)
# Fields that only some batches have: with several samples per row, scoring="likelihood", or a
# copy guard.
EXTRA_KEYS = ("reward_std", "agreement", "forced_f1", "copied")


CUT = "+response_cut"  # suffix of a status: the response or context lost its middle
CONTENTLESS = "contentless"  # the status of a response without a text, or with too few words
_FAILURES = ("empty", "unparsed", CONTENTLESS, "error")


def failed(status: str) -> bool:
    """Return whether a row with this status has no inferred instruction."""
    return status.removesuffix(CUT) in _FAILURES


def failure_status(error: str | FlipfastError) -> str:
    """Return the status of a row that could not be run because of an error."""
    return CONTENTLESS if isinstance(error, ContentlessError) else "error"


def failed_row(error: str | FlipfastError, on_failure: float | None = None) -> ScoredRow:
    """Make the row of scores for a row that could not be scored, with the reason."""
    values = (on_failure, None, None, "", failure_status(error), 0, 0, str(error))
    return dict(zip(SCORE_KEYS, values, strict=True))


def check_lengths(**columns: Sequence[Any]) -> None:
    """Check that columns have one entry per row.

    Raises:
        InputError: a column is not a list, or they differ in length.
    """
    for name, column in columns.items():
        if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
            raise InputError(f"{name} must be a list with one entry a row, got {brief(column)}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{n} {name}" for name, n in lengths.items())
        raise InputError(f"got {shown}: there must be as many of each")


def members_of_groups(
    rewards: Sequence[float | None], groups: int | Sequence[Any]
) -> list[list[float | None]]:
    """Split rewards into their groups.

    Args:
        rewards: one per row.
        groups: the size of consecutive groups; or one entry per row, such as its prompt:
            neighboring rows with equal entries form a group.

    Raises:
        InputError: the row count is not a multiple of the size, or not that of the entries.
    """
    if isinstance(groups, int):
        if groups < 1 or len(rewards) % groups:
            raise InputError(f"{len(rewards)} rows cannot be cut into groups of {groups}")
        groups = [row // groups for row in range(len(rewards))]
    check_lengths(rewards=rewards, groups=groups)
    pairs = groupby(zip(groups, rewards, strict=True), key=lambda pair: pair[0])
    return [[reward for _, reward in members] for _, members in pairs]


def trainer_rewards(batch: ScoreBatch) -> list[float | None]:
    """Return only the rewards, and log rows with errors, which such a list has no room for."""
    errors = [error for error in batch.errors if error is not None]
    if errors:
        _log.warning("%d of %d rows have no reward: %s", len(errors), len(batch), errors[0])
    return batch.rewards


class Lazy(Sequence[Entry], Generic[Entry]):
    """A sequence whose entries may be computed on first read; equal to a list of the same entries.

    Args:
        entries: the entries, or functions that return them.
    """

    def __init__(self, entries: Iterable[Entry | Callable[[], Entry]]) -> None:
        self._entries = list(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        entry = self._entries[index]
        if callable(entry):
            entry = self._entries[index] = entry()
        return entry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (list, Lazy)) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Lazy, (list(self),)


@dataclass(frozen=True)
class ScoreStats:
    """Counters of one call.

    Attributes:
        n_rewards: rows scored.
        n_failed: rows without an inferred instruction.
        n_folded: inversions identical to another one of the call, which shared its run.
        n_cached: inversions, folded ones aside, with results cached by an earlier call.
        seconds: wall time of the call.
        rewards_per_s: n_rewards per second.
        tokens_per_s: prompt and output tokens per second, of the inversions that were run.
    """

    n_rewards: int
    n_failed: int
    n_folded: int
    n_cached: int
    seconds: float
    rewards_per_s: float
    tokens_per_s: float


@dataclass(frozen=True)
class ScoreBatch:
    """The rewards of a batch; every list has one entry per row, in input order.

    Attributes:
        rewards: word F1 of inferred and true instruction, in [0, 1]; `on_failure` if there is no
            inferred instruction. See FlipConfig for what `scoring`, `metric` and `copy_guard`
            change.
        precision: share of the inferred words that are in the instruction; None for a failure.
        recall: share of the instruction's words that were inferred; None for a failure.
        inferred: the inferred instruction, "" for a failure; read it like a list. On a GPU
            rewards come without the texts, and an entry is decoded when first read.
        status: "ok" (clean output), "recovered" (found in malformed output), "prose" (no object
            could be read, and the whole output was scored), "truncated" (the output ended inside
            the instruction; the part before that was scored), or the failures "empty", "unparsed",
            "contentless" (the response has no text, or fewer words than `min_response_words`, and
            was not inverted) and "error"; with the suffix "+response_cut" if the response or
            context was too long for the prompt and lost its middle.
        n_prompt_tokens: length of the prompt.
        n_output_tokens: length of the model's output.
        errors: for status "error" what was wrong with the row, for "contentless" why the response
            has no text, else None.
        stats: counters of the call.
        reward_std: population standard deviation of the rewards of a row's samples; None for a row
            without any. The list itself is None with one sample per row.
        agreement: mean word F1 between the inferred instructions of a row's samples, over all
            pairs; None for a row with fewer than two. The list itself is None with one sample per
            row. Computed when read, since it needs the texts.
        forced_f1: with scoring="likelihood", word F1 of `inferred` and the true instruction; None
            for a failure. The list itself is None with other scoring.
        copied: with a `copy_guard`, the share of the true instruction's words that the response
            copied in runs, in [0, 1]; None for a failure. The list itself is None without one.

    With several samples per row, reward, precision and recall are means over them, inferred and
    status are those of the first sample that did not fail, and n_output_tokens is their sum. A
    failed sample counts as a reward of `on_failure`, or not at all if that is None, and never in
    precision and recall.
    """

    rewards: list[float | None]
    precision: list[float | None]
    recall: list[float | None]
    inferred: Lazy[str]
    status: list[str]
    n_prompt_tokens: list[int]
    n_output_tokens: list[int]
    errors: list[str | None]
    stats: ScoreStats
    reward_std: list[float | None] | None = None
    agreement: Lazy[float | None] | None = None
    forced_f1: list[float | None] | None = None
    copied: list[float | None] | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    def zero_variance(self, groups: int | Sequence[Any]) -> list[bool]:
        """Flag each row whose group has only one distinct reward and so no signal for a policy.

        Rows without a reward do not count, so a group that failed entirely is flagged too.

        Args:
            groups: the size of consecutive groups; or one entry per row, such as its prompt:
                neighboring rows with equal entries form a group.

        Raises:
            InputError: the row count is not a multiple of the size, or not that of the entries.
        """
        flags: list[bool] = []
        for members in members_of_groups(self.rewards, groups):
            flags += [len(set(members) - {None}) < 2] * len(members)
        return flags

    @classmethod
    def from_dicts(cls, rows: Sequence[ScoredRow], seconds: float) -> ScoreBatch:
        """Build a batch from rows in the form of `to_dicts`; an error's row may lack EXTRA_KEYS.

        Args:
            rows: any number.
            seconds: how long scoring them took.
        """
        names = [field.name for field in fields(cls)][: len(SCORE_KEYS)]
        columns: dict[str, Any] = {
            name: [row[key] for row in rows] for name, key in zip(names, SCORE_KEYS, strict=True)
        }
        columns["inferred"] = Lazy(columns["inferred"])
        for key in EXTRA_KEYS:
            if any(key in row for row in rows):
                columns[key] = [row.get(key) for row in rows]
        n_tokens = sum(columns["n_prompt_tokens"]) + sum(columns["n_output_tokens"])
        stats = ScoreStats(
            n_rewards=len(rows),
            n_failed=sum(failed(row["status"]) for row in rows),
            n_folded=0,
            n_cached=0,
            seconds=seconds,
            rewards_per_s=len(rows) / seconds,
            tokens_per_s=n_tokens / seconds,
        )
        return cls(**columns, stats=stats)

    def to_dicts(self) -> list[ScoredRow]:
        """Return one dict per row, with SCORE_KEYS and those EXTRA_KEYS that have lists."""
        names = [field.name for field in fields(self)][: len(SCORE_KEYS)]
        extra = [name for name in EXTRA_KEYS if getattr(self, name) is not None]
        keys = [*SCORE_KEYS, *extra]
        columns = [getattr(self, name) for name in (*names, *extra)]
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class BestOf:
    """The best of several responses to one instruction; every list has one entry per response.

    Attributes:
        best: index of the highest reward, the first on a tie; None if there is no reward.
        rewards: as in ScoreBatch, and None for a pruned response.
        inferred: the inferred instruction, or for a pruned response as much as was written.
        status: as in ScoreBatch, or "pruned": the model's output was ended early because its
            reward could not have been the highest.
        errors: as in ScoreBatch.
        n_prompt_tokens: length of the prompt.
        n_output_tokens: length of the model's output.
        n_pruned: number of pruned responses.
        n_spared_tokens: upper bound on the output tokens that pruning saved: what was left of
            max_new_tokens.
        stats: counters of the call.
    """

    best: int | None
    rewards: list[float | None]
    inferred: Lazy[str]
    status: list[str]
    errors: list[str | None]
    n_prompt_tokens: list[int]
    n_output_tokens: list[int]
    n_pruned: int
    n_spared_tokens: int
    stats: ScoreStats

    def __len__(self) -> int:
        return len(self.rewards)
