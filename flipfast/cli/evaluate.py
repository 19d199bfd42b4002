"""`flipfast eval`: compares the accuracy of raters on preferences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from flipfast.cli.agree import check_writable
from flipfast.cli.agree_plot import check_plot
from flipfast.cli.evaluate_plot import save_bars
from flipfast.cli.evaluate_tables import by_rater, by_subset, counts, failures
from flipfast.cli.row_stream import progress_bar
from flipfast.config import EMBEDDED, FlipConfig
from flipfast.errors import ConfigError
from flipfast.quality.agreement import require_stats
from flipfast.quality.evaluation import (
    Preference,
    Preferences,
    RaterReport,
    evaluate,
    read_preferences,
)
from flipfast.quality.raters import Rater, load_rater
from flipfast.reward import FlipReward

_WIDTH = 100  # without a terminal
_NOTES = (
    "Strict: every chosen response scores above every rejected one. Tie-split: k responses with "
    "the top score get 1/k of the credit each. A response without a score ranks lowest. "
    "Length-controlled: pairs won if all responses were equally long. Intervals: 95 %."
)
_EMBEDDED_NOTE = (
    "The embedded model is a tiny one, made to show how things work: its figures tell nothing "
    "about the reward or about judges on a real model."
)


def show_evaluation(
    preferences: str,
    *,
    raters: Sequence[str],
    seeds: int,
    limit: int | None,
    plot: str | None,
    json_out: str | None,
    options: dict[str, Any],
) -> None:
    """Let raters score preferences, and print each one's accuracy and cost.

    Args:
        preferences: path of a file in the format of read_preferences.
        raters: names as for load_rater; they share one model.
        seeds: number of runs of a rater that samples: the first uses the options' seed, the
            others the seeds after it.
        limit: only the first `limit` items of each subset; None for all.
        plot: an image to write, in the format of its suffix; None for none.
        json_out: a file for the figures and all scores; None for none.
        options: of FlipConfig, for all raters.

    Raises:
        InputError: the input cannot be read or has a malformed row, or a file cannot be written.
        ConfigError: an option or a rater is invalid.
        MissingDependencyError: scipy (with several seeds) or matplotlib (with `plot`) is not
            installed.
    """
    config = FlipConfig(**options)
    _check(seeds, limit, plot, json_out)
    found = read_preferences(preferences, config.target, tool_calls=config.tool_calls)
    kept = found if limit is None else found.first(limit)
    with FlipReward(config) as reward:
        loaded = [load_rater(spec, reward) for spec in raters]
        reports = _evaluate_all(kept.items, loaded, range(config.seed, config.seed + seeds), reward)
    _print(kept, config.model, reports)
    if plot is not None:
        save_bars(plot, reports)
    if json_out is not None:
        content = _content(preferences, options, kept, reports)
        Path(json_out).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _check(seeds: int, limit: int | None, plot: str | None, json_out: str | None) -> None:
    """Check everything that can be checked before anything is read or run."""
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, not {seeds}")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, not {limit}")
    if seeds > 1:
        require_stats()
    if plot is not None:
        check_plot(plot)
    for path in filter(None, (plot, json_out)):
        check_writable(path)


def _evaluate_all(
    items: Sequence[Preference], raters: Sequence[Rater], seeds: Sequence[int], reward: FlipReward
) -> list[RaterReport]:
    """Return one report per rater, each started without what earlier ones left in the caches."""
    forget: Callable[[], None] = getattr(reward.inverter, "forget_prefixes", lambda: None)
    reports = []
    with progress_bar(Console(stderr=True)) as bar:
        for rater in raters:
            n_runs = len(seeds) if rater.uses_seed else 1
            task = bar.add_task(escape(rater.name), total=n_runs * len(items))
            rater.rate([items[0].group])  # warm up
            forget()

            def advance(n_done: int, task: Any = task) -> None:
                bar.update(task, completed=n_done)

            reports.append(evaluate(items, rater, seeds=seeds, on_progress=advance))
    return reports


def _print(found: Preferences, model: str, reports: Sequence[RaterReport]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(by_subset(reports))
    console.print(by_rater(reports))
    lines = [
        _summary(found, model, reports[0]),
        *map(failures, reports),
        *map(counts, reports),
        _NOTES,
    ]
    if model == EMBEDDED:
        lines.append(_EMBEDDED_NOTE)
    for line in filter(None, lines):
        console.print(line, markup=False)


def _summary(found: Preferences, model: str, report: RaterReport) -> str:
    return (
        f"Model {model}, {len(found.items)} items; chance is {100 * report.mean.chance:.1f} % "
        f"tie-split (mean over subsets), 50.0 % of pairs. Rows without a rejected response "
        f"(no_rejected, left out): {len(found.no_rejected)}."
    )


def _content(
    preferences: str, options: dict[str, Any], found: Preferences, reports: Sequence[RaterReport]
) -> dict[str, Any]:
    """Return enough data to rebuild the tables."""
    return {
        "preferences": preferences,
        "options": asdict(FlipConfig(**options)),
        "no_rejected": found.no_rejected,
        "items": [
            {
                "line": item.line,
                "id": item.id,
                "subset": item.subset,
                "chosen_characters": [len(text) for text in item.chosen],
                "rejected_characters": [len(text) for text in item.rejected],
            }
            for item in found.items
        ],
        "raters": [asdict(report) for report in reports],
    }
