"""`flipfast profile`: where the time of a run goes, stage by stage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flipfast.cli.demo import read_groups
from flipfast.config import FlipConfig
from flipfast.engine.options import DTYPES, resolve_device
from flipfast.errors import InputError
from flipfast.profiling.rates import measure_rates
from flipfast.profiling.recorder import CudaClock, Rates, Recorder, Stage
from flipfast.profiling.stages import instrumented
from flipfast.reward import FlipReward
from flipfast.rows import InputRow, score_rows


def show_profile(source: str | None, out: str | None, *, options: dict[str, Any]) -> None:
    """Score rows once to warm up and once to be timed, and print a table of stages.

    Args:
        source: path of a JSONL file, rows as for `flipfast score`; None takes the groups in the
            package.
        out: where a trace of one more run goes, for chrome://tracing or ui.perfetto.dev; None for
            no trace.
        options: of FlipConfig.

    Raises:
        InputError: the file cannot be read, or holds a broken row, or the trace cannot be written.
        ConfigError: an option that cannot be used.
    """
    console = Console(highlight=False)
    with FlipReward(**options) as reward:
        rows = read_groups(source, reward.config.target)
        device, dtype = _device_and_dtype(reward.config)
        with console.status("warming up"):
            score_rows(reward, rows)
            rates = measure_rates(device, dtype)
        clock = CudaClock() if device.type == "cuda" else None
        recorder = Recorder(clock)
        with console.status("measuring"):
            seconds = _run(reward, rows, recorder, device)
        stages = recorder.totals(rates)
        console.print(_table(stages, seconds))
        console.print(_summary(rows, seconds, rates, device, dtype), markup=False, soft_wrap=True)
        if out is not None:
            with console.status("tracing"):
                _trace(reward, rows, Path(out), device)
            console.print(f"trace of another run: {out}", markup=False, soft_wrap=True)


def _device_and_dtype(config: FlipConfig) -> tuple[torch.device, torch.dtype]:
    """Where the model runs, and the numbers that its products take."""
    device = resolve_device(config.device)
    if config.dtype is not None:
        return device, DTYPES[config.dtype]
    if device.type == "cuda":
        return device, torch.bfloat16
    from flipfast.ops.cpu import best_weight_dtype

    return device, best_weight_dtype()


def _run(
    reward: FlipReward, rows: list[InputRow], recorder: Recorder, device: torch.device
) -> float:
    """Seconds of a run in which no prompt finds its start in the cache, but for the template's."""
    forget = getattr(reward.inverter, "forget_prefixes", None)
    if forget is not None:
        forget()
    with instrumented(recorder):
        started = time.perf_counter()
        score_rows(reward, rows)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started


def _trace(reward: FlipReward, rows: list[InputRow], path: Path, device: torch.device) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    try:
        path.touch()  # rather now than after the run
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    with torch.profiler.profile(activities=activities) as profiler:
        _run(reward, rows, Recorder(ranges=True), device)
    profiler.export_chrome_trace(str(path))


def _table(stages: list[Stage], seconds: float) -> Table:
    table = Table(title="Stages of one run, each without those inside it", title_justify="left")
    on_device = any(stage.device_s is not None for stage in stages)
    columns = ["calls", "host ms"] + (["device ms"] if on_device else [])
    table.add_column("stage")
    for column in (*columns, "share", "GB", "GFLOP", "of the floor"):
        table.add_column(column, justify="right")
    for stage in sorted(stages, key=lambda stage: -stage.seconds):
        cells = [str(stage.calls), f"{1e3 * stage.host_s:.1f}"]
        if on_device:
            cells.append(_cell(stage.device_s, 1e3, ".1f"))
        cells.append(f"{100 * stage.seconds / seconds:.1f} %")
        cells += [_cell(stage.n_bytes, 1e-9, ".3f"), _cell(stage.flops, 1e-9, ".2f")]
        share = None if stage.floor_s is None else stage.floor_s / max(stage.seconds, 1e-12)
        table.add_row(stage.name, *cells, "" if share is None else f"{100 * share:.0f} %")
    return table


def _cell(value: float | None, scale: float, form: str) -> str:
    return "" if value is None else format(value * scale, form)


def _summary(
    rows: list[InputRow], seconds: float, rates: Rates, device: torch.device, dtype: torch.dtype
) -> str:
    n = sum(len(row.responses) for row in rows)
    return (
        f"{n} rewards in {seconds:.2f} s: {n / seconds:.1f} rewards/s, timing included"
        f"{', CUDA graphs off' if device.type == 'cuda' else ''}.\n"
        f"The floor of a call is the larger of its bytes at {rates.bytes_a_s * 1e-9:.1f} GB/s and "
        f"its operations at {rates.flops_a_s * 1e-12:.2f} TFLOP/s: a copy, and a product in "
        f"{str(dtype).removeprefix('torch.')}, as measured on {device} just now. What lies in a "
        "cache can beat it."
    )
