"""`flipfast consistency`: scores the same groups in ways that should make no difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from flipfast.cli.agree import check_writable
from flipfast.cli.agree_plot import check_plot
from flipfast.cli.consistency_plot import save_plot
from flipfast.cli.consistency_tables import print_formats, print_matrix, print_seeds, print_wordings
from flipfast.cli.demo import read_groups
from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, InputError
from flipfast.quality.agreement import require_stats
from flipfast.quality.consistency import (
    Comparison,
    InstructionMatrix,
    SeedNoise,
    compare_formats,
    compare_seeds,
    compare_wordings,
    instruction_matrix,
)
from flipfast.quality.raters import Group
from flipfast.reward import FlipReward

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Findings:
    """The result of each comparison; a string says why the reward has none.

    Attributes:
        matrix: whether a response's own instruction stands out.
        wordings: rewards under other prompts.
        seeds: rewards of sampled inversions.
        formats: rewards under other number formats of the model.
    """

    matrix: InstructionMatrix | str
    wordings: Comparison
    seeds: SeedNoise | str
    formats: Comparison


def show_consistency(
    groups: str | None,
    *,
    limit: int | None,
    seeds: int,
    plot: str | None,
    json_out: str | None,
    options: dict[str, Any],
) -> None:
    """Score groups with other prompts, seeds and number formats, and print what that changes.

    Args:
        groups: path of a file, rows as for `flipfast score`; None uses the package's groups.
        limit: only the first `limit` groups; None for all.
        seeds: number of sampled runs to compare, at least 2.
        plot: an image to write, in the format of its suffix; None for none.
        json_out: a file for the figures and all rewards; None for none.
        options: of FlipConfig.

    Raises:
        InputError: the input cannot be read, has a malformed row or no responses, or a file cannot
            be written.
        ConfigError: an option is invalid.
        MissingDependencyError: scipy or, with `plot`, matplotlib is not installed.
    """
    require_stats()
    if plot is not None:
        check_plot(plot)
    for name, value, least in (("--limit", limit, 1), ("--seeds", seeds, 2)):
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, not {value}")
    config = FlipConfig(**options)
    read = read_groups(groups, config)[:limit]
    if not any(group.responses for group in read):
        raise InputError(f"{groups} holds no responses: there is nothing to compare")
    for path in filter(None, (plot, json_out)):
        check_writable(path)
    console = Console(highlight=False)
    with console.status("scoring"):
        found = _findings(config, read, seeds)
    _show(console, found)
    console.print(_summary(read, config), markup=False, soft_wrap=True)
    if plot is not None:
        save_plot(plot, found.matrix, found.wordings, found.seeds, found.formats)
    if json_out is not None:
        Path(json_out).write_text(json.dumps(_content(found), indent=1) + "\n", "utf-8")


def _findings(config: FlipConfig, groups: Sequence[Group], seeds: int) -> Findings:
    with FlipReward(config) as reward:
        matrix = _answer(lambda: instruction_matrix(reward, groups))
        wordings = compare_wordings(reward, groups)
        sampled = _answer(lambda: compare_seeds(reward, groups, seeds))
    # Only now that its memory is free, because each format loads the model again.
    return Findings(matrix, wordings, sampled, compare_formats(config, groups))


def _answer(ask: Callable[[], Answer]) -> Answer | str:
    try:
        return ask()
    except ConfigError as error:  # the likelihood reward neither generates nor samples
        return str(error)


def _show(console: Console, found: Findings) -> None:
    print_matrix(console, found.matrix)
    print_wordings(console, found.wordings)
    print_seeds(console, found.seeds)
    print_formats(console, found.formats)


def _summary(groups: Sequence[Group], config: FlipConfig) -> str:
    n = sum(len(group.responses) for group in groups)
    empty = sum(not group.responses for group in groups)
    left_out = f", {empty} of them without responses" if empty else ""
    return f"{n} responses in {len(groups)} groups{left_out}; model {config.model}."


def _content(found: Findings) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, answer in vars(found).items():
        content[name] = {"left_out": answer} if isinstance(answer, str) else asdict(answer)
    if isinstance(found.matrix, InstructionMatrix):
        values = found.matrix.values
        content["matrix"]["values"] = [
            [None if np.isnan(value) else value for value in row] for row in values.tolist()
        ]
    return content
