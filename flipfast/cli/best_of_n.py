"""`flipfast best-of-n`: reads a file of rows and writes its rows with their best responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console

from flipfast.cli.row_stream import RowStream
from flipfast.errors import ConfigError
from flipfast.quality.evaluation.best_of_n import Choice, Choices, best_of_n, race
from flipfast.quality.raters import Group, Rater, load_rater
from flipfast.quality.raters.flip import FlipRater
from flipfast.reward import FlipReward
from flipfast.rows import InputRow
from flipfast.scores import CONTENTLESS

_RESERVED = frozenset(
    {"line", "status", "error", "best", "best_response", "tied", "rater", "scores", "statuses"}
    | {"errors"}
)


@dataclass
class Totals:
    """Counts of a run.

    Attributes:
        n_responses: rated responses, counting equal texts of a group separately.
        n_ties: groups with several different responses of the highest score.
        n_failed: responses without a score that were not pruned.
        n_broken: malformed lines.
        n_without: rows without a best response.
        n_tokens: of prompts and outputs.
        seconds: spent on rating alone.
    """

    n_groups: int = 0
    n_responses: int = 0
    n_ties: int = 0
    n_failed: int = 0
    n_broken: int = 0
    n_without: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    n_pruned: int = 0
    n_spared_tokens: int = 0

    def add(self, found: Choices) -> None:
        """Count the groups of a chunk."""
        for choice in found.choices:
            pairs = zip(choice.scores, choice.statuses, strict=True)
            self.n_groups += 1
            self.n_responses += len(choice.scores)
            self.n_ties += (choice.tied or 0) > 1
            self.n_failed += sum(
                score is None and not status.startswith("pruned") for score, status in pairs
            )
            self.n_without += choice.best is None
        self.n_tokens += found.cost.n_prompt_tokens + found.cost.n_output_tokens
        self.seconds += found.cost.seconds
        self.n_pruned += found.n_pruned
        self.n_spared_tokens += found.n_spared_tokens

    def summary(self, *, pruned: bool) -> str:
        """Return a one-line summary."""
        rate = self.n_responses / self.seconds if self.seconds else 0.0
        ties = (
            f"{self.n_pruned} pruned, which spared at most {self.n_spared_tokens} tokens"
            if pruned
            else f"{self.n_ties} groups with a tie"
        )
        return (
            f"{self.n_groups} groups, {self.n_responses} responses, {self.n_tokens} tokens in "
            f"{self.seconds:.2f} s: {rate:.1f} rewards/s; {ties}; {self.n_failed} responses "
            f"failed, {self.n_without} groups without a best, {self.n_broken} broken lines"
        )


def write_best(
    groups: str,
    *,
    out: str,
    resume: bool,
    overwrite: bool,
    rater: str,
    prune: bool,
    options: dict[str, Any],
) -> None:
    """Choose the best response of each row of `groups` and write the rows to `out`, in order.

    Args:
        groups: path of a file, rows as for `flipfast score`, or "-".
        out: path of the file to write, or "-".
        resume: keep the rows that `out` already holds and continue after them.
        overwrite: replace `out`.
        rater: see `load_rater`.
        prune: stop outputs that cannot win; only for the FLIP reward.
        options: of FlipConfig.

    Raises:
        InputError: `groups` cannot be read or has no row that can be scored, or `out` was not
            written for it.
        ConfigError: options exclude each other or are invalid.
    """
    console = Console(stderr=True, highlight=False)
    totals = Totals()
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "reserved": _RESERVED}
    with RowStream(groups, out, console=console, **how) as stream:
        reward = FlipReward(**options)
        judge = load_rater(rater, reward)
        if prune and not isinstance(judge, FlipRater):
            raise ConfigError(f"--prune ends outputs of the FLIP reward, not those of {rater!r}")
        work = partial(_chosen, judge, reward.config.seed, prune, totals)
        for _ in stream.run(reward.config, work):
            pass
    console.print(totals.summary(pruned=prune), markup=False, soft_wrap=True)
    stream.check_scored()


def _chosen(
    rater: Rater, seed: int, prune: bool, totals: Totals, chunk: Sequence[InputRow]
) -> list[dict[str, Any]]:
    """Return the output lines of some rows."""
    good = [row for row in chunk if row.error is None]
    groups = [Group(row.instruction, _texts(row), row.context) for row in good]
    if prune and isinstance(rater, FlipRater):
        found = race(rater, groups, seed=seed)
    else:
        found = best_of_n(rater, groups, seed=seed)
    pairs = zip(good, found.choices, strict=True)
    found = replace(found, choices=[_among_all(row, choice) for row, choice in pairs])
    totals.add(found)
    totals.n_broken += len(chunk) - len(good)
    choices = iter(found.choices)
    return [
        _broken(row) if row.error is not None else _fields(row, rater.name, next(choices))
        for row in chunk
    ]


def _texts(row: InputRow) -> tuple[str, ...]:
    return tuple(one for one in row.responses if isinstance(one, str))


def _among_all(row: InputRow, choice: Choice) -> Choice:
    """Return a choice among a row's texts as one among all its responses, with those without."""
    rated = zip(choice.scores, choice.statuses, choice.errors, strict=True)
    columns = [
        next(rated) if isinstance(one, str) else (None, CONTENTLESS, str(one))
        for one in row.responses
    ]
    at = [place for place, one in enumerate(row.responses) if isinstance(one, str)]
    return replace(
        choice,
        best=None if choice.best is None else at[choice.best],
        scores=[score for score, _, _ in columns],
        statuses=[status for _, status, _ in columns],
        errors=[error for _, _, error in columns],
    )


def _broken(row: InputRow) -> dict[str, Any]:
    wrong = {"status": "error", "error": row.error}
    return {**row.fields, "line": row.line, "best": None, "best_response": None, **wrong}


def _fields(row: InputRow, rater: str, choice: Choice) -> dict[str, Any]:
    best = choice.best
    failed = "no_scores" if row.responses else "no_responses"
    return {
        **row.fields,
        "line": row.line,
        "status": failed if best is None else "ok",
        "best": best,
        "best_response": None if best is None else row.responses[best],
        "tied": choice.tied,
        "rater": rater,
        "scores": choice.scores,
        "statuses": choice.statuses,
        "errors": choice.errors,
    }
