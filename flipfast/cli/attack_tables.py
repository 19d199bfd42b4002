"""The tables that `flipfast attack` prints."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flipfast.quality.attacks import Climb, Figures, Outcome, Trial, figures

_SHOWN_STEPS = 8


def attack_table(raters: Sequence[str], trials: Sequence[Trial]) -> Table:
    """Return a row per attack and a column per rater: mean score change, and how often it wins.

    The first row has the mean score of the honest responses.

    Args:
        raters: names.
        trials: with one outcome per rater.
    """
    table = _table("Attacks", "attack", raters)
    pooled = zip(*(trial.outcomes for trial in trials), strict=True)
    table.add_row("honest score", *(_honest_cell(outcomes) for outcomes in pooled))
    table.add_section()
    for _, family in groupby(trials, key=lambda trial: trial.attack.name.partition("/")[0]):
        for trial in family:
            cells = [_cell(figures(outcome)) for outcome in trial.outcomes]
            table.add_row(Text(_label(trial)), *cells)
        table.add_section()
    return table


def climb_table(raters: Sequence[str], climbs: Sequence[Climb]) -> Table:
    """Return a row per number of steps, a column per rater: mean score and mean gold score."""
    table = _table("Climbing", "steps", raters)
    last = len(climbs[0].mean_golds) - 1
    for step in sorted({last * i // _SHOWN_STEPS for i in range(_SHOWN_STEPS + 1)}):
        cells = [
            f"{_number(one.mean_rewards[step], '.2f')}  {one.mean_golds[step]:4.2f}"
            for one in climbs
        ]
        table.add_row(str(step), *cells)
    return table


def _table(title: str, first: str, raters: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for rater in raters:
        header = Text(rater.replace(":", ": ").replace(",", ", "))
        table.add_column(header, justify="right", overflow="fold")
    return table


def _label(trial: Trial) -> str:
    if not trial.n_unchanged:
        return trial.attack.name
    n = len(trial.pairs)
    return f"{trial.attack.name}\n  (changes {n} of {n + trial.n_unchanged})"


def _honest_cell(outcomes: Sequence[Outcome]) -> str:
    """Format the mean score of the honest responses in all pairs; it may depend on the pair."""
    scores = [score for outcome in outcomes for score in outcome.honest]
    if not scores:
        return "no pairs"
    known = [score for score in scores if score is not None]
    return _with_failed(f"{fmean(known):.2f}" if known else "-", 1 - len(known) / len(scores))


def _cell(found: Figures) -> str:
    if found.attacked_failed is None:
        return "no pairs"
    cell = "-"
    if found.change is not None and found.beats is not None:
        cell = f"{found.change:+.2f} {100 * found.beats:3.0f} %"
    return _with_failed(cell, found.attacked_failed)


def _with_failed(cell: str, failed: float) -> str:
    return f"{cell}\n{100 * failed:.0f} % failed" if failed else cell


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
