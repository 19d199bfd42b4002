"""`flipfast tune`: measures the kernels' launch configurations on this machine's GPU."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from flipfast.engine.options import DTYPES, resolve_device
from flipfast.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from flipfast_kernels.search import Problem, Result

_QUICK_SECONDS = 90.0
# (n_out, n_in) of qkv, output, gate-and-up and down projections of Qwen 3, 0.6B to 8B.
_USUAL_SHAPES = (
    *((4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072)),
    *((4096, 2048), (2048, 2048), (12288, 2048), (2048, 6144)),
    *((6144, 2560), (2560, 4096), (19456, 2560), (2560, 9728)),
    *((6144, 4096), (4096, 4096), (24576, 4096), (4096, 12288)),
)
_USUAL_HEADS = (16, 8, 128)


class Shapes(NamedTuple):
    """What to measure: weights as (n_out, n_in), and (query heads, KV heads, head size)."""

    weights: Sequence[tuple[int, int]]
    heads: tuple[int, int, int]


def tune(
    *,
    model: str | None = None,
    shapes: Sequence[str] = (),
    dtype: str = "bfloat16",
    device: str | None = None,
    quick: bool = False,
    out: str | None = None,
    packaged: bool = False,
) -> None:
    """Measure launch configurations, print a table, and write the tuning file.

    Args:
        model: a folder or hub name whose shapes are measured; None uses those of Qwen 3.
        shapes: of weights, "4096x1024" for 4096 outputs and 1024 inputs, instead of a model's.
        dtype: "bfloat16", "float16" or "float32"; "fp8" measures the products of 8-bit weights.
        device: a CUDA device; None uses the first.
        quick: try fewer candidates, for at most 90 seconds.
        out: the file to write; None uses the user's own. Entries for other shapes are kept.
        packaged: write into the package instead.

    Raises:
        ConfigError: there is no CUDA device, options exclude each other, or a shape is invalid.
        MissingDependencyError: triton is not installed.
        ModelLoadError: there is no such model.
    """
    if model is not None and shapes:
        raise ConfigError(f"--model {model} and --shapes {shapes[0]}: give one of them")
    if packaged and out is not None:
        raise ConfigError(f"--out {out} and --packaged: give one of them")
    wanted = _shapes(model, shapes)
    where = resolve_device(device)
    if where.type != "cuda":
        raise ConfigError(
            f"flipfast tune measures on a CUDA device, not on {where}; there is nothing to tune "
            "without one"
        )
    try:
        from flipfast_kernels import tuning
        from flipfast_kernels.search import cuda_timer, search
    except ImportError as error:
        raise MissingDependencyError(
            f"flipfast tune needs triton, which cannot be imported ({error}); install it with pip"
        ) from error
    name = torch.cuda.get_device_name(where)
    folder = tuning.PACKAGED if packaged else tuning.user_folder()
    path = Path(out) if out else folder / tuning.file_name(name)
    console = Console(highlight=False)
    seconds = _QUICK_SECONDS if quick else float("inf")
    found, today = [], datetime.date.today().isoformat()
    with torch.cuda.device(where), console.status(f"measuring on {name}"):
        problems = _problems(wanted, dtype, where, quick)
        for result in search(problems, cuda_timer(where), seconds=seconds):
            found.append(result)
            console.print(_line(result), markup=False)
            tuning.write(path, name, _merged(tuning.read(path), found), today)
    console.print(_table(found))
    console.print(f"{len(found)} of {len(problems)} shapes measured, written to {path}")


def _shapes(model: str | None, shapes: Sequence[str]) -> Shapes:
    if model is not None:
        from flipfast.engine.models.checkpoint import read_model

        spec, _ = read_model(model)
        heads = spec.n_heads * spec.head_dim
        keys = 2 * spec.n_kv_heads * spec.head_dim
        weights = (
            (heads + keys, spec.hidden_size),
            (spec.hidden_size, heads),
            (2 * spec.intermediate_size, spec.hidden_size),
            (spec.hidden_size, spec.intermediate_size),
        )
        return Shapes(weights, (spec.n_heads, spec.n_kv_heads, spec.head_dim))
    return Shapes([_shape(text) for text in shapes] or _USUAL_SHAPES, _USUAL_HEADS)


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise ConfigError(f"{text!r} is no shape of a weight: write outputs x inputs, 4096x1024")
    return int(found[1]), int(found[2])


def _problems(shapes: Shapes, name: str, device: torch.device, quick: bool) -> list[Problem]:
    from flipfast_kernels.problems import attention_problem, linear_problem

    dtype = torch.float8_e4m3fn if name == "fp8" else DTYPES[name]
    products = [linear_problem(*shape, dtype, device, quick=quick) for shape in shapes.weights]
    if name == "fp8":
        return products
    n_heads, n_kv_heads, head_dim = shapes.heads
    attention = attention_problem(
        head_dim, dtype, device, n_heads=n_heads, n_kv_heads=n_kv_heads, quick=quick
    )
    return [attention, *products]


def _line(result: Result) -> str:
    shape = ", ".join(f"{key} {value}" for key, value in result.problem.bucket.items())
    tried = f"{result.n_measured} of {len(result.problem.pairs)} pairs measured"
    refused = f", {len(result.refused)} refused" if result.refused else ""
    return f"{result.problem.kernel} ({shape}): {tried}{refused}"


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="Microseconds, before and with the best pair", title_justify="left")
    for column in ("kernel", "shape", "call", "before", "best"):
        table.add_column(column, justify="right" if column in ("before", "best") else "left")
    for result in results:
        shape = " ".join(str(value) for value in result.problem.bucket.values())
        for call, best in result.best.items():
            before = result.usual[call]
            table.add_row(result.problem.kernel, shape, call, f"{before:.1f}", f"{best:.1f}")
    return table


def _merged(old: dict[str, list[Any]], found: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """Merge the old entries of other shapes with the new ones."""
    merged: dict[str, list[dict[str, Any]]] = {kernel: list(rows) for kernel, rows in old.items()}
    for result in found:
        rows = merged.setdefault(result.problem.kernel, [])
        rows[:] = [row for row in rows if row["bucket"] != result.problem.bucket]
        rows.append(result.entry())
    return merged
