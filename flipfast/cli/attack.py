"""`flipfast attack`: measures how tricks in a response change the scores of raters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from flipfast.cli.agree import check_writable
from flipfast.cli.agree_plot import check_plot
from flipfast.cli.attack_plot import save_plot
from flipfast.cli.attack_tables import attack_table, climb_table
from flipfast.cli.demo import read_groups
from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, InputError
from flipfast.quality.attacks import (
    Attack,
    Climb,
    Trial,
    climb,
    figures,
    load_attacks,
    read_strings,
    run_attacks,
    special_tokens,
)
from flipfast.quality.raters import Group, load_rater
from flipfast.reward import FlipReward

_COLUMNS = 100


def show_attacks(
    groups: str | None,
    *,
    raters: Sequence[str],
    attacks: Sequence[str] | None,
    strings: str | None,
    limit: int | None,
    climb: int,
    plot: str | None,
    json_out: str | None,
    options: dict[str, Any],
) -> None:
    """Attack raters on one model, and print how far that moves their scores.

    Args:
        groups: path of a file, rows as for `flipfast score`, whose responses count as
            honest; None uses the package's groups. Groups without responses are skipped and
            counted.
        raters: see load_rater.
        attacks: names of attacks or families; None means all.
        strings: a file with further attacks, see read_strings; None for none.
        limit: only the first `limit` rows; None for all.
        climb: steps of an attacker that hill-climbs each rater's score; 0 for none.
        plot: an image to write, in the format of its suffix; None for none.
        json_out: a file for the figures, all texts and all scores; None for none.
        options: of FlipConfig.

    Raises:
        InputError: a file cannot be read or written, or has a malformed row or nothing to attack.
        ConfigError: an option is invalid, or an attack does not exist.
        MissingDependencyError: with `plot`, matplotlib is not installed.
    """
    _check_counts(limit, climb)
    chosen = load_attacks(attacks, read_strings(strings) if strings is not None else ())
    if plot is not None:
        check_plot(plot)
    for path in filter(None, (plot, json_out)):
        check_writable(path)
    config = FlipConfig(**options)
    rows = read_groups(groups, config)[:limit]
    honest = [row for row in rows if row.responses]
    if not honest:
        raise InputError(f"{groups} holds no responses: there is nothing to attack")
    console = Console(highlight=False, width=_COLUMNS)
    status = console.status(f"trying {len(chosen)} attacks on {len(raters)} raters")
    with FlipReward(config) as reward, status:
        trials, climbs = _run(reward, raters, chosen, honest, climb)
    console.print(attack_table(raters, trials))
    if climbs:
        console.print(climb_table(raters, climbs))
    n_left_out = len(rows) - len(honest)
    console.print(_summary(honest, n_left_out, config.model), markup=False, soft_wrap=True)
    if plot is not None:
        save_plot(plot, raters, trials, climbs)
    if json_out is not None:
        content = {
            "options": asdict(config),
            "n_groups": len(honest),
            "n_left_out": n_left_out,
            "attacks": [_trial(raters, trial) for trial in trials],
            "climbs": [_climb(*pair) for pair in zip(raters, climbs, strict=False)],
        }
        Path(json_out).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _check_counts(limit: int | None, steps: int) -> None:
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, not {limit}")
    if steps < 0:
        raise ConfigError(f"--climb must be 0 or more steps, not {steps}")


def _run(
    reward: FlipReward,
    names: Sequence[str],
    attacks: Sequence[Attack],
    groups: Sequence[Group],
    steps: int,
) -> tuple[list[Trial], list[Climb]]:
    raters = [load_rater(name, reward) for name in names]
    tokens, seed = special_tokens(reward.inverter.tokenizer), reward.config.seed
    trials = run_attacks(raters, attacks, groups, special_tokens=tokens, seed=seed)
    climbs = [climb(rater, groups, steps, seed=seed) for rater in raters] if steps else []
    return trials, climbs


def _summary(groups: Sequence[Group], n_left_out: int, model: str) -> str:
    n = sum(len(group.responses) for group in groups)
    left_out = f" ({n_left_out} without responses left out)" if n_left_out else ""
    return (
        f"{n} honest responses in {len(groups)} groups{left_out}, model {model}. Over the pairs of "
        "an honest response and its attacked form that both have a score: the mean change, and how "
        "often the attacked form scores higher. Failed: without a score. Gold score: word F1 of "
        "what a climbing attacker has and the honest response that it started from."
    )


def _trial(raters: Sequence[str], trial: Trial) -> dict[str, Any]:
    return {
        "attack": trial.attack.name,
        "knows_instruction": trial.attack.knows_instruction,
        "n_unchanged": trial.n_unchanged,
        "pairs": [asdict(pair) for pair in trial.pairs],
        "raters": [
            {"rater": rater, "figures": asdict(figures(outcome)), "scores": asdict(outcome)}
            for rater, outcome in zip(raters, trial.outcomes, strict=True)
        ],
    }


def _climb(rater: str, one: Climb) -> dict[str, Any]:
    means = {"mean_rewards": one.mean_rewards, "mean_golds": one.mean_golds}
    return {"rater": rater, **means, **asdict(one)}
