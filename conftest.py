"""Fixtures and rules that the tests and the benchmarks share."""

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

# Processes that share the tests share the cores, too, as torch and what they start read here.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: by nobody before this

with contextlib.suppress(ImportError):  # some tests need it, the benchmarks do not
    from hypothesis import HealthCheck, settings

    # How long an example takes is a matter of what else the machine does.
    settings.register_profile(
        "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("any machine")

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast`: for the inner loop."""
    parser.addoption(
        "--fast", action="store_true", help="one case of each test, and none that is marked slow"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is no CUDA device; leave out what `--fast` does."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):  # in its keywords are folders of that name, too
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if config.getoption("fast"):
        cases = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
        kept = {item for item in cases.values() if not item.get_closest_marker("slow")}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """A process that shares the tests ends over a report with half a surrogate pair: escape it."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _encodable(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(map(_encodable, value))
    return value
