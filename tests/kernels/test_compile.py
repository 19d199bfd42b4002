"""What the real compiler makes of the kernels, for devices that need not be here."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

triton = pytest.importorskip("triton")
RELEASE = tuple(int(part) for part in triton.__version__.split(".")[:2])

# Bytes a block may have: the smallest device of each kind that shares its code.
SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@pytest.fixture(scope="module")
def results():
    program = Path(__file__).with_name("compiling.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_kernel_compiles_for_every_target(results):
    kernels = {file.name for file in Path(__file__).parent.glob("compile_*.py")}
    for sm in SHARED:
        assert {r["file"] for r in results if r["sm"] == sm} == kernels - {"compile_case.py"}


def test_shared_memory_fits(results):
    assert [r for r in results if r["shared"] > SHARED[r["sm"]]] == []


def test_hot_kernels_do_not_spill(results):
    # Older compilers need a few more registers for all; the most on sm_80.
    tight = {(3, 6): 64, (3, 7): 80, (3, 8): 64}.get(RELEASE, 0)
    assert [r for r in results if r["stack"] > max(r["most_stack"], tight)] == []


def test_matrix_products_run_on_the_tensor_cores(results):
    kind = {80: "mma.sync", 90: "wgmma", 100: "tcgen05"}
    for r in results:
        if r["name"].startswith(("gemm-bf16", "attention-bf16", "lm_head-bf16")):
            assert all(x.startswith(kind[r["sm"]]) for x in r["instructions"]), r
            assert r["instructions"], r
        else:  # float32 is never rounded to a shorter type
            assert r["instructions"] == [], r


def test_tiles_of_all_heights_use_the_same_instructions(results):
    """What a row's bits rest on: one instruction, and its sums in the threads of one warp."""
    groups = defaultdict(list)
    for r in results:
        name, _, height = r["name"].rpartition("-m")
        if height:
            name = name.removesuffix("-one").removesuffix("-parallel").removesuffix("-loop")
            groups[name, r["sm"]].append(r)
    assert len(groups["attention-bf16-d128", 90]) == 5
    assert len(groups["gemm-bf16-n128", 90]) == 2
    assert len(groups["lm_head-bf16-sums", 90]) == 2
    for (name, sm), members in groups.items():
        assert len({tuple(r["instructions"]) for r in members}) == 1, members
        sums = name == "lm_head-bf16-sums" and sm == 90  # elsewhere they come from one height
        if sums or (name.startswith("attention") and len(members) > 1):
            assert all(r["columns_of_warps"] == ["1"] for r in members), members
