#!/usr/bin/env bash
# Triton 3.9.0 with torch 2.13.0: the interpreter (TRITON_INTERPRET=1) converts to and from float8 by
# rules of its own.
#
# Expected: `x.to(tl.float8e4nv)` rounds to the nearest, ties to even (the documentation's "rtne"), as
# devices and torch do; numbers beyond 448 become 448, and NaN stays NaN in either direction. Of the
# types, the documentation of the interpreter excepts bfloat16 alone.
# Seen: where rounding up fills the mantissa, the carry is lost if the exponent is odd, and the number
# is half of what it should be: 1.97 becomes 1. That is 2.5 % of normally distributed numbers, in
# float8e5 4.8 %. Ties go away from zero, 1000 and infinity become 256, and a stored NaN is read as
# 480. A kernel that looks for overflow or scales its blocks passes or fails for the wrong reason.
# What to do: test such kernels on a device, or convert with torch around them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 triton==3.9.0 numpy==2.4.6
cat >"$folder/cast.py" <<'PYTHON'
import torch
import triton
import triton.language as tl


@triton.jit
def cast(source, target, n: tl.constexpr):
    at = tl.arange(0, n)
    tl.store(target + at, tl.load(source + at).to(target.dtype.element_ty))


def converted(numbers, dtype):
    target = torch.empty(len(numbers), dtype=dtype)
    cast[(1,)](numbers, target, len(numbers))
    return target


e4m3, e5m2, f32 = torch.float8_e4m3fn, torch.float8_e5m2, torch.float32
few = torch.tensor([1.97, 126.2, 1.0625, 1.1875, 1000.0, float("inf"), 0.25, -3.5])
right, got = few.to(e4m3).to(f32), converted(few, e4m3).to(f32)
for number, one, other in zip(few.tolist(), right.tolist(), got.tolist()):
    print(f"{number:8.4g}: torch {one:g}, the interpreter {other:g}")
assert right.tolist() == [2.0, 128.0, 1.0, 1.25, 448.0, 448.0, 0.25, -3.5]
assert got.tolist() == [1.0, 64.0, 1.125, 1.25, 256.0, 256.0, 0.25, -3.5]

normal = torch.randn(2**15, generator=torch.Generator().manual_seed(0))
for dtype, share in ((e4m3, 0.02), (e5m2, 0.04)):
    ratio = converted(normal, dtype).to(f32) / normal.to(dtype).to(f32)
    halved = (ratio == 0.5).float().mean().item()
    print(f"{dtype}: {halved:.1%} of normally distributed numbers are halved")
    assert share < halved < share + 0.02

nan = torch.tensor([float("nan"), 1.0]).to(e4m3)
print(f"NaN of {e4m3}: torch {nan.to(f32)[0]}, the interpreter {converted(nan, f32)[0]}")
assert nan.to(f32)[0].isnan() and converted(nan, f32).tolist() == [480.0, 1.0]
PYTHON
TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/cast.py"
