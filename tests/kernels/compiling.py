"""Compile every shipped configuration for devices that need not be here; JSON to stdout.

A program of its own: the tests' process may run Triton as an interpreter, which compiles nothing.
"""

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flipfast_kernels import gemm, paged_attention
from flipfast_kernels.jit import gemm as gemm_jit
from flipfast_kernels.jit import kv_cache as kv_cache_jit
from flipfast_kernels.jit import norm as norm_jit
from flipfast_kernels.jit import paged_attention as attention_jit

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
MATRIX = r"wgmma\.mma_async[\w.]*|mma\.sync[\w.]*|tcgen05\.mma[\w.:]*"
SMS = (80, 90, 100)


def main():
    cases = [*gemms(), *attentions(), *small()]
    with ProcessPoolExecutor(2) as pool:
        json.dump(list(pool.map(compiled, cases)), sys.stdout)


def gemms():
    for sm in SMS:
        for n_out in (4096, 1024):
            for config in dict.fromkeys(gemm.linear_configs(n_out, 1024, torch.bfloat16, sm)):
                yield gemm_case(sm, torch.bfloat16, config)
    yield gemm_case(90, torch.float32, gemm.linear_configs(1024, 1024, torch.float32, 90)[0])


def gemm_case(sm, dtype, config):
    constants = {
        "bias_ptr": None,
        "HAS_BIAS": False,
        "EVEN_K": True,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "GROUP_M": config.group_m,
    }
    return case(
        f"gemm-{NAMES[dtype]}-n{config.block_n}", "linear_kernel", sm, dtype, constants, config
    )


def attentions():
    for sm in SMS:
        for head_dim in (128, 256):
            configs = paged_attention.attention_configs(head_dim, torch.bfloat16, sm)
            for config in dict.fromkeys(configs):
                yield attention_case(sm, torch.bfloat16, head_dim, "one", config)
    few, many = paged_attention.attention_configs(128, torch.bfloat16, 90)
    yield attention_case(90, torch.bfloat16, 128, "parallel", few)
    yield attention_case(90, torch.bfloat16, 128, "loop", many)
    config = paged_attention.attention_configs(128, torch.float32, 90)[0]
    yield attention_case(90, torch.float32, 128, "one", config)


def attention_case(sm, dtype, head_dim, mode, config):
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
    name = f"attention-{NAMES[dtype]}-d{head_dim}-{mode}"
    return case(name, "attend_kernel", sm, dtype, constants, config)


def small():
    for sm in SMS:
        norm = {"HAS_RESIDUAL": True, "BLOCK": 1024}
        yield case("norm", "rms_norm_kernel", sm, torch.bfloat16, norm, None)
        write = {"PAGE_SIZE": 16, "BLOCK_H": 8, "BLOCK_D": 128}
        yield case("write", "write_kv_kernel", sm, torch.bfloat16, write, None)
        combine = {"N_HEADS": 16, "HEAD_DIM": 128, "BLOCK_H": 16, "BLOCK_D": 128}
        combine |= {"SPLIT": 1024, "HAS_WINDOW": False}
        yield case("combine", "combine_kernel", sm, torch.bfloat16, combine, None)


def case(name, kernel, sm, dtype, constants, config):
    options = {"enable_fp_fusion": dtype == torch.float32 or kernel == "linear_kernel"}
    if config is not None:
        options |= {"num_warps": config.num_warps, "num_stages": config.num_stages}
        name += f"-m{config.block_m}"
    return name, kernel, sm, NAMES[dtype], constants, options


def compiled(one):
    name, kernel_name, sm, dtype, constants, options = one
    modules = (gemm_jit, attention_jit, norm_jit, kv_cache_jit)
    kernel = next(getattr(m, kernel_name) for m in modules if hasattr(m, kernel_name))
    types = {arg: argument_type(arg, dtype) for arg in kernel.arg_names if arg not in constants}
    signature = {arg: types.get(arg, "constexpr") for arg in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, arg in enumerate(kernel.arg_names)
        if arg in types and arg.endswith(("_ptr", "_stride"))
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    result = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    registers, stack = resources(result.asm["cubin"])
    layouts = re.findall(r"#ttg\.nvidia_mma<[^>]*>", result.asm["ttgir"])
    return {
        "name": name,
        "sm": sm,
        "registers": registers,
        "stack": stack,
        "shared": result.metadata.shared,
        "instructions": sorted(set(re.findall(MATRIX, result.asm["ptx"]))),
        "columns_of_warps": sorted(
            {re.search(r"warpsPerCTA = \[\d+, (\d+)", x)[1] for x in layouts}
        ),
    }


def argument_type(name, dtype):
    if name in ("parts_ptr", "stats_ptr"):
        return "*fp32"
    if name in ("cu_seqlens_q_ptr", "seq_lens_ptr", "tables_ptr"):
        return "*i32"
    if name == "slots_ptr":
        return "*i64"
    if name.endswith("_ptr"):
        return f"*{dtype}"
    return "fp32" if name in ("eps", "to_cap", "to_log2") else "i32"


def resources(cubin):
    """Registers a thread, and bytes of stack a thread, which is where spills go."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    main()
