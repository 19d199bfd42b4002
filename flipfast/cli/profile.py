"""`flipfast profile`: shows where the time of a run goes, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flipfast.cli.demo import read_groups
from flipfast.errors import InputError
from flipfast.profiling.recorder import Recorder
from flipfast.profiling.runs import Profile, profile_run, recorded_run
from flipfast.quality.raters import Group
from flipfast.reward import FlipReward
from flipfast.rows import score_rows


def show_profile(source: str | None, out: str | None, *, options: dict[str, Any]) -> None:
    """Score rows once as warm-up and once timed, and print a table of stages.

    Args:
        source: path of a file, rows as for `flipfast score`; None uses the package's groups.
        out: file for a trace of another run, for chrome://tracing or ui.perfetto.dev; None for no
            trace.
        options: of FlipConfig.

    Raises:
        InputError: the file cannot be read or has a malformed row, or the trace cannot be written.
        ConfigError: an option is invalid.
    """
    console = Console(highlight=False)
    with FlipReward(**options) as reward:
        rows = read_groups(source, reward.config)
        with console.status("warming up"):
            score_rows(reward, rows)
        with console.status("measuring"):
            found = profile_run(reward, lambda: score_rows(reward, rows))
        console.print(_table(found))
        console.print(_summary(rows, found), markup=False, soft_wrap=True)
        if out is not None:
            with console.status("tracing"):
                _trace(reward, rows, Path(out), found.device)
            console.print(f"trace of another run: {out}", markup=False, soft_wrap=True)


def _trace(reward: FlipReward, rows: list[Group], path: Path, device: torch.device) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    try:
        path.touch()  # better to fail now than after the run
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    with torch.profiler.profile(activities=activities) as profiler:
        recorded_run(reward, lambda: score_rows(reward, rows), Recorder(ranges=True))
    profiler.export_chrome_trace(str(path))


def _table(found: Profile) -> Table:
    table = Table(title="Stages of one run, each without those inside it", title_justify="left")
    on_device = any(stage.device_s is not None for stage in found.stages)
    columns = ["calls", "host ms"] + (["device ms"] if on_device else [])
    table.add_column("stage")
    for column in (*columns, "share", "GB", "GFLOP", "of the floor"):
        table.add_column(column, justify="right")
    for stage in found.largest_first:
        cells = [str(stage.calls), f"{1e3 * stage.host_s:.1f}"]
        if on_device:
            cells.append(_cell(stage.device_s, 1e3, ".1f"))
        cells.append(f"{100 * found.share(stage):.1f} %")
        cells += [_cell(stage.n_bytes, 1e-9, ".3f"), _cell(stage.flops, 1e-9, ".2f")]
        table.add_row(stage.name, *cells, _cell(stage.share_of_floor, 1, ".0%").replace("%", " %"))
    return table


def _cell(value: float | None, scale: float, form: str) -> str:
    return "" if value is None else format(value * scale, form)


def _summary(rows: list[Group], found: Profile) -> str:
    n, rates = sum(len(row.responses) for row in rows), found.rates
    return (
        f"{n} rewards in {found.seconds:.2f} s: {n / found.seconds:.1f} rewards/s, timing included"
        f"{', CUDA graphs off' if found.device.type == 'cuda' else ''}.\n"
        f"The floor of a call is the larger of its bytes at {rates.bytes_a_s * 1e-9:.1f} GB/s and "
        f"its operations at {rates.flops_a_s * 1e-12:.2f} TFLOP/s: a copy, and a product in "
        f"{str(found.dtype).removeprefix('torch.')}, as measured on {found.device} just now. What "
        "lies in a cache can beat it."
    )
