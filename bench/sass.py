"""Machine code of a cubin: instructions, the functions they come from, and loops.

Triton brings NVIDIA's tools; no GPU is needed.
"""

from __future__ import annotations

import ast
import math
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_TRITON: Any = import_module("triton")  # it has no type stubs
_TOOLS = Path(_TRITON.__file__).parent / "backends/nvidia/bin"
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_LABEL = re.compile(r"^\s*([.$\w]+):$")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)(.*);")


class Instruction(NamedTuple):
    """An instruction of the main program.

    Attributes:
        name: without modifiers, such as "ISETP".
        functions: the functions of the source that it was inlined from, in no order.
    """

    name: str
    functions: frozenset[str]


@dataclass(frozen=True)
class Loop:
    """Instructions from `begin` to before `end`, the last of which branches back."""

    begin: int
    end: int
    function: str  # the one that has the loop


@dataclass(frozen=True)
class Program:
    """Instructions in the order of their addresses, without subroutines, and the loops in them."""

    instructions: tuple[Instruction, ...]
    loops: tuple[Loop, ...]

    def executed(
        self, trips: Mapping[str, Sequence[int]], never: Collection[str] = ()
    ) -> Counter[str]:
        """How often a warp executes instructions of each name, at most.

        Branches that data may skip count as taken, unless `never` has them.

        Args:
            trips: of the loops of a function, from the outermost inwards.
            never: functions that are not called.
        """
        counts: Counter[str] = Counter()
        for at, instruction in enumerate(self.instructions):
            if instruction.functions.isdisjoint(never):
                counts[instruction.name] += math.prod(
                    trips[loop.function][self._depth(loop)]
                    for loop in self.loops
                    if loop.begin <= at < loop.end and loop.function not in never
                )
        return counts

    def _depth(self, loop: Loop) -> int:
        """Loops of the same function around a loop."""
        return sum(
            around.begin <= loop.begin and loop.end < around.end
            for around in self.loops
            if around.function == loop.function
        )


def told(cubin: bytes, tool: str, *options: str) -> str:
    """What one of NVIDIA's tools writes of a cubin, such as nvdisasm or cuobjdump.

    Raises:
        subprocess.CalledProcessError: it does not read it.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        command = [str(_TOOLS / tool), *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def parse(text: str, folder: Path) -> Program:
    """A program from what nvdisasm writes with the options -c and -gi.

    Args:
        text: of one kernel, compiled with line numbers, as Triton does.
        folder: has the kernel's source files. Their paths in the text may be those of another
            checkout with the same code, from Triton's cache.
    """
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    loops: list[Loop] = []
    places: list[tuple[str, int]] = []  # innermost first
    is_fresh = False
    for line in text.splitlines():
        if "//## File" in line:
            places = _places(line) if is_fresh else places + _places(line)
            is_fresh = False
        elif found := _LABEL.match(line):
            if found[1].startswith("$"):
                break  # a subroutine: the slow way of a division
            labels[found[1]] = len(instructions)
        elif found := _INSTRUCTION.search(line):
            name, is_fresh = found[2].split(".")[0], True
            target = re.search(r"\((\.L_\w+)\)", found[3]) if name == "BRA" else None
            begin = labels.get(target[1]) if target else None
            if begin == len(instructions):
                break  # the end, which branches to itself
            functions = [_function(folder / Path(path).name, at) for path, at in places]
            instructions.append(Instruction(name, frozenset(functions)))
            if begin is not None:
                loops.append(Loop(begin, len(instructions), functions[0]))
    return Program(tuple(instructions), tuple(loops))


def _places(line: str) -> list[tuple[str, int]]:
    """The place that a line of comment begins with; the next such line has the one around it."""
    return [(path, int(number)) for path, number in _PLACE.findall(line)[:1]]


def _function(path: Path, line: int) -> str:
    """The function of a source file that has a line; "" if there is none."""
    return next((name for first, last, name in _functions(path) if first <= line <= last), "")


@lru_cache
def _functions(path: Path) -> tuple[tuple[int, int, str], ...]:
    nodes = ast.parse(path.read_text()).body if path.exists() else []
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return tuple((node.lineno, node.end_lineno or node.lineno, node.name) for node in functions)
