"""Kernels are compiled at load: a run asks for no variant of a kernel that is not there yet."""

import json

import pytest

from tests.compiling_program import run_compiling

pytest.importorskip("triton")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("shape", "weights"), [("qwen3-0.6b", "float"), ("gemma3-1b", "float"), ("qwen3-0.6b", "fp8")]
)
def test_a_run_compiles_nothing(shape, weights):
    """Of requests of all kinds and many lengths, up to the context."""
    options = {"max_tokens": 2048, "weights": weights}
    found = run_compiling("tests.engine.variants", shape, json.dumps(options))
    assert found["at_load"] > 15
    assert found["later"] == []
