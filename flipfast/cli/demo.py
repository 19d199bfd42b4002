"""`flipfast demo`: scores groups of responses and shows them as tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flipfast.config import EMBEDDED
from flipfast.errors import InputError
from flipfast.reward import FlipReward
from flipfast.rows import InputRow, read_row, score_rows
from flipfast.scoring.assembly import GET_SMALL, best_at_hand

_SHOWN_CHARACTERS = 160


def show_demo(groups: str | None, *, options: dict[str, Any]) -> None:
    """Score groups and print a table for each, with its best and worst response marked.

    Args:
        groups: path of a JSONL file, rows as for `flipfast score`; None uses the package's groups.
        options: of FlipConfig; without a model, that of `best_at_hand`.

    Raises:
        InputError: the file cannot be read or has a malformed row.
    """
    console = Console(highlight=False)
    reward = FlipReward(**{"model": best_at_hand(), **options})
    rows = read_groups(groups, reward.config.target)
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


def read_groups(path: str | None, target: str) -> list[InputRow]:
    """Read the rows of a JSONL file; None reads the package's groups.

    Raises:
        InputError: the file cannot be read or has a malformed row.
    """
    source = Path(path) if path else resources.files("flipfast") / "assets" / "demo_groups.jsonl"
    try:
        lines = source.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    rows = [read_row(line, n, target) for n, line in enumerate(lines, start=1) if line.strip()]
    for row in rows:
        if row.error is not None:
            raise InputError(f"{path}, line {row.line}: {row.error}")
    return rows


def _table(row: InputRow, scores: Sequence[dict[str, Any]]) -> Table:
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
