"""`flipfast demo`: scores groups of responses and shows them as tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flipfast.config import EMBEDDED, FlipConfig
from flipfast.errors import InputError
from flipfast.quality.raters import Group
from flipfast.reward import FlipReward
from flipfast.rows import open_rows, read_row, score_rows
from flipfast.scoring.assembly import GET_SMALL, best_at_hand

_SHOWN_CHARACTERS = 160


def show_demo(groups: str | None, *, options: dict[str, Any]) -> None:
    """Score groups and print a table for each, with its best and worst response marked.

    Args:
        groups: path of a file, rows as for `flipfast score`; None uses the package's groups.
        options: of FlipConfig; without a model, that of `best_at_hand`.

    Raises:
        InputError: the file cannot be read or has a malformed row.
    """
    console = Console(highlight=False)
    reward = FlipReward(**{"model": best_at_hand(), **options})
    rows = read_groups(groups, reward.config)
    n_responses = sum(len(row.responses) for row in rows)
    started = time.perf_counter()
    with console.status(f"scoring {n_responses} responses"):
        scored = score_rows(reward, rows)
    seconds = time.perf_counter() - started
    for row, scores in zip(rows, scored, strict=True):
        console.print(_table(row, scores))
    console.print(
        f"{n_responses} rewards in {seconds:.2f} s: {n_responses / seconds:.1f} rewards/s, "
        f"model {reward.config.model}"
    )
    if reward.config.model == EMBEDDED:
        console.print(f"A model that reads better: {GET_SMALL}", markup=False)


def read_groups(path: str | None, config: FlipConfig) -> list[Group]:
    """Read the rows of a file; None reads the package's groups.

    Raises:
        InputError: the file cannot be read, or has a malformed row or a response without a text.
    """
    packaged = resources.files("flipfast") / "assets" / "demo_groups.jsonl"
    with resources.as_file(packaged) as own, open_rows(path or own) as found:
        rows = [read_row(raw, n, config.target, config.tool_calls) for n, raw in found]
    groups = []
    for row in rows:
        texts = tuple(one for one in row.responses if isinstance(one, str))
        lacks = [str(one) for one in row.responses if not isinstance(one, str)]
        if row.error is not None or lacks:
            raise InputError(f"{path}, line {row.line}: {row.error or lacks[0]}")
        groups.append(Group(row.instruction, texts, row.context))
    return groups


def _table(row: Group, scores: Sequence[dict[str, Any]]) -> Table:
    rewards = [score["reward"] for score in scores]
    known = [reward for reward in rewards if reward is not None]
    table = Table(title=Text(_short(row.instruction)), title_justify="left", expand=True)
    table.add_column("")
    table.add_column("response", ratio=3)
    table.add_column("inferred instruction", ratio=2)
    table.add_column("reward", justify="right")
    for response, score in zip(row.responses, scores, strict=True):
        mark, style = "", ""
        if len(set(known)) > 1 and score["reward"] == max(known):
            mark, style = "best", "green"
        elif len(set(known)) > 1 and score["reward"] == min(known):
            mark, style = "worst", "red"
        shown = score["status"] if score["reward"] is None else f"{score['reward']:.3f}"
        inferred = Text(_short(score["inferred"]))
        table.add_row(Text(mark), Text(_short(response)), inferred, shown, style=style)
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."
