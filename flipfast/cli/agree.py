"""`flipfast agree`: scores the same groups with several rewards and compares them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flipfast.cli.agree_plot import check_plot, save_plot
from flipfast.cli.demo import read_groups
from flipfast.config import FlipConfig
from flipfast.errors import InputError
from flipfast.quality.agreement import Agreement, agreement, require_stats
from flipfast.quality.option_text import read_options
from flipfast.quality.raters import Group
from flipfast.reward import FlipReward
from flipfast.scoring.assembly import loading_options


@dataclass(frozen=True)
class Variant:
    """The results of one reward.

    Attributes:
        name: its options as given.
        mean_reward: over the responses that have one.
        failed: share of responses without an inferred instruction.
        output_tokens: mean per response.
        rewards_per_s: of one run that starts with an empty prefix cache.
        rewards: of each group's responses, None for a failure.
    """

    name: str
    mean_reward: float | None
    failed: float
    output_tokens: float
    rewards_per_s: float
    rewards: list[list[float | None]]


def show_agreement(
    groups: str | None,
    *,
    base: str,
    variants: Sequence[str],
    plot: str | None,
    json_out: str | None,
    options: dict[str, Any],
) -> None:
    """Score groups with a base reward and its variants, and print how the rewards agree.

    Args:
        groups: path of a file, rows as for `flipfast score`; None uses the package's groups.
        base: options of the first reward, "style=direct,parser=robust"; "" for none.
        variants: options of the others.
        plot: an image to write, in the format of its suffix; None for none.
        json_out: a file for the figures and all rewards; None for none.
        options: of FlipConfig, for all of them.

    Raises:
        InputError: the input cannot be read, has a malformed row or no responses, or a file cannot
            be written.
        ConfigError: an option is invalid.
        MissingDependencyError: scipy or, with `plot`, matplotlib is not installed.
    """
    require_stats()
    if plot is not None:
        check_plot(plot)
    texts = [base, *variants]
    configs = [FlipConfig(**{**options, **read_options(text)}) for text in texts]
    rows = [read_groups(groups, config) for config in configs]
    if not any(row.responses for row in rows[0]):
        raise InputError(f"{groups} holds no responses: there is nothing to compare")
    for path in filter(None, (plot, json_out)):
        check_writable(path)
    console = Console(highlight=False)
    with console.status(f"scoring {len(texts)} times"):
        first, *others = _score_all([text or "defaults" for text in texts], configs, rows)
    found = [agreement(first.rewards, other.rewards) for other in others]
    console.print(_table(first, others, found))
    console.print(_summary(rows[0], configs[0]), markup=False, soft_wrap=True)
    if plot is not None:
        save_plot(plot, (first.name, first.rewards), [(v.name, v.rewards) for v in others], found)
    if json_out is not None:
        content = [{**asdict(v), **asdict(a)} for v, a in zip(others, found, strict=True)]
        text = json.dumps([asdict(first), *content], indent=1) + "\n"
        Path(json_out).write_text(text, "utf-8")


def check_writable(path: str) -> None:
    """Check, before anything is scored, that a file can be written.

    Raises:
        InputError: it cannot.
    """
    try:
        Path(path).touch()  # better to fail now than after the run
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _score_all(
    names: Sequence[str], configs: Sequence[FlipConfig], rows: Sequence[list[Group]]
) -> list[Variant]:
    """Return one result per configuration; loads one model at a time and shares it if possible."""
    results: dict[int, Variant] = {}
    for place, *others in _by_model(configs):
        with FlipReward(configs[place]) as reward:
            shared = [FlipReward(configs[i], inverter=reward.inverter) for i in others]
            for i, one in zip((place, *others), (reward, *shared), strict=True):
                results[i] = _score(names[i], one, rows[i])
    return [results[i] for i in range(len(configs))]


def _by_model(configs: Sequence[FlipConfig]) -> list[list[int]]:
    """Group the indices of the configurations that can share a loaded model."""
    found: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        found.setdefault(repr((config.model, loading_options(config))), []).append(i)
    return list(found.values())


def _score(name: str, reward: FlipReward, rows: list[Group]) -> Variant:
    texts = [(row.instruction, text, row.context) for row in rows for text in row.responses]
    instructions, responses, contexts = zip(*texts, strict=True)
    reward.score(instructions[:1], responses[:1], contexts[:1])  # warm up
    forget = getattr(reward.inverter, "forget_prefixes", None)
    if forget is not None:
        forget()
    batch = reward.score(instructions, responses, contexts)
    known = [value for value in batch.rewards if value is not None]
    values = iter(batch.rewards)
    return Variant(
        name,
        mean_reward=fmean(known) if known else None,
        failed=batch.stats.n_failed / len(batch),
        output_tokens=fmean(batch.n_output_tokens),
        rewards_per_s=batch.stats.rewards_per_s,
        rewards=[[next(values) for _ in row.responses] for row in rows],
    )


def _table(first: Variant, others: Sequence[Variant], found: Sequence[Agreement]) -> Table:
    """Return a table with a column per reward, since names are longer than figures."""
    results = [first, *others]
    table = Table(title="Rewards, and how they agree with the first", title_justify="left")
    table.add_column("")
    for result in results:
        table.add_column(Text(result.name.replace(",", ", ")), justify="right", overflow="fold")
    table.add_row("mean reward", *(_cell(result.mean_reward) for result in results))
    table.add_row("failed", *(f"{100 * result.failed:.1f} %" for result in results))
    table.add_row("tokens a reward", *(f"{result.output_tokens:.1f}" for result in results))
    table.add_row("rewards/s", *(f"{result.rewards_per_s:.1f}" for result in results))
    table.add_section()
    table.add_row("Kendall's tau-b", "", *(_cell(one.kendall) for one in found))
    table.add_row("Spearman", "", *(_cell(one.spearman) for one in found))
    table.add_row("same best", "", *(_cell(one.same_best) for one in found))
    table.add_row("... by chance", "", *(_cell(one.chance) for one in found))
    return table


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _summary(rows: Sequence[Group], config: FlipConfig) -> str:
    n = sum(len(row.responses) for row in rows)
    return (
        f"{n} responses in {len(rows)} groups, model {config.model}. Kendall and same best are "
        "means over groups; a failed response ranks lowest."
    )
