"""`flipfast score`: reads a file of rows and writes the same rows with their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from flipfast.cli.row_stream import RowStream
from flipfast.reward import FlipReward
from flipfast.rows import RESERVED, InputRow, score_rows, scored_fields


def score_file(
    source: str, out: str, *, resume: bool, overwrite: bool, options: dict[str, Any]
) -> None:
    """Score the rows of `source` and write them to `out`, in order, as they finish.

    Args:
        source: path of a file of rows, or "-".
        out: path of the file to write, or "-".
        resume: keep the rows that `out` already holds and continue after them.
        overwrite: replace `out`.
        options: of FlipConfig.

    Raises:
        InputError: `source` cannot be read or has no row that can be scored, or `out` was not
            written for it.
        ConfigError: options exclude each other or are invalid.
    """
    console = Console(stderr=True, highlight=False)
    statuses: Counter[str] = Counter()
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "reserved": RESERVED}
    with RowStream(source, out, console=console, **how) as stream:
        reward = FlipReward(**options)
        for fields in stream.run(reward.config, partial(_scored, reward)):
            status = fields["status"]
            statuses.update([status] if isinstance(status, str) else status)
    shown = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
    console.print(f"scored: {shown or 'nothing'}", markup=False, soft_wrap=True)
    stream.check_scored()


def _scored(reward: FlipReward, chunk: Sequence[InputRow]) -> list[dict[str, Any]]:
    return [
        scored_fields(row, scores)
        for row, scores in zip(chunk, score_rows(reward, chunk), strict=True)
    ]
