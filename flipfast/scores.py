"""What scoring returns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Generic, TypeVar, overload

from flipfast.checks import brief
from flipfast.errors import InputError

_log = logging.getLogger(__name__)

Entry = TypeVar("Entry")
ScoredRow = dict[str, Any]  # with SCORE_KEYS as its keys, and EXTRA_KEYS where there are such

# The fields of ScoreBatch, in its order, as they are called where they hold one row.
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
# Fields that only some batches have: where rows have several samples, nothing is generated, or
# copies are looked for.
EXTRA_KEYS = ("reward_std", "agreement", "forced_f1", "copied")


CUT = "+response_cut"  # behind a status: the response or context lost its middle
CONTENTLESS = "contentless"  # the status of a response that has too few words to be inverted
_FAILURES = ("empty", "unparsed", CONTENTLESS, "error")


def failed(status: str) -> bool:
    """Whether a row of this status has no inferred instruction."""
    return status.removesuffix(CUT) in _FAILURES


def failed_row(error: str, on_failure: float | None = None) -> ScoredRow:
    """A row that could not be scored, and why."""
    values = (on_failure, None, None, "", "error", 0, 0, error)
    return dict(zip(SCORE_KEYS, values, strict=True))


def check_lengths(**columns: Sequence[Any]) -> None:
    """Check that columns have one entry a row.

    Raises:
        InputError: a column is no list, or they differ in length.
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
    """The rewards of each group.

    Args:
        rewards: one a row.
        groups: the size of the groups, which stand one after the other; or an entry a row, such as
            its prompt: neighbours with equal entries are a group.

    Raises:
        InputError: the rows are not a multiple of the size, or there is not an entry for each.
    """
    if isinstance(groups, int):
        if groups < 1 or len(rewards) % groups:
            raise InputError(f"{len(rewards)} rows cannot be cut into groups of {groups}")
        groups = [row // groups for row in range(len(rewards))]
    check_lengths(rewards=rewards, groups=groups)
    pairs = groupby(zip(groups, rewards, strict=True), key=lambda pair: pair[0])
    return [[reward for _, reward in members] for _, members in pairs]


def trainer_rewards(batch: ScoreBatch) -> list[float | None]:
    """Return the rewards alone, and log rows with errors: such a list has no room for them."""
    errors = [error for error in batch.errors if error is not None]
    if errors:
        _log.warning("%d of %d rows have no reward: %s", len(errors), len(batch), errors[0])
    return batch.rewards


class Lazy(Sequence[Entry], Generic[Entry]):
    """Entries of which some are made only when they are read; equal to any list of the same.

    Args:
        entries: the entries, or calls that give them.
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
        n_folded: inversions that were the same as another of the call, and shared its run.
        n_cached: inversions, folded ones aside, whose results an earlier call had left.
        seconds: wall time of the call.
        rewards_per_s: n_rewards a second.
        tokens_per_s: prompt and output tokens a second, of the inversions that were run.
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
    """The rewards of a batch; every list has one entry a row, in input order.

    Attributes:
        rewards: word F1 of inferred and true instruction, in [0, 1]; `on_failure` where there is
            no inferred instruction. With other options of `scoring`, `metric` or `copy_guard` what
            FlipConfig says there.
        precision: share of the inferred words that the instruction has; None for a failure.
        recall: share of the instruction's words that were inferred; None for a failure.
        inferred: the inferred instruction, "" for a failure; read like a list. On a GPU rewards
            come without the texts, and an entry is decoded when it is first read.
        status: "ok" (clean output), "recovered" (found in malformed output), "truncated" (the
            output ended inside the instruction; what there is was scored), or the failures
            "empty", "unparsed", "contentless" (the response has fewer words than
            `min_response_words`, and was not inverted) and "error"; with "+response_cut" behind it
            where the response or the context was too long for the prompt and lost its middle.
        n_prompt_tokens: length of the prompt.
        n_output_tokens: length of the model's output.
        errors: for status "error" what was wrong with the row, else None.
        stats: counters of the call.
        reward_std: standard deviation of the rewards of a row's samples; None for a row without
            any. With one sample a row there is no such list.
        agreement: mean word F1 between the inferred instructions of a row's samples, over all
            pairs; None for a row with fewer than two. With one sample a row there is no such list.
            Worked out when it is read, as it needs the texts.
        forced_f1: with scoring="likelihood", word F1 of `inferred` and the true instruction; None
            for a failure. Else there is no such list.
        copied: with a `copy_guard`, the share of the true instruction's words that the response
            has copied in runs, in [0, 1]; None for a failure. Else there is no such list.

    With several samples a row, reward, precision and recall are means over them (a failed sample
    counts as `on_failure`, or not at all where that is None), inferred and status are those of
    the first sample that did not fail, and n_output_tokens is their sum.
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
        """Tell of each row whether its group has only one reward: it teaches a policy nothing.

        Rows without a reward do not count, so that a group that failed has the flag, too.

        Args:
            groups: the size of the groups, which stand one after the other; or an entry a row,
                such as its prompt: neighbours with equal entries are a group.

        Raises:
            InputError: the rows are not a multiple of the size, or there is not an entry for each.
        """
        flags: list[bool] = []
        for members in members_of_groups(self.rewards, groups):
            flags += [len(set(members) - {None}) < 2] * len(members)
        return flags

    @classmethod
    def from_dicts(cls, rows: Sequence[ScoredRow], seconds: float) -> ScoreBatch:
        """The batch of rows as `to_dicts` gives them; a row of an error may lack EXTRA_KEYS.

        Args:
            rows: any number.
            seconds: what scoring them took.
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
        """One dict a row, with SCORE_KEYS as its keys, and those EXTRA_KEYS that have lists."""
        names = [field.name for field in fields(self)][: len(SCORE_KEYS)]
        extra = [name for name in EXTRA_KEYS if getattr(self, name) is not None]
        keys = [*SCORE_KEYS, *extra]
        columns = [getattr(self, name) for name in (*names, *extra)]
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class BestOf:
    """The best of several responses to one instruction; every list has one entry a response.

    Attributes:
        best: index of the highest reward, the first of equals; None where there is none.
        rewards: as in ScoreBatch, and None for a response that was pruned.
        inferred: the inferred instruction, for a pruned response what there was of it.
        status: as in ScoreBatch, or "pruned": the model's output was ended early, because its
            reward could not have been the highest.
        errors: for status "error" what was wrong with the response, else None.
        n_prompt_tokens: length of the prompt.
        n_output_tokens: length of the model's output.
        n_pruned: responses that were pruned.
        n_spared_tokens: output tokens that this has spared at most, which is what was left of
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
