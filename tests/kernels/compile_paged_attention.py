"""Shipped configurations of attention, and the small kernels beside it."""

from compile_case import SMS, CompileCase, short
from torch import bfloat16, float32

from flipfast_kernels.jit.combine_splits import combine_kernel
from flipfast_kernels.jit.kv_cache import write_kv_kernel
from flipfast_kernels.jit.paged_attention import attend_kernel
from flipfast_kernels.paged_attention import attention_configs


def cases():
    for sm in SMS:
        for head_dim in (128, 256):
            for config in dict.fromkeys(attention_configs(head_dim, bfloat16, sm)):
                yield attention(sm, bfloat16, head_dim, "one", config)
        yield combine(sm)
        yield write(sm)
    few, many = attention_configs(128, bfloat16, 90)
    yield attention(90, bfloat16, 128, "parallel", few)
    yield attention(90, bfloat16, 128, "loop", few)
    yield attention(90, bfloat16, 128, "loop", many)
    yield attention(90, float32, 128, "one", attention_configs(128, float32, 90)[0])


def attention(sm, dtype, head_dim, mode, config):
    constants = {
        "N_HEADS": 16,
        "GROUP": 2,
        "HEAD_DIM": head_dim,
        "BLOCK_D": head_dim,
        "PAGE_SIZE": 16,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "SPLIT": config.split,
        "MODE": mode,
        "ONE_BLOCK": False,
        "HAS_WINDOW": False,
        "HAS_SOFTCAP": False,
    }
    # A loop over splits keeps some of its second set of sums on the stack, head size 256 fills the
    # registers, and float32 is not a hot path: none of it inside a loop over keys.
    most_stack = 128 if mode == "loop" else 64 if head_dim == 256 or dtype == float32 else 0
    return CompileCase(
        f"attention-{short(dtype)}-d{head_dim}-{mode}-m{config.block_m}",
        attend_kernel,
        sm,
        constants,
        types(attend_kernel, constants, short(dtype)),
        {
            "enable_fp_fusion": dtype == float32,
            "num_warps": config.num_warps,
            "num_stages": config.num_stages,
        },
        most_stack=most_stack,
    )


def combine(sm):
    constants = {"N_HEADS": 16, "HEAD_DIM": 128, "BLOCK_H": 16, "BLOCK_D": 128}
    constants |= {"SPLIT": 1024, "HAS_WINDOW": False}
    fixed = {"enable_fp_fusion": False}
    given = types(combine_kernel, constants, "bf16")
    return CompileCase("combine", combine_kernel, sm, constants, given, fixed)


def write(sm):
    constants = {"PAGE_SIZE": 16, "BLOCK_H": 8, "BLOCK_D": 128}
    given = types(write_kv_kernel, constants, "bf16")
    return CompileCase("write", write_kv_kernel, sm, constants, given)


def types(kernel, constants, dtype):
    special = dict.fromkeys(("parts_ptr", "stats_ptr"), "*fp32")
    special |= dict.fromkeys(("cu_seqlens_q_ptr", "seq_lens_ptr", "tables_ptr"), "*i32")
    special |= {"slots_ptr": "*i64", "to_cap": "fp32", "to_log2": "fp32"}
    usual = {
        arg: f"*{dtype}" if arg.endswith("_ptr") else "i32"
        for arg in kernel.arg_names
        if arg not in constants
    }
    return {arg: special.get(arg, kind) for arg, kind in usual.items()}
