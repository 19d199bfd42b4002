"""How long it takes to import, and to get the first reward, in fresh processes.

Each import stands in turns with one of torch, whose time it would add to if it needed it; the
ratio is the median of the pairs. What pytest prints is the time of the whole process, its end
included; files are in the system's cache, as a first run has read them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

import pytest

from bench.sizes import Sizes
from flipfast import FlipReward

INSTRUCTION = "How do I make banana bread?"
RESPONSE = "Mash three ripe bananas, mix them with flour and eggs, and bake for an hour."
HEAVY = ("torch", "transformers", "triton", "numpy")

_IMPORT = """
import json, sys, time
began = time.perf_counter()
import {name}
print(json.dumps([time.perf_counter() - began, sorted(sys.modules)]))
"""
_REWARD = """
import json, time
began = time.perf_counter()
from flipfast import FlipReward
with FlipReward(device="cpu") as reward:
    [first] = reward.score([{instruction!r}], [{response!r}]).rewards
print(json.dumps([time.perf_counter() - began, first]))
"""


def told(code: str) -> Any:
    """What a fresh process prints, read as JSON."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["flipfast", "flipfast.client"])
def bench_import(benchmark: Any, sizes: Sizes, name: str) -> None:
    """Seconds of one import, which must not bring the heavy packages."""
    _, modules = told(_IMPORT.format(name=name))
    assert name in modules
    assert not set(HEAVY) & set(modules)
    torch_s: list[float] = []
    own_s: list[float] = []

    def import_torch() -> None:
        torch_s.append(told(_IMPORT.format(name="torch"))[0])

    def run() -> None:
        own_s.append(told(_IMPORT.format(name=name))[0])

    benchmark.group = "import"
    benchmark.pedantic(run, setup=import_torch, rounds=sizes.starts)
    ratios = [own / other for own, other in zip(own_s, torch_s, strict=True)]
    benchmark.extra_info.update(
        import_s=round(median(own_s), 4),
        torch_s=round(median(torch_s), 4),
        over_torch=round(median(ratios), 4),
    )


def bench_first_reward(benchmark: Any, sizes: Sizes) -> None:
    """From a process's first line to a reward of the embedded model, as `flipfast demo` starts."""
    code = _REWARD.format(instruction=INSTRUCTION, response=RESPONSE)
    with FlipReward(device="cpu") as reward:
        expected = reward.score([INSTRUCTION], [RESPONSE]).rewards[0]
    assert told(code)[1] == expected
    seconds: list[float] = []

    def run() -> None:
        seconds.append(told(code)[0])

    benchmark.group = "first reward"
    benchmark.pedantic(run, rounds=sizes.starts)
    benchmark.extra_info["first_reward_s"] = round(median(seconds), 3)
