"""Fixtures and rules that the tests and the benchmarks share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[1] / "shared"


@pytest.fixture(scope="session")
def shared_file() -> Callable[[str], Path]:
    """A function from a name to a file of the shared golden values and data, or a skip."""
    folder = Path(os.environ.get("FLIPFAST_SHARED", _SHARED))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}")
        return path

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is no CUDA device; torch is imported only for those."""
    marked = [item for item in items if "gpu" in item.keywords]
    if not marked:
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
