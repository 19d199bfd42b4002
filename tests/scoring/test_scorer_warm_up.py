"""Kernels that score are compiled at load, whatever the number of rows."""

import pytest

from tests.compiling_program import run_compiling

pytest.importorskip("triton")

pytestmark = pytest.mark.slow


def test_scoring_compiles_nothing():
    found = run_compiling("tests.scoring.variants")
    assert {"find_spans_kernel", "word_f1_kernel"} <= set(found["kernels"])
    assert found["later"] == []
