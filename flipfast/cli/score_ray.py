"""`flipfast score --ray`: scores files on a Ray cluster into a folder of scored rows."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from flipfast.cli.row_stream import NOT_RUN, progress_bar
from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, InputError
from flipfast.serving.ray import score_folder
from flipfast.serving.ray.folder import PartReport


def score_on_ray(
    source: str, out: str, *, overwrite: bool, actors: int | None, options: dict[str, Any]
) -> None:
    """Score a file or a folder; resumes an earlier run of the same input.

    Args:
        source: a file, or a folder of .jsonl and .parquet files.
        out: a folder.
        overwrite: start over.
        actors: number of engines; None takes as many as the cluster has room for.
        options: of FlipConfig.

    Raises:
        InputError: no row could be scored.
        FlipfastError: as for `score_folder`.
    """
    if "-" in (source, out):
        raise ConfigError("--ray takes a file or a folder, and a folder as --out; not -")
    console = Console(stderr=True, highlight=False)
    with progress_bar(console) as bar:
        task = bar.add_task("parts", total=None)

        def show(report: PartReport, n_parts: int) -> None:
            bar.update(task, total=n_parts, advance=1)
            for line, error in report.errors:
                text = f"{report.source}, line {line}: {error}"
                console.print(text, style="yellow", markup=False, soft_wrap=True)

        config = FlipConfig().with_options(options)
        done = score_folder(source, out, config, n_actors=actors, overwrite=overwrite, on_part=show)
    shown = ", ".join(f"{n} {status}" for status, n in done.statuses.most_common())
    kept = f"; {done.n_kept} of {done.n_parts} parts were there already" if done.n_kept else ""
    console.print(f"scored: {shown or 'nothing'}{kept}", markup=False, soft_wrap=True)
    if done.statuses and not done.n_kept and NOT_RUN.issuperset(done.statuses):
        raise InputError(f"no row of {source} could be scored: the fields 'error' in {out} say why")
