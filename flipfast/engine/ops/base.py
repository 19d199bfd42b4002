"""The operations of a decoder layer, except attention; one implementation per kind of device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, Union

import torch

from flipfast.engine.ops.blocks import Blocks, widened

if TYPE_CHECKING:
    from flipfast_kernels.fp8_rows import Fp8Rows  # needs Triton

# Rows that a product multiplies: a tensor, or a form of its own.
Operand = Union[torch.Tensor, "Fp8Rows"]
# The same, as norms and activations write it; they return what they were given.
Written = TypeVar("Written", bound=Operand)


class Linear(ABC):
    """A matrix product with a fixed weight, in whatever layout suits the device.

    Attributes:
        n_out: rows of the weight.
        n_in: columns of the weight.
    """

    n_out: int
    n_in: int

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of weight and bias, including padding."""

    @property
    def table(self) -> Table | None:
        """The weight as a table for `Ops.embed`; None if its layout does not allow that."""
        return None

    def tensors(self) -> list[torch.Tensor]:
        """What holds weight and bias, if that is tensors, whose `data` may be moved."""
        return []

    def load(self, rows: torch.Tensor | Blocks, first_row: int) -> None:
        """Set the rows from first_row on, (n, n_in); blocks are widened if need be."""
        self.load_rows(widened(rows), first_row)

    @abstractmethod
    def load_rows(self, weight: torch.Tensor, first_row: int) -> None:
        """Set the rows from first_row on to weight, (n, n_in), any float dtype, any device."""

    @abstractmethod
    def load_bias(self, bias: torch.Tensor, first_row: int) -> None:
        """Set the bias of the rows from first_row on to bias, (n,); it is 0 before that."""

    def operand(self, x: torch.Tensor) -> Operand:
        """Where to write rows that are to be multiplied, in the memory of x, (n, n_in)."""
        return x

    @abstractmethod
    def __call__(self, x: Operand, out: torch.Tensor) -> torch.Tensor:
        """Write x @ weight.T + bias, (n, n_in) to (n, n_out), into `out` and return it.

        x is a tensor, or what `operand` gave.
        """


# Rows that tokens are embedded with: (vocabulary, d) in the operations' weight_dtype, or a product.
Table = torch.Tensor | Linear


@dataclass(frozen=True)
class RopeTable:
    """Cosines and sines of the rotary embedding (Su et al. 2021), halves rotated as in GPT-NeoX.

    Attributes:
        cos, sin: (positions, rotary_dim / 2) float32, scaled as the model's rope type requires.
    """

    cos: torch.Tensor
    sin: torch.Tensor


class KeyValueStore(Protocol):
    """Stores a layer's keys and values: the part of an attention backend that operations use.

    Attributes:
        plain_pages: whether its caches are two tensors (pages, page_size, heads, head_dim) of one
            dtype and stride, with page_size a power of two, to which operations may write.
    """

    @property
    def plain_pages(self) -> bool: ...

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: tuple[torch.Tensor, torch.Tensor],
        slot_mapping: torch.Tensor,
    ) -> None:
        """Write keys and values, (n, heads, head_dim), to the slots, (n,) int64, of a cache."""


class Ops(ABC):
    """The operations that the decoder calls. Rows are tokens; results go to given tensors.

    Attributes:
        device: where tensors live.
        weight_dtype: dtype that weights are rounded to.
        activation_dtype: of every activation passed in or out.
        batch_invariant: whether the bits of a row are independent of other rows and their number.
        logits_dtype: of the LM head's product.
    """

    device: torch.device
    weight_dtype: torch.dtype
    activation_dtype: torch.dtype
    batch_invariant: bool
    logits_dtype: torch.dtype = torch.float32

    @abstractmethod
    def linear(
        self,
        n_out: int,
        n_in: int,
        *,
        bias: bool,
        source_dtype: torch.dtype,
        kinds: tuple[str, ...] = (),
    ) -> Linear:
        """Create a product whose weight is loaded later.

        Args:
            n_out, n_in: shape of the weight.
            bias: whether there is one.
            source_dtype: of the checkpoint, for layouts that can store a narrower dtype exactly.
            kinds: of the quantised tensors that make up the weight, see `Blocks`, for layouts that
                can store those; "" for a tensor of floats.
        """

    def head(
        self, n_out: int, n_in: int, *, source_dtype: torch.dtype, kinds: tuple[str, ...] = ()
    ) -> Linear:
        """Create the product that logits come from; the arguments are as for `linear`."""
        return self.linear(n_out, n_in, bias=False, source_dtype=source_dtype, kinds=kinds)

    def scratch_bytes(self, rows: int, n_in: int) -> int:
        """Most bytes that a product allocates while it runs, given (rows, n_in) as a tensor."""
        return 0

    def table(self, n_rows: int, width: int, *, kinds: tuple[str, ...] = ()) -> Table:
        """Create a table whose rows are loaded later; the arguments are as for `linear`."""
        return torch.empty(n_rows, width, dtype=self.weight_dtype, device=self.device)

    @abstractmethod
    def embed(
        self, ids: torch.Tensor, table: Table, scale: float, out: torch.Tensor
    ) -> torch.Tensor:
        """Rows `ids`, (n,) int64, of a table of `table` or of a product's, times scale."""

    @abstractmethod
    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, out: Written) -> Written:
        """x / sqrt(mean(x**2) + eps) * weight over the last dimension of (n, d), float32 inside.

        `weight` is (d,) float32; `out` may be x, and is a tensor or what `Linear.operand` gave.
        """

    @abstractmethod
    def add_rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: Written,
    ) -> Written:
        """Add x to the residual in place and write the residual's rms_norm; see there."""

    @abstractmethod
    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Add x to the residual in place; returns the residual."""

    @abstractmethod
    def norm_rope(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        rope: RopeTable | None,
        weight: torch.Tensor | None,
        eps: float,
    ) -> None:
        """Normalize and rotate queries or keys in place.

        Args:
            x: (n, heads, head_dim), a view with stride 1 in the last dimension.
            positions: (n,) int64.
            rope: None for no rotation.
            weight: float32 norm weight: (head_dim,) for a norm per head, (heads * head_dim,) for
                one over all heads, None for no norm.
            eps: of the norm.
        """

    def norm_rope_write(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        positions: torch.Tensor,
        rope: RopeTable | None,
        query_weight: torch.Tensor | None,
        key_weight: torch.Tensor | None,
        eps: float,
        store: KeyValueStore,
        cache: tuple[torch.Tensor, torch.Tensor],
        slot_mapping: torch.Tensor,
    ) -> None:
        """Normalize and rotate queries in place, and keys while writing keys and values to a cache.

        Args:
            query: (n, heads, head_dim), a view as in `norm_rope`.
            key, value: (n, kv heads, head_dim); the contents of key are undefined afterwards.
            positions, rope, query_weight, key_weight, eps: as in `norm_rope`.
            store: of the cache.
            cache: keys and values of the layer.
            slot_mapping: (n,) int64, the cache slot of each token.
        """
        for x, weight in ((query, query_weight), (key, key_weight)):
            if weight is not None or rope is not None:
                self.norm_rope(x, positions, rope, weight, eps)
        store.write(key, value, cache, slot_mapping)

    @abstractmethod
    def gated(self, gate_up: torch.Tensor, activation: str, out: Written) -> Written:
        """activation(gate) * up from (n, 2 * d), gate first, to (n, d).

        `activation` is "silu" or "gelu_tanh"; `out` is a tensor or what `Linear.operand` gave.
        """

    def fused_argmax(
        self, head: Linear, x: torch.Tensor, softcap: float | None
    ) -> torch.Tensor | None:
        """`argmax` of a head's logits without materializing them; None if unsupported.

        Args:
            head: made by `linear`.
            x: (n, n_in).
            softcap: logits are softcap * tanh(logit / softcap); None for no cap.

        Returns:
            (n,) int64, or None.
        """
        return None

    def fused_log_prob(
        self, head: Linear, x: torch.Tensor, targets: torch.Tensor, softcap: float | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """`log_prob` and `argmax` of logits without materializing them; None if unsupported.

        Args:
            head, x, softcap: as for `fused_argmax`; the arg-max is that of the logits before the
                cap, which is monotonic.
            targets: (n,) int64, in [0, vocabulary).

        Returns:
            (n,) float32 and (n,) int64, or None.
        """
        return None

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """The first index of each row's maximum, -1 where the maximum is not finite.

        Args:
            logits: (n, vocabulary) float32; a NaN counts as the largest number.

        Returns:
            (n,) int64.
        """
        best = logits.argmax(-1)
        return torch.where(logits.gather(-1, best[:, None])[:, 0].isfinite(), best, -1)

    def log_prob(
        self, logits: torch.Tensor, best: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """log(softmax(logits)) of one token per row, NaN where `best` is negative.

        Args:
            logits: (n, vocabulary) float32.
            best: (n,) int64, from `argmax`.
            targets: (n,) int64, in [0, vocabulary).

        Returns:
            (n,) float32.
        """
        chosen = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        return chosen.masked_fill(best < 0, float("nan"))
