"""Kernels are compiled at load: a run asks for no variant of a kernel that is not there yet."""

import pytest

from tests.compiling_program import run_compiling

pytest.importorskip("triton")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shape", ["qwen3-0.6b", "gemma3-1b"])
def test_a_run_compiles_nothing(shape):
    """Of requests of all kinds and many lengths, up to the context."""
    found = run_compiling("tests.engine.variants", shape, '{"max_tokens": 2048}')
    assert found["at_load"] > 15
    assert found["later"] == []
