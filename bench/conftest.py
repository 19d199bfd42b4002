"""What all benchmarks share: sizes, groups of real text, and what is noted beside each figure."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.facts import device_name, versions
from bench.sizes import FULL, QUICK, Sizes
from bench.workloads import Groups, read_groups

_QUICK_SECONDS = 0.2  # that a benchmark of small calls is repeated for at least


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flipfast")
    group.addoption("--quick", action="store_true", help="small sizes and few rounds")
    group.addoption("--groups", metavar="FILE", help="JSONL with the workloads' groups")
    group.addoption("--reference", metavar="FILE", help="published module that has f1_score")
    group.addoption("--tuning", metavar="FILE", help="kernels' tuning file instead of the usual")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        config.option.benchmark_max_time = _QUICK_SECONDS
        config.option.benchmark_min_rounds = 3


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--quick"))


@pytest.fixture(scope="session")
def sizes(quick: bool) -> Sizes:
    return QUICK if quick else FULL


@pytest.fixture(scope="session")
def source(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Groups | None:
    """The groups of `--groups`, or those shared with the project, or None where there are none."""
    given = pytestconfig.getoption("--groups")
    if given:
        return read_groups(Path(given))
    shared_file: Callable[[str], Path] = request.getfixturevalue("shared_file")
    try:
        return read_groups(shared_file("data/workload_groups.jsonl.gz"))
    except pytest.skip.Exception:
        return None


@pytest.fixture(autouse=True)
def facts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Notes device, versions, commit and peak memory beside a benchmark's own figures."""
    if "benchmark" not in request.fixturenames:
        yield
        return
    on_cuda = request.node.get_closest_marker("gpu") is not None
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    benchmark: Any = request.getfixturevalue("benchmark")
    yield
    device = "cuda" if on_cuda else "cpu"
    noted = {"device": device_name(device), "threads": torch.get_num_threads(), **versions()}
    if on_cuda:
        noted["peak_memory_mib"] = torch.cuda.max_memory_allocated() >> 20
    else:  # of the process so far, in KiB, in bytes on a Mac
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        noted["peak_memory_mib"] = peak >> (20 if sys.platform == "darwin" else 10)
    benchmark.extra_info.update({k: v for k, v in noted.items() if k not in benchmark.extra_info})
