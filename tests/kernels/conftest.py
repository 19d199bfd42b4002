"""Where the kernels run in these tests: on CUDA, else in Triton's interpreter."""

import importlib.util

import numpy as np
import pytest
import torch


@pytest.fixture
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _one_chain_of_products(monkeypatch):
    """Let the interpreter's dot add one k after the other, as the matrix instructions do.

    numpy's product may give a row other bits in another place of a tile, and it takes bfloat16,
    which the interpreter keeps as 16-bit integers, for numbers. Conversions to 8-bit floats are
    torch's: the interpreter rounds ties away from zero, loses a carry into the exponent, and makes
    zero of what is below the least number (Triton 3.9).
    """
    if not importlib.util.find_spec("triton"):
        return
    from triton.runtime import interpreter

    def dot(self, a, b, d, *_):
        sums = d.data.copy()
        for column, row in zip(_wide(a).T, _wide(b), strict=True):
            sums += np.outer(column, row)
        return interpreter.TensorHandle(sums, d.dtype.scalar)

    convert = interpreter.InterpreterBuilder.create_fp_to_fp

    def create_fp_to_fp(self, src, dst_type, rounding_mode):
        if str(dst_type.scalar) != "fp8e4nv":
            return convert(self, src, dst_type, rounding_mode)
        numbers = torch.from_numpy(_wide(src)).to(torch.float8_e4m3fn).view(torch.uint8)
        return interpreter.TensorHandle(numbers.numpy(), dst_type.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fp_to_fp", create_fp_to_fp)


def _wide(operand):
    if str(operand.dtype.scalar) == "fp8e4nv":
        numbers = torch.from_numpy(np.ascontiguousarray(operand.data))
        return numbers.view(torch.float8_e4m3fn).float().numpy()
    if operand.dtype.scalar.is_bf16():
        return (operand.data.astype(np.uint32) << 16).view(np.float32)
    return operand.data.astype(np.float32)
