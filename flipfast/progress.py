"""A progress bar for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    total: int, *, shown: bool, of: str = "inversions"
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error.

    Args:
        total: number of steps.
        shown: False draws nothing.
        of: what the steps are.

    Yields:
        A function that takes the number of steps done so far.
    """
    if not shown:
        yield lambda n_done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(of), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(of, total=total)
        yield lambda n_done: bar.update(task, completed=n_done)
