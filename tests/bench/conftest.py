"""What the tests of the benchmarks share."""

import pytest


@pytest.fixture(autouse=True)
def no_process_of_many(monkeypatch):
    """pytest-benchmark measures nothing where it takes its process for one of pytest-xdist's."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
