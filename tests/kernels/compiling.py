"""Compile all that runs launch, for devices that need not be here; JSON to stdout.

A program of its own, `python -m tests.kernels.compiling`: the tests' process may run Triton as an
interpreter, which compiles nothing.
"""

import importlib
import json
import multiprocessing
import re
import sys
from collections import defaultdict

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.kernels.launches import RUNS, launched
from tests.kernels.sass import inner_loop, operations, resources

# Of variants that differ only in these constants, one is compiled. The numbers of heads change only
# addresses; the others are for a selection. A run's first mode, "loop", needs the most registers.
HEADS = ("N_HEADS", "GROUP")
ALIKE = {90: HEADS, 80: (*HEADS, "MODE", "ONE_BLOCK"), 100: (*HEADS, "MODE", "ONE_BLOCK"), 89: ()}
TYPE = re.compile(r"(?:\*|tensordesc<)(\w+)")  # of a pointer or a tensor descriptor
MATRIX = r"wgmma\.mma_async[\w.]*|mma\.sync[\w.]*|tcgen05\.mma[\w.:]*"


def main():
    context = multiprocessing.get_context("fork")  # what took long to import is there already
    with context.Pool(2, maxtasksperchild=1) as pool:
        found = pool.starmap(launched, RUNS, chunksize=1)
    variants = defaultdict(list)
    for (sm, _), some in zip(RUNS, found, strict=True):
        variants[sm] += some
    tasks = [(sm, one) for sm, every in variants.items() for one in distinct(every, ALIKE[sm])]
    with context.Pool(2) as pool:
        json.dump(pool.starmap(compiled, tasks, chunksize=1), sys.stdout)


def distinct(variants, alike):
    """The first of those variants that differ in nothing but these constants."""
    found = {}
    for variant in variants:
        asked = json.loads(variant.data)
        names = list(asked["signature"])
        constants = paired(asked, "constant").items()
        rest = [(at, value) for (at,), value in constants if names[at] not in alike]
        marks = paired(asked, "attrs")
        key = repr((variant.kernel, asked["signature"], rest, marks, asked["options"]))
        found.setdefault(key, variant)
    return list(found.values())


def compiled(sm, variant):
    """What the compiler makes of a variant."""
    asked = json.loads(variant.data)
    signature, constants = asked["signature"], paired(asked, "constant")
    options = {name: hashable(value) for name, value in asked["options"].items()}
    kernel = getattr(importlib.import_module(variant.module), variant.kernel)
    source = ASTSource(kernel, signature, constants, paired(asked, "attrs"))
    result = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    registers, stack = resources(result.asm["cubin"])
    layouts = re.findall(r"#ttg\.nvidia_mma<[^>]*>", result.asm["ttgir"])
    names = list(signature)
    is_tma = variant.kernel.endswith("_tma_kernel")
    product = "QGMMA" if "fp8" in variant.kernel else "HGMMA"
    return {
        "kernel": variant.kernel.removesuffix("_kernel"),
        "sm": sm,
        "type": TYPE.match(next(filter(TYPE.match, signature.values())))[1],
        "constants": {names[at]: value for (at,), value in constants.items()},
        "registers": registers,
        "stack": stack,
        "shared": result.metadata.shared,
        "instructions": sorted(set(re.findall(MATRIX, result.asm["ptx"]))),
        "operations": operations(result.asm["cubin"]) if is_tma else {},
        "inner_loop": inner_loop(result.asm["cubin"], product) if is_tma else {},
        "waits": waits_before_storing(result.asm["ptx"]),
        "stores": sorted(set(re.findall(r"st\.global[\w.]*", result.asm["ptx"]))),
        "columns_of_warps": sorted(
            {re.search(r"warpsPerCTA = \[\d+, (\d+)", x)[1] for x in layouts}
        ),
    }


def waits_before_storing(ptx):
    """Whether threads wait for each other between a program's last read and its first write."""
    first = ptx.find("st.global")
    return "bar.sync" in ptx[ptx.rfind("ld.global", 0, first) : first]


def paired(asked, name):
    """Keys, the places of arguments, with their values."""
    keys, values = asked[f"{name}_keys"], asked[f"{name}_vals"]
    return dict(zip(map(tuple, keys), values, strict=True))


def hashable(value):
    """JSON's lists as the tuples that they were."""
    return tuple(map(hashable, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
