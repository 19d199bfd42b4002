"""One kernel, one configuration, one target: what `compiling.py` compiles."""

from dataclasses import dataclass, field
from typing import Any

SMS = (80, 90, 100)
TYPES = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32"}


@dataclass
class CompileCase:
    """A shipped configuration.

    Attributes:
        name: kernel, then what tells it from its other configurations.
        kernel: the `@triton.jit` function.
        sm: 80, 90 or 100.
        constants: its constexpr arguments and the pointers that are None.
        types: Triton's type of every other argument, such as "*bf16" or "i32".
        options: of the compiler, such as num_warps.
        most_stack: bytes of stack a thread may take, which is where spills go.
    """

    name: str
    kernel: Any
    sm: int
    constants: dict[str, Any]
    types: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    most_stack: int = 0


def short(dtype: Any) -> str:
    """Triton's name of a dtype."""
    return TYPES[str(dtype)]
