"""Where a part runs, at which sizes, and where its figures go."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench.facts import device_name, peak_memory_mib, versions
from bench.sizes import Prescribed
from flipfast.profiling.rates import measure_rates
from flipfast.profiling.recorder import Rates
from flipfast_kernels.search import Timer, cuda_timer

_WAVE = Prescribed(256, 650, 160, 100)  # all requests at once, of one length


@dataclass(frozen=True)
class GpuSizes:
    """How much a run does."""

    copied: int = 2**30  # bytes of the copy that measures bandwidth
    side: int = 8192  # of the square product that measures the rate
    flushed: int = 2**30  # bytes written before each timed kernel, to empty the L2 cache
    repeats: int = 15  # of each timed kernel
    engine: dict[str, Any] = field(default_factory=dict)  # options of engines that are timed
    wave: Prescribed = _WAVE
    steady: dict[str, int] = field(  # requests by shape, of which a few end in every step
        default_factory=lambda: {"qwen3-0.6b": 1024, "qwen3-1.7b": 1024}
    )
    steady_usual: int = 512
    steady_out: tuple[int, int] = (40, 100)  # least and most tokens of their outputs
    path_rows: int = 16
    path_tokens: int = 32
    rows: tuple[int, ...] = (256, 8192, 64)  # of products
    decode: tuple[tuple[int, int], ...] = ((256, 700), (256, 2048))  # sequences, their lengths
    prefill: tuple[int, int] = (16, 650)
    mixed: tuple[int, int, int] = (240, 700, 12)  # decoding sequences, lengths, whole prompts
    pairs: int = 4096  # of texts
    tuned: tuple[str, ...] = ()  # shapes of weights, none for the usual ones


FULL = GpuSizes()
REHEARSED = GpuSizes(
    copied=2**16,
    side=64,
    flushed=2**10,
    repeats=1,
    engine={"memory": 5e7, "max_seqs": 4, "max_tokens": 64},
    wave=Prescribed(6, 40, 16, 4),
    steady={},
    steady_usual=8,
    steady_out=(2, 6),
    path_rows=2,
    path_tokens=2,
    rows=(4, 96),
    decode=((2, 40),),
    prefill=(2, 40),
    mixed=(2, 40, 1),
    pairs=64,
    tuned=("256x256",),
)


class Place:
    """A device, sizes, and a file of figures.

    Attributes:
        device: CUDA.
        sizes: of what runs.
        out: the folder of all files.
        n_figures, n_checks: so far.
        failures: checks that did not hold, and what did not run.

    Args:
        rehearsed: whether nothing is launched, so that no result is right.
        tag: a mark behind the names of figures.
    """

    def __init__(self, out: Path, *, rehearsed: bool, tag: str = "") -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.sizes = REHEARSED if rehearsed else FULL
        self.out = out
        self.n_figures = self.n_checks = 0
        self.failures: list[str] = []
        self._rehearsed = rehearsed
        self._tag = tag
        out.mkdir(parents=True, exist_ok=True)

    @cached_property
    def rates(self) -> Rates:
        """Of the device, measured once."""
        sizes = {"n_bytes": self.sizes.copied, "side": self.sizes.side}
        return measure_rates(self.device, torch.bfloat16, **sizes)

    @cached_property
    def timer(self) -> Timer:
        """Seconds of a call on the device."""
        sizes = self.sizes
        return cuda_timer(self.device, repeats=sizes.repeats, flushed=sizes.flushed)

    def note(self, name: str, group: str, **figures: Any) -> None:
        """Add figures to the file, with the conditions that they were measured under."""
        facts = {"date": datetime.date.today().isoformat(), **versions()}
        facts |= {"device": device_name("cuda"), "threads": torch.get_num_threads()}
        facts |= {"peak_memory_mib": peak_memory_mib("cuda")}
        rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in figures.items()}
        name = f"{name}{self._tag}"
        row = {"fullname": f"bench/gpu::{name}", "name": name, "group": group, "stats": {}}
        line = json.dumps({**row, "extra_info": {**facts, **rounded}})
        with (self.out / "figures.jsonl").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self.n_figures += 1
        print(name, rounded)

    def check(self, name: str, holds: bool | Callable[[], object]) -> None:
        """Judge a result; the part goes on, and fails at its end.

        Args:
            name: of what has to hold.
            holds: whether it does, or a call that raises AssertionError where it does not.
        """
        self.n_checks += 1
        try:
            if callable(holds):
                holds()
            elif not holds:
                raise AssertionError("no")
        except AssertionError as error:
            if not self._rehearsed:
                self.fail(f"{name}: {error}")
                return
        print(f"{name}: {'not judged' if self._rehearsed else 'yes'}")

    def fail(self, reason: str) -> None:
        """Note what went wrong; the part goes on."""
        self.failures.append(reason)
        print(f"FAILED: {reason}")
