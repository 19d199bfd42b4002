"""What all benchmarks share: sizes, groups of real text, and what is noted beside each figure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.facts import device_name, peak_memory_mib, versions
from bench.sizes import FULL, QUICK, Sizes
from bench.workloads import Groups, read_groups

_SKIPPED = pytest.StashKey[list[dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flipfast")
    group.addoption("--quick", action="store_true", help="small sizes and few rounds")
    group.addoption("--groups", metavar="FILE", help="JSONL with the workloads' groups")
    group.addoption("--rate", type=float, metavar="N", help="rows/s of a stream, and no other")
    packages = {"metavar": "DIR", "help": "folder of packages for peers alone; repeatable"}
    group.addoption("--peer-path", action="append", default=[], **packages)
    group.addoption("--reference-prompts", metavar="DIR", help="folder with the published prompts")
    group.addoption("--reference", metavar="FILE", help="published module that has f1_score")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        config.option.benchmark_max_time = 0.2  # seconds, of small calls
        config.option.benchmark_min_rounds = 3


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info["sizes"] = "quick" if config.getoption("--quick") else "full"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        one = {"name": item.name, "reason": str(reason).removeprefix("Skipped: ")}
        item.config.stash.setdefault(_SKIPPED, []).append(one)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]
) -> None:
    """Stores why benchmarks were skipped: `skipped`, a list of {name, reason}."""
    output_json["skipped"] = config.stash.get(_SKIPPED, [])


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
    device = "cuda" if request.node.get_closest_marker("gpu") else "cpu"
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    benchmark: Any = request.getfixturevalue("benchmark")
    yield
    noted: dict[str, Any] = {"date": datetime.date.today().isoformat(), **versions()}
    noted |= {"device": device_name(device), "threads": torch.get_num_threads()}
    noted |= {"peak_memory_mib": peak_memory_mib(device)}
    benchmark.extra_info.update({k: v for k, v in noted.items() if k not in benchmark.extra_info})
