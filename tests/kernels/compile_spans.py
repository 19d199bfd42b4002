"""Shipped configuration of the search for spans."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.spans import find_spans_kernel
from flipfast_kernels.spans import find_spans_constants


def cases():
    constants = find_spans_constants()
    pointers = dict.fromkeys(("lens_ptr", "tokens_ptr", "results_ptr"), "*i32")
    pointers |= dict.fromkeys(("begin_ptr", "end_ptr", "status_ptr", "ids_ptr"), "*i32")
    pointers |= {"table_ptr": "*i16"}
    rest = [arg for arg in find_spans_kernel.arg_names if arg not in constants]
    types = {arg: pointers.get(arg, "i32") for arg in rest}
    for sm in SMS:
        yield CompileCase("spans", find_spans_kernel, sm, constants, types, {"num_warps": 1})
