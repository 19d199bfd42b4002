"""Kernels are compiled at load: a run asks for no variant of a kernel that is not there yet."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("shape", ["qwen3-0.6b", "gemma3-1b"])
def test_a_run_compiles_nothing(shape):
    """Of requests of all kinds and many lengths, up to the context."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.variants", shape, '{"max_tokens": 2048}'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["at_load"] > 15
    assert found["later"] == []
