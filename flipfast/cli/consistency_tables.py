"""The tables that `flipfast consistency` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flipfast.quality.consistency import (
    Change,
    Comparison,
    InstructionMatrix,
    RankFlips,
    Run,
    SeedNoise,
)

_WIDTH = 100  # in characters, at most


def print_matrix(console: Console, matrix: InstructionMatrix | str) -> None:
    """Print whether a response's own instruction stands out, or why that is not known."""
    title = "Instructions: does the true one fit best?"
    if isinstance(matrix, str):
        _print_reason(console, title, matrix)
        return
    rows = [
        ["mean metric with the own instruction", _cell(matrix.own)],
        ["... with those of other groups", _cell(matrix.others)],
        ["own instruction above all others", _percent(matrix.wins)],
        ["... ties split", _percent(matrix.wins_split)],
        ["... by chance", _percent(matrix.chance)],
        ["first responses without an inversion", str(matrix.n_failed)],
    ]
    _print(
        console,
        title,
        ["", f"{len(matrix.values)} instructions"],
        rows,
        "The first response of each group is inverted and compared with the instructions of all "
        "groups. Only what sets the own instruction apart says anything about the response.",
    )


def print_wordings(console: Console, found: Comparison) -> None:
    """Print how far the rewards of several prompts agree."""
    named = {run.name: run for run in found.runs}
    rows = [_wordings_row(named[one.first], named[one.second], one) for one in found.changes]
    _print(
        console,
        "Prompts: do other words rank responses alike?",
        ["", "mean reward", "failed", "Spearman", "Kendall", "same best", "by chance"],
        rows,
        "1 is the same ranking, 0 none in common: Spearman over all responses, Kendall's tau-b and "
        "the same best response within groups. A failed response ranks lowest.",
        found.left_out,
    )


def print_seeds(console: Console, found: SeedNoise | str) -> None:
    """Print how much of a sampled reward is chance, or why that is not known."""
    title = "Seeds: how much of a sampled reward is chance?"
    if isinstance(found, str):
        _print_reason(console, title, found)
        return
    rows = [
        ["noise: deviation of a response over seeds", _cell(found.noise)],
        ["signal: deviation between a group's responses", _cell(found.signal)],
        ["signal to noise", _cell(found.signal_to_noise)],
        ["rank flips", _flips(found.flips)],
        ["same best", _cell(found.same_best)],
        ["... by chance", _cell(found.chance)],
        ["failed", str(sum(run.n_failed for run in found.runs))],
    ]
    _print(
        console,
        title,
        ["", f"{len(found.runs)} seeds, temperature {found.temperature:g}"],
        rows,
        "Deviations are standard deviations. Below a signal to noise of 1 the seed moves a reward "
        "more than the choice of the response does: take more samples. A rank flip is a pair of a "
        "group's responses that two seeds order in opposite ways, of the pairs that both order.",
    )


def print_formats(console: Console, found: Comparison) -> None:
    """Print how number formats change rewards."""
    against = f"against {found.runs[0].name}" if found.runs else ""
    rows = [
        [
            one.second,
            _bits(one),
            "" if one.mean_difference is None else f"{one.mean_difference:.2g}",
            _flips(one.flips),
            _cell(one.agreement.same_best),
        ]
        for one in found.changes
    ]
    _print(
        console,
        "Number formats: what does rounding change?",
        [against, "equal bits", "mean change", "rank flips", "same best"],
        rows,
        "Of the same responses' rewards: how many are equal to the last bit, by how much they "
        "differ in the mean, and how many pairs of a group's responses change their order.",
        found.left_out,
    )


def _wordings_row(first: Run, second: Run, found: Change) -> list[str]:
    agreement = found.agreement
    return [
        f"{first.name},\n{second.name}",
        f"{_cell(first.mean_reward)}\n{_cell(second.mean_reward)}",
        f"{first.n_failed}\n{second.n_failed}",
        _cell(agreement.spearman),
        _cell(agreement.kendall),
        _cell(agreement.same_best),
        _cell(agreement.chance),
    ]


def _print(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    meaning: str,
    left_out: dict[str, str] | None = None,
) -> None:
    width = min(_WIDTH, console.width)
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table, width=width)
    for name, reason in (left_out or {}).items():
        console.print(Text(f"{name} is left out: {reason}"), width=width)
    console.print(Text(meaning), width=width)
    console.print()


def _print_reason(console: Console, title: str, reason: str) -> None:
    width = min(_WIDTH, console.width)
    console.print(Text(title, style="italic"), Text(reason), sep="\n", width=width)
    console.print()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _flips(flips: RankFlips) -> str:
    if not flips.n_pairs:
        return ""
    return f"{flips.n_flipped} of {flips.n_pairs} ({_percent(flips.share)})"


def _bits(found: Change) -> str:
    if found.bit_equal is None:
        return ""
    return f"{round(found.bit_equal * found.n_both)} of {found.n_both}"  # 99.99 % is not all
