"""Fixtures of the engine's tests."""

import pytest


@pytest.fixture(params=[False, True], ids=["in step", "overlapped"])
def overlap(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
