"""The decoder's own duties: which rows, loading again, giving memory back, the count of bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.decoder import Decoder, rope_table
from flipfast.engine.models.spec import RopeSpec
from flipfast.engine.models.workspace import workspace_bytes
from flipfast.engine.ops.base import Linear
from flipfast.engine.ops.torch_ops import TorchOps
from flipfast.errors import ModelLoadError
from tests.engine.models.paged import (
    CPU,
    MAX_TOKENS,
    SHAPE,
    Paged,
    build_decoder,
    load_decoder,
    random_model,
)

# For comparisons between torch's products of different sizes, whose sums may be cut otherwise.
WIDE = torch.float64


def gemma_folder(path: Path) -> Path:
    config = transformers.Gemma3TextConfig(**SHAPE, layer_types=["full_attention"] * 3)
    random_model(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("family", ["Llama", "Olmo2"])
def test_rows_chosen_are_rows_of_all(
    family: str, tmp_path: Path, prompt: Callable[[int], list[int]]
) -> None:
    random_model(getattr(transformers, f"{family}Config")(**SHAPE)).save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path, WIDE)
    parts = [(0, prompt(5)), (1, prompt(30)), (2, prompt(1))]
    every = Paged(decoder, 3).step(parts, all_rows=True).clone()
    last = Paged(decoder, 3).step(parts)
    torch.testing.assert_close(last, every[[4, 34, 35]])


@pytest.mark.parametrize("n", [1, 6, 7, 8, 30])
def test_any_number_of_rows_has_a_best_token(
    n: int, llama_folder: Path, prompt: Callable[[int], list[int]]
) -> None:
    decoder = load_decoder(llama_folder, WIDE, max_logit_rows=7)
    hidden = Paged(decoder, 1).forward([(0, prompt(n))], all_rows=True)
    expected = Paged(load_decoder(llama_folder, WIDE), 1).step([(0, prompt(n))], all_rows=True)
    assert torch.equal(decoder.best(hidden), expected.argmax(-1))
    torch.testing.assert_close(decoder.logits(hidden[-7:]), expected[-7:])


def test_a_step_without_logits_fills_the_cache(
    llama_folder: Path, prompt: Callable[[int], list[int]]
) -> None:
    decoder = load_decoder(llama_folder, WIDE)
    whole, cut = Paged(decoder, 1), Paged(decoder, 1)
    expected = whole.step([(0, prompt(20))]).clone()
    forward = decoder.forward

    def without_logits(*args: Any) -> torch.Tensor:
        return forward(*args[:-1], torch.zeros(0, dtype=torch.int64))

    decoder.forward = without_logits  # type: ignore[method-assign]
    assert cut.step([(0, prompt(20)[:12])]).shape == (0, 384)
    decoder.forward = forward  # type: ignore[method-assign]
    torch.testing.assert_close(cut.step([(0, prompt(20)[12:])]), expected)


def test_the_result_lives_in_the_workspace(
    llama_folder: Path, prompt: Callable[[int], list[int]]
) -> None:
    paged = Paged(load_decoder(llama_folder), 1)
    first = paged.step([(0, prompt(9))]).data_ptr()
    assert paged.step([(0, prompt(3))]).data_ptr() == first


def test_weights_are_loaded_in_place(
    tmp_path: Path, llama_folder: Path, prompt: Callable[[int], list[int]]
) -> None:
    config = transformers.LlamaConfig(**SHAPE)
    other = random_model(config)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
    other.save_pretrained(tmp_path)
    decoder = load_decoder(llama_folder)
    before = [tensor.data_ptr() for tensor in decoder._tensors()]
    old = Paged(decoder, 1).step([(0, prompt(9))]).clone()
    decoder.load(other.named_parameters(), "the parameters")  # they require grad
    assert [tensor.data_ptr() for tensor in decoder._tensors()] == before
    new = Paged(decoder, 1).step([(0, prompt(9))])
    assert not new.requires_grad
    assert torch.equal(new, Paged(load_decoder(tmp_path), 1).step([(0, prompt(9))]))
    assert not torch.equal(new, old)
    with pytest.raises(ModelLoadError, match=r"half: 1 tensors are missing.*norm\.weight"):
        decoder.load([(n, t) for n, t in other.state_dict().items() if n != "model.norm.weight"],
                     "half")  # fmt: skip


@pytest.mark.parametrize("keep", [True, False])
def test_memory_is_given_back_and_taken_again(
    keep: bool, llama_folder: Path, prompt: Callable[[int], list[int]]
) -> None:
    decoder = load_decoder(llama_folder)
    expected = Paged(decoder, 1).step([(0, prompt(9))]).clone()
    for _ in range(2):
        decoder.offload(keep)
        with pytest.raises(AttributeError):
            Paged(decoder, 1).step([(0, prompt(9))])
        decoder.restore()
        if not keep:
            _, checkpoint = read_model(str(llama_folder))
            decoder.load(checkpoint.tensors(), checkpoint.source)
        assert torch.equal(Paged(decoder, 1).step([(0, prompt(9))]), expected)


class PackedLinear(Linear):
    """A product whose weight is no plain tensor, as on the CPU."""

    def __init__(self, n_out: int, n_in: int, bias: bool) -> None:
        self.n_out, self.n_in = n_out, n_in
        self._columns = torch.empty(n_in, n_out)
        self._bias = torch.zeros(n_out)

    @property
    def nbytes(self) -> int:
        return self._columns.nbytes

    def load_rows(self, weight: torch.Tensor, first_row: int) -> None:
        self._columns[:, first_row : first_row + len(weight)] = weight.t()

    def load_bias(self, bias: torch.Tensor, first_row: int) -> None:
        self._bias[first_row : first_row + len(bias)] = bias

    def __call__(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self._bias, x, self._columns, out=out)


class PackedOps(TorchOps):
    def linear(self, n_out: int, n_in: int, *, bias: bool, **_: Any) -> Linear:
        return PackedLinear(n_out, n_in, bias)


@pytest.mark.parametrize("tied", [True, False])
def test_packed_products(tied: bool, tmp_path: Path, prompt: Callable[[int], list[int]]) -> None:
    config = transformers.Qwen2Config(**SHAPE, tie_word_embeddings=tied)
    random_model(config).save_pretrained(tmp_path)
    spec, checkpoint = read_model(str(tmp_path))
    plain = load_decoder(tmp_path)
    packed = Decoder(
        spec,
        PackedOps(CPU, torch.float32),
        plain.attention,
        max_tokens=MAX_TOKENS,
        max_logit_rows=1,
        source_dtype=checkpoint.dtype,
    )
    packed.load(checkpoint.tensors(), checkpoint.source)
    expected = Paged(plain, 1).step([(0, prompt(30))])
    torch.testing.assert_close(
        Paged(packed, 1).step([(0, prompt(30))]), expected, rtol=1e-4, atol=1e-4
    )
    shared = 384 * 64 * 4 if tied else 0  # plain products share a tied embedding
    biases = 3 * (2 * 2 + 4) * 24 * 4
    assert packed.weight_bytes() == plain.weight_bytes() + shared - biases


def test_bytes(tmp_path: Path) -> None:
    decoder = load_decoder(gemma_folder(tmp_path))
    numbers = sum(p.numel() for p in random_model(gemma_config(tmp_path)).parameters())
    ropes = 1024 * 24  # cosines and sines of one table
    assert decoder.weight_bytes() == 4 * (numbers + ropes)
    for dtype in (torch.float32, torch.bfloat16):
        spec, checkpoint = read_model(str(tmp_path))
        workspace = build_decoder(spec, checkpoint, dtype)._workspace
        held = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in vars(workspace).values()
            if isinstance(tensor, torch.Tensor)
        }
        asked = workspace_bytes(spec, TorchOps(CPU, dtype), MAX_TOKENS)
        assert sum(held.values()) == asked


def gemma_config(path: Path) -> Any:
    return transformers.AutoConfig.from_pretrained(path)


def test_rope_table() -> None:
    table = rope_table(RopeSpec((1.0, 0.01), attention_factor=2.0), 5, CPU)
    angles = torch.arange(5, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.01])
    torch.testing.assert_close(table.cos.double(), 2 * angles.cos(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(table.sin.double(), 2 * angles.sin(), rtol=1e-6, atol=1e-6)
    assert table.cos.dtype == torch.float32
