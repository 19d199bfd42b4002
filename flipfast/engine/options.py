"""Options of the engine, and the memory budget that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flipfast.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MAX_SEQS = {"cpu": 32, "cuda": 256}
_MAX_TOKENS = {"cpu": 1024, "cuda": 8192}
WEIGHTS = ("float", "int8", "int4", "fp8")
MEMORY_SHARE = {"cpu": 0.3, "cuda": 0.9}


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs its model; None chooses by the device.

    Attributes:
        device: "cpu", "cuda", "cuda:1"; None takes CUDA if available.
        dtype: of the weights: "float32", "bfloat16" or, on CUDA, "float16". None takes bfloat16 on
            CUDA and on CPUs with matrix units for it (AMX), else float32.
        weights: "float" multiplies with floats of the dtype, also where a checkpoint is quantised;
            "int8" and "int4", on the CPU, with blocks of 32 numbers of 8 or 4 bits (GGUF's Q8_0 and
            Q4_0), to which all weights are quantised; "fp8", on CUDA, with 8-bit floats and a scale
            a row, to which all weights but embedding and head are rounded. None takes the types of
            a GGUF file on the CPU, and the 8-bit floats of a checkpoint on CUDA from compute
            capability 8.9 on, and floats for anything else.
        deterministic: whether the bits of a result depend on its own request alone.
        attention: name of an attention backend.
        memory: what the engine may allocate besides the weights: bytes, or at most 1.0 for a
            share of the memory that is free after loading them.
        max_seqs: maximum number of sequences running at a time.
        max_tokens: maximum number of tokens per step; longer prompts are prefilled in chunks.
        prefix_cache: whether prompts share the pages of a common prefix.
        cuda_graphs: whether steps of usual shapes run as CUDA graphs, on CUDA; see `step_shapes`.
        drafting: whether to use speculative decoding where it is faster.

    Raises:
        ConfigError: a value outside its range.
    """

    device: str | None = None
    dtype: str | None = None
    weights: str | None = None
    deterministic: bool = True
    attention: str | None = None
    memory: float | None = None
    max_seqs: int | None = None
    max_tokens: int | None = None
    prefix_cache: bool = True
    cuda_graphs: bool = True
    drafting: bool = True

    def __post_init__(self) -> None:
        for name in ("max_seqs", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if self.weights is not None and self.weights not in WEIGHTS:
            raise ConfigError(f"unknown weights {self.weights!r}; use one of: {', '.join(WEIGHTS)}")
        if self.memory is not None and not self.memory > 0:
            raise ConfigError(f"memory must be above 0, not {self.memory}")

    def seqs(self, device: torch.device) -> int:
        """Maximum number of sequences running at a time on this device."""
        return self.max_seqs or _MAX_SEQS[device.type]

    def tokens(self, device: torch.device) -> int:
        """Maximum number of tokens per step, at least one per running sequence."""
        return max(self.max_tokens or _MAX_TOKENS[device.type], self.seqs(device))

    def budget(self, device: torch.device) -> int:
        """Bytes that the engine may allocate besides the weights, which must be loaded already."""
        memory = MEMORY_SHARE[device.type] if self.memory is None else self.memory
        if memory > 1:
            return int(memory)
        return int(memory * _free_bytes(device))


def resolve_device(name: str | None) -> torch.device:
    """The device to run on; None takes CUDA if available, else the CPU.

    CUDA without an index is the current device of this thread; in another thread, which may run
    the engine later, it would be another one.

    Raises:
        ConfigError: the name is not a device, or CUDA is requested but not available.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; use 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"device {name!r} asked for, but torch sees no CUDA device; use 'cpu'"
            )
        if device.index is None:
            return torch.device("cuda", torch.cuda.current_device())
    return device


def n_pages(budget: int, *, fixed: int, page: int, wanted: int) -> int:
    """How many pages fit the budget.

    Args:
        budget: bytes in total.
        fixed: bytes needed besides pages.
        page: bytes of one page, all layers.
        wanted: maximum number of useful pages.

    Raises:
        ConfigError: not even two pages fit (the first one is reserved).
    """
    fit = (budget - fixed) // page
    if fit < 2:
        raise ConfigError(
            f"a memory budget of {budget} bytes is too small: the engine needs {fixed} bytes to "
            f"work with and at least two pages of {page} bytes; raise memory, or run fewer "
            "sequences and tokens at a time"
        )
    return min(fit, wanted)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # reading the weights took some that is not needed again
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # needed only on the CPU

    return int(psutil.virtual_memory().available)
