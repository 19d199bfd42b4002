"""A quicker Triton interpreter, whose scans go in the order of a device rather than of a loop."""

import numpy as np
import triton.language as tl


def interpret_quickly(monkeypatch):
    """Let the interpreter prepare once a launch, and its scans join whole arrays.

    It prepares the language again in every call of a function, `tl.sum` too, which takes most of
    its time. It joins one element of a scan after the other, which takes long and would hide a
    function that is not associative.
    """
    from triton.runtime import interpreter

    prepared, prepare = set(), interpreter._patch_lang

    def prepare_once(fn):
        names = frozenset(id(x) for x in fn.__globals__.values() if x is tl or x is tl.core)
        if names in prepared:
            return None  # in a call inside a launch, which does not use it
        prepared.add(names)
        scope = prepare(fn)
        restore = scope.restore

        def end():
            prepared.clear()
            restore()

        scope.restore = end
        return scope

    monkeypatch.setattr(interpreter, "_patch_lang", prepare_once)
    monkeypatch.setattr(interpreter.ScanOps, "generic_scan", _scan)


def _scan(ops, given):
    """Joins elements over distances of 1, 2, 4 and so on."""

    def tensors(arrays):
        return [ops.to_tensor(a, like.dtype) for a, like in zip(arrays, given, strict=True)]

    arrays, step = [tensor.handle.data for tensor in given], 1
    assert arrays[0].ndim == 1
    while step < len(arrays[0]):
        before = tensors([np.roll(array, step) for array in arrays])
        joined = ops.combine_fn.fn(*before, *tensors(arrays))
        joined = joined if isinstance(joined, tuple) else (joined,)
        # The first ones have nothing that far before them.
        arrays = [
            np.concatenate([array[:step], tensor.handle.data[step:]])
            for array, tensor in zip(arrays, joined, strict=True)
        ]
        step *= 2
    return tensors(arrays)
