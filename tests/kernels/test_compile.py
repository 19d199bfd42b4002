"""What the real compiler makes of what runs launch, for devices that need not be here."""

import re
from collections import defaultdict
from itertools import product

import pytest

from tests.compiling_program import ROOT, run_compiling

pytestmark = pytest.mark.slow

triton = pytest.importorskip("triton")
RELEASE = tuple(int(part) for part in triton.__version__.split(".")[:2])

# Bytes a block may have: the smallest device of each kind that shares its code.
SHARED = {80: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
PRODUCTS = ("linear", "linear_tma", "linear_fp8", "linear_fp8_tma", "head_tile", "attend")
FP8 = {"quantize_rows", "linear_fp8", "linear_fp8_tma"}
WRITE_FP8 = {"rms_norm", "gated"}  # these, too
WITH_TMA = {"linear_tma", "linear_fp8_tma"}


@pytest.fixture(scope="module")
def results():
    return run_compiling("tests.kernels.compiling")


def most_stack(r):
    """Bytes of stack a thread may take, which is where spills go."""
    constants, is_float32 = r["constants"], r["type"] == "fp32"
    if r["kernel"] == "attend":
        # A loop over splits keeps some of its second set of sums on the stack, at head size 256
        # most of it; head size 256 fills the registers anyway, and float32 is not a hot path.
        is_loop = constants["MODE"] == "loop"
        if constants["HEAD_DIM"] == 256:
            return 960 if is_loop else 16
        return 192 if is_loop or is_float32 else 0
    if r["kernel"] == "head_tile" and is_float32:
        return 1024
    if r["kernel"] == "sorted_overlap" and r["type"] == "i64" and constants["BLOCK"] == 64:
        return 64  # 64 ids take two registers each, beside the keys of the other row
    # A few numbers of the branch for ids beyond 2**31 - 2**24.
    return 16 if r["kernel"] == "overlap" else 0


def test_every_kernel_is_compiled_for_every_target(results):
    files = (ROOT / "kernels/flipfast_kernels/jit").glob("*.py")
    kernels = {name for file in files for name in re.findall(r"def (\w+)_kernel", file.read_text())}
    assert len(kernels) > 10
    there = {80: kernels - WITH_TMA - FP8, 89: FP8 - WITH_TMA | WRITE_FP8}
    there[90] = there[100] = kernels - {"linear_fp8"}
    for sm in SHARED:
        assert {r["kernel"] for r in results if r["sm"] == sm} == there[sm]


def test_runs_of_all_models_are_there(results):
    """By what tells them apart: the sizes of heads, the kinds of norms, the widths of heads."""
    found = defaultdict(set)
    for r in results:
        if r["sm"] == 90 and r["type"] == "bf16":
            for name, value in r["constants"].items():
                found[r["kernel"], name].add(value)
    assert found["attend", "HEAD_DIM"] == {64, 128, 256}
    assert found["attend", "MODE"] == {"one", "loop", "parallel"}
    every = {
        (r["type"], r["constants"]["BLOCK"]) for r in results if r["kernel"] == "sorted_overlap"
    }
    assert every == {("i32", 64), ("i64", 32), ("i64", 64)}
    for flag in ("ONE_BLOCK", "HAS_WINDOW"):
        assert found["attend", flag] == {False, True}
    assert found["norm_rope", "QUERY_NORM"] == {0, 1, 2}
    assert found["gated", "GELU"] == {False, True}


def test_shared_memory_fits(results):
    assert [r for r in results if r["shared"] > SHARED[r["sm"]]] == []


def test_hot_kernels_do_not_spill(results):
    # Older compilers need a few more registers for all; the most on sm_80.
    tight = {(3, 6): 64, (3, 7): 80, (3, 8): 64}.get(RELEASE, 0)
    assert [r for r in results if r["stack"] > max(most_stack(r), tight)] == []


def test_matrix_products_run_on_the_tensor_cores(results):
    kind = {80: "mma.sync", 89: "mma.sync", 90: "wgmma", 100: "tcgen05"}
    for r in results:
        if r["kernel"] in PRODUCTS and r["type"] in ("bf16", "fp8e4nv"):
            assert all(x.startswith(kind[r["sm"]]) for x in r["instructions"]), r
            assert r["instructions"], r
        else:  # float32 is never rounded to a shorter type
            assert r["instructions"] == [], r


def test_rows_are_read_whole_before_they_are_rounded(results):
    """So that the result may take their place, which the interpreter cannot get wrong."""
    found = [r for r in results if r["kernel"] == "quantize_rows"]
    assert {r["constants"]["GROUPS"] > 1 for r in found} == {False, True}
    for r in found:
        assert r["waits"], r


def test_products_of_8_bits_widen_nothing(results):
    found = [r for r in results if r["type"] == "fp8e4nv"]
    variants = {(r["sm"], r["constants"]["GROUPED"]) for r in found}
    assert variants == {*product((89, 90, 100), (False, True))}
    for r in found:
        assert all("e4m3" in x or "f8f6f4" in x for x in r["instructions"]), r


def test_products_are_stored_sixteen_bytes_at_a_time(results):
    """As Triton does only where a run's sizes are marked as divisible by 16."""
    products = [r for r in results if r["kernel"] == "linear"]
    assert len(products) > 5
    for r in products:
        assert all(".v4.b32" in store for store in r["stores"]), r


def test_descriptors_feed_the_products(results):
    """The hardware copies tiles, and few instructions stand between products of 128 cycles."""
    found = [r for r in results if r["kernel"] in WITH_TMA]
    assert {(r["kernel"], r["sm"]) for r in found} == {
        (k, sm) for k in WITH_TMA for sm in (90, 100)
    }
    for r in found:
        assert r["stack"] == 0, r
        assert r["operations"]["UTMALDG"] >= 2, r
        assert r["operations"]["UTMASTG"] >= 1, r
        assert "LDGSTS" not in r["operations"], r
        if r["sm"] == 90:
            loop, is_fp8 = r["inner_loop"], r["kernel"] == "linear_fp8_tma"
            n_products = loop["QGMMA" if is_fp8 else "HGMMA"]
            assert n_products * (32 if is_fp8 else 16) == r["constants"]["BLOCK_K"], r
            assert loop["UTMALDG"] == 2, r
            # The compiler's waits, barriers and choice of a thread: see bench/LOG.md. With groups
            # there is the second set of sums, too.
            most = 104 if r["constants"]["BLOCK_M"] > 64 else 88
            most = 256 if r["constants"].get("GROUPED") else most
            assert sum(loop.values()) - n_products <= most, r


def test_tiles_of_all_heights_use_the_same_instructions(results):
    """What a row's bits rest on: one instruction, and its sums in the threads of one warp."""
    groups = defaultdict(list)
    for r in results:
        if r["kernel"] in PRODUCTS and r["type"] in ("bf16", "fp8e4nv"):
            of = r["constants"]
            width = of["HEAD_DIM"] if r["kernel"] == "attend" else of["BLOCK_N"]
            if r["kernel"].startswith("linear"):
                width = None  # which an output's bits do not depend on
            groups[r["kernel"], width, of.get("HAS_SUMS"), r["sm"]].append(r)
    heights = {key: {r["constants"]["BLOCK_M"] for r in members} for key, members in groups.items()}
    both = {64, 128}
    assert heights["attend", 128, None, 90] == heights["linear_tma", None, None, 90] == both
    assert heights["head_tile", 128, True, 90] == both
    for key, members in groups.items():
        kernel, _, sums, sm = key
        kinds = {of_any_width(r["instructions"], kernel) for r in members}
        assert len(kinds) == 1, members
        # Where there is one height, sums may come from several warps.
        if len(heights[key]) > 1 and (kernel == "attend" or (sums and sm == 90)):
            assert all(r["columns_of_warps"] == ["1"] for r in members), members


def of_any_width(instructions, kernel):
    """wgmma without its number of columns, where each output is a chain of its own."""
    if kernel.startswith("linear"):
        instructions = [re.sub(r"n\d+k", "nNk", one) for one in instructions]
    return tuple(instructions)
