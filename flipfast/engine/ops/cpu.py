"""The operations on the CPU: C++ kernels, chosen by the processor's instruction set.

Products sum over k in one fixed order for every row, so a row's bits never depend on the batch;
the same holds for norms and everything else here. Bits may differ between instruction sets.
"""

from __future__ import annotations

import torch

import flipfast._cpu as _cpu
from flipfast import env
from flipfast.engine.ops.base import Linear, Ops, RopeTable, Table, Written
from flipfast.engine.ops.blocks import KINDS
from flipfast.engine.ops.cpu_linear import DTYPES, CpuLinear
from flipfast.engine.ops.cpu_quantized import QuantizedCpuLinear
from flipfast.engine.ops.cpu_tensors import address_of, n_rows, require_rows
from flipfast.errors import ConfigError

_QUANTISED = {"int8": "Q8_0", "int4": "Q4_0"}


def use_the_asked_for() -> None:
    """Use the instruction set that FLIPFAST_CPU_ISA names, if it is set.

    Raises:
        ConfigError: this processor does not have that instruction set.
    """
    isa = env.cpu_isa()
    if isa is None:
        return
    try:
        _cpu.set_isa(isa)
    except ValueError as error:
        raise ConfigError(f"FLIPFAST_CPU_ISA: {error}") from None


use_the_asked_for()


def best_weight_dtype() -> torch.dtype:
    """bfloat16 if the processor has matrix instructions for it (AMX), else float32."""
    return torch.bfloat16 if _cpu.isa() == "amx" else torch.float32


def instruction_set() -> str:
    """Instruction set that the kernels use: amx, avx512_vnni, avx512, avx2_vnni, avx2, neon
    or generic."""
    return _cpu.isa()


class CpuOps(Ops):
    """The decoder's operations on the CPU; activations are float32.

    Args:
        weight_dtype: float32 multiplies in float32, and stores the weights of a bfloat16 checkpoint
            losslessly as bfloat16; bfloat16 rounds weights and activations for products.
        threads: number of kernel threads, for the whole process; None takes torch's number.
        weights: None multiplies with the blocks of a GGUF file as they are, "float" with floats
            alone; "int8" and "int4" quantise all weights, to blocks of Q8_0 and Q4_0.

    Raises:
        ConfigError: another dtype, or fewer than one thread.
    """

    device = torch.device("cpu")
    activation_dtype = torch.float32
    batch_invariant = True

    def __init__(
        self, weight_dtype: torch.dtype, threads: int | None = None, weights: str | None = None
    ) -> None:
        if weight_dtype not in DTYPES:
            raise ConfigError(
                f"the CPU kernels have no {weight_dtype}: use float32, or bfloat16 for speed on "
                "a processor with AMX"
            )
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be at least 1, not {threads}")
        self.weight_dtype = weight_dtype
        self._weights = weights
        _cpu.set_threads(torch.get_num_threads() if threads is None else threads)

    def linear(
        self,
        n_out: int,
        n_in: int,
        *,
        bias: bool,
        source_dtype: torch.dtype,
        kinds: tuple[str, ...] = (),
    ) -> Linear:
        """Create a product whose weight is loaded later."""
        quantised = self._quantised(n_out, n_in, bias, kinds)
        return quantised or self._floats(n_out, n_in, bias, source_dtype)

    def table(self, n_rows: int, width: int, *, kinds: tuple[str, ...] = ()) -> Table:
        """Create a table whose rows are loaded later."""
        return self._quantised(n_rows, width, False, kinds) or super().table(n_rows, width)

    def _quantised(
        self, n_out: int, n_in: int, bias: bool, kinds: tuple[str, ...]
    ) -> QuantizedCpuLinear | None:
        """A product of blocks; None if there are to be none, or if one of the kinds has no kernel.

        A weight that is of several tensors has floats for all of them then.
        """
        kind = _QUANTISED.get(self._weights or "")
        if kind is not None:
            kinds = (kind,)
        fits = all(each in KINDS and n_in % KINDS[each][0] == 0 for each in kinds)
        if self._weights == "float" or not kinds or not fits:
            return None
        kept = KINDS if kind is None else kinds
        return QuantizedCpuLinear(n_out, n_in, bias=bias, kind=kind or "Q8_0", kept=kept)

    def _floats(self, n_out: int, n_in: int, bias: bool, source_dtype: torch.dtype) -> Linear:
        lossless = source_dtype is torch.bfloat16 or self.weight_dtype is torch.bfloat16
        storage = torch.bfloat16 if lossless else torch.float32
        return CpuLinear(n_out, n_in, bias=bias, storage=storage, compute=self.weight_dtype)

    def embed(
        self, ids: torch.Tensor, table: Table, scale: float, out: torch.Tensor
    ) -> torch.Tensor:
        """Rows `ids`, (n,) int64, times scale, of a float32 or bfloat16 table or of blocks."""
        if isinstance(table, QuantizedCpuLinear):
            return table.embed(ids, scale, out)
        if isinstance(table, Linear):
            raise ValueError(f"a {type(table).__name__} is no table")
        if table.ndim != 2 or table.dtype not in DTYPES or table.stride(1) != 1:
            raise ValueError(
                f"a table must be (vocabulary, d) float32 or bfloat16 with stride 1 in the last "
                f"dimension, not {tuple(table.shape)} {table.dtype} of stride {table.stride()}"
            )
        n, d = ids.shape[0], table.shape[1]
        address = address_of("ids", ids, n, torch.int64)
        require_rows("out", out, d, n)
        _cpu.embed(
            address,
            n,
            table.data_ptr(),
            table.dtype is torch.bfloat16,
            table.stride(0),
            table.shape[0],
            d,
            scale,
            out.data_ptr(),
            out.stride(0),
        )
        return out

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, out: Written) -> Written:
        """x / sqrt(mean(x**2) + eps) * weight over rows of (n, d); `out` may be x."""
        assert isinstance(out, torch.Tensor)  # products here take no others
        d = weight.shape[0]
        n = n_rows("x", x, d)
        require_rows("out", out, d, n)
        w = address_of("weight", weight, d, torch.float32)
        _cpu.rms_norm(x.data_ptr(), x.stride(0), 0, 0, w, eps, n, d, out.data_ptr(), out.stride(0))
        return out

    def add_rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: Written,
    ) -> Written:
        """Add x to the residual in place and write the residual's rms_norm; `out` may be x."""
        assert isinstance(out, torch.Tensor)  # products here take no others
        d = weight.shape[0]
        n = n_rows("x", x, d)
        require_rows("residual", residual, d, n)
        require_rows("out", out, d, n)
        _cpu.rms_norm(
            x.data_ptr(),
            x.stride(0),
            residual.data_ptr(),
            residual.stride(0),
            address_of("weight", weight, d, torch.float32),
            eps,
            n,
            d,
            out.data_ptr(),
            out.stride(0),
        )
        return out

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Add x to the residual in place; returns the residual."""
        d = x.shape[-1]
        n = n_rows("x", x, d)
        require_rows("residual", residual, d, n)
        _cpu.add(x.data_ptr(), x.stride(0), residual.data_ptr(), residual.stride(0), n, d)
        return residual

    def norm_rope(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        rope: RopeTable | None,
        weight: torch.Tensor | None,
        eps: float,
    ) -> None:
        """Normalize and rotate queries or keys in place; see the base class."""
        if x.ndim != 3 or x.dtype is not torch.float32 or x.stride(2) != 1:
            raise ValueError(
                f"x must be (n, heads, head_dim) float32 with stride 1 in the last dimension, "
                f"not {tuple(x.shape)} {x.dtype} of stride {x.stride()}"
            )
        n, heads, head_dim = x.shape
        cos, sin, table_rows, half = _rope_arguments(rope, head_dim)
        full = weight is not None and weight.shape[0] != head_dim
        width = heads * head_dim if full else head_dim
        _cpu.norm_rope(
            x.data_ptr(),
            x.stride(0),
            x.stride(1),
            n,
            heads,
            head_dim,
            address_of("positions", positions, n, torch.int64),
            table_rows,
            cos,
            sin,
            half,
            0 if weight is None else address_of("weight", weight, width, torch.float32),
            full,
            eps,
        )

    def gated(self, gate_up: torch.Tensor, activation: str, out: Written) -> Written:
        """activation(gate) * up from (n, 2 * d), gate first, to (n, d)."""
        assert isinstance(out, torch.Tensor)  # products here take no others
        if activation not in ("silu", "gelu_tanh"):
            raise ValueError(f"activation must be silu or gelu_tanh, not {activation!r}")
        d = out.shape[1]
        n = n_rows("out", out, d)
        require_rows("gate_up", gate_up, 2 * d, n)
        _cpu.gated(
            gate_up.data_ptr(),
            gate_up.stride(0),
            n,
            d,
            activation == "gelu_tanh",
            out.data_ptr(),
            out.stride(0),
        )
        return out

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """Column of the first maximum of each row of (n, d), as (n,) int64.

        It is -1 for a row that contains a NaN or has no finite maximum.
        """
        n = n_rows("logits", logits, logits.shape[-1])
        out = torch.empty(n, dtype=torch.int64)
        _cpu.argmax(logits.data_ptr(), logits.stride(0), n, logits.shape[1], out.data_ptr())
        return out

    def log_prob(
        self, logits: torch.Tensor, best: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """log(softmax(logits)) of one token per row of (n, d), NaN where `best` is negative."""
        n = n_rows("logits", logits, logits.shape[-1])
        out = torch.empty(n, dtype=torch.float32)
        _cpu.log_prob(
            logits.data_ptr(),
            logits.stride(0),
            n,
            logits.shape[1],
            address_of("best", best, n, torch.int64),
            address_of("targets", targets, n, torch.int64),
            out.data_ptr(),
        )
        return out


def _rope_arguments(rope: RopeTable | None, head_dim: int) -> tuple[int, int, int, int]:
    """Addresses of cosines and sines, number of positions, number of dimension pairs."""
    if rope is None:
        return 0, 0, 0, 0
    cos, sin = rope.cos, rope.sin
    same = cos.shape == sin.shape and cos.dtype is sin.dtype is torch.float32
    if not (same and cos.is_contiguous() and sin.is_contiguous() and 2 * cos.shape[1] <= head_dim):
        raise ValueError(
            f"cos and sin must be (positions, at most {head_dim // 2}) float32 and contiguous, not "
            f"{tuple(cos.shape)} {cos.dtype} and {tuple(sin.shape)} {sin.dtype}"
        )
    return cos.data_ptr(), sin.data_ptr(), cos.shape[0], cos.shape[1]
