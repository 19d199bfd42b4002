"""Compile every shipped configuration for devices that need not be here; JSON to stdout.

A program of its own: the tests' process may run Triton as an interpreter, which compiles nothing.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HERE = Path(__file__).parent
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
MATRIX = r"wgmma\.mma_async[\w.]*|mma\.sync[\w.]*|tcgen05\.mma[\w.:]*"


def main():
    with ProcessPoolExecutor(2) as pool:
        keys = [(file, i) for file, cases in files().items() for i in range(len(cases))]
        json.dump(list(pool.map(compiled, keys)), sys.stdout)


def files():
    """The cases of every `compile_*.py` here, by file name."""
    found = {}
    for file in sorted(HERE.glob("compile_*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "cases"):
            found[file.name] = list(module.cases())
    return found


_cases = {}


def compiled(key):
    """Compile one case; it is found again by its place, as kernels cannot be sent to a process."""
    if not _cases:
        _cases.update(files())
    name, index = key
    case = _cases[name][index]
    kernel, types = case.kernel, case.types
    missing = set(kernel.arg_names) ^ (set(types) | set(case.constants))
    assert not missing, f"{case.name}: {sorted(missing)} in only one of kernel and case"
    signature = {arg: types.get(arg, "constexpr") for arg in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, arg in enumerate(kernel.arg_names)
        if arg in types and arg.endswith(("_ptr", "_stride"))
    }
    source = ASTSource(kernel, signature, constexprs=case.constants, attrs=aligned)
    target = GPUTarget("cuda", case.sm, 32)
    result = triton.compile(source, target=target, options=case.options)
    registers, stack = resources(result.asm["cubin"])
    layouts = re.findall(r"#ttg\.nvidia_mma<[^>]*>", result.asm["ttgir"])
    return {
        "file": name,
        "name": case.name,
        "sm": case.sm,
        "registers": registers,
        "stack": stack,
        "most_stack": case.most_stack,
        "shared": result.metadata.shared,
        "instructions": sorted(set(re.findall(MATRIX, result.asm["ptx"]))),
        "columns_of_warps": sorted(
            {re.search(r"warpsPerCTA = \[\d+, (\d+)", x)[1] for x in layouts}
        ),
    }


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
