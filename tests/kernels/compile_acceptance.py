"""Shipped configurations of the acceptance: plain decode, and sampled drafts."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.acceptance import accept_kernel

INT32 = ("starts_ptr", "budgets_ptr", "n_emitted_ptr", "stop_ptr")
INTS = ("n_end_ids", "width")


def cases():
    for sm in SMS:
        yield case(sm, "decode", 1, ("fed_ptr", "starts_ptr", "draft_probs_ptr", "uniforms_ptr"))
        yield case(sm, "sampled", 16, ())


def case(sm, name, block, absent):
    constants = {
        **dict.fromkeys(absent),
        "HAS_DRAFTS": "fed_ptr" not in absent,
        "HAS_PROBS": "draft_probs_ptr" not in absent,
        "HAS_END_IDS": True,
        "HAS_BUDGETS": True,
        "HAS_SLOTS": True,
        "HAS_ADDRESSES": True,
        "BLOCK": block,
    }
    special = dict.fromkeys(INT32, "*i32") | dict.fromkeys(INTS, "i32")
    special |= {"draft_probs_ptr": "*fp32", "uniforms_ptr": "*fp64"}
    rest = [arg for arg in accept_kernel.arg_names if arg not in constants]
    given = {arg: special.get(arg, "*i64") for arg in rest}
    return CompileCase(f"accept-{name}", accept_kernel, sm, constants, given, {"num_warps": 1})
