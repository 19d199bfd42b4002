"""Workloads of real text for the benchmarks."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The launch configurations that kernels are benchmarked with; see flipfast_kernels.tuning."""
    parser.addoption("--tuning", metavar="FILE", help="a tuning file in place of the usual ones")


@pytest.fixture(scope="session")
def real_pairs(shared_file: Callable[[str], Path]) -> tuple[list[str], list[str]]:
    """1,024 real responses (mean 207 words after normalisation) and their instructions."""
    with gzip.open(shared_file("data/workload_groups.jsonl.gz"), "rt", encoding="utf-8") as lines:
        groups = [json.loads(line) for line in lines]
    pairs = [(text, group["instruction"]) for group in groups for text in group["responses"]]
    return [response for response, _ in pairs], [instruction for _, instruction in pairs]
