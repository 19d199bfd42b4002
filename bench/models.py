"""Models of random weights in real shapes, and requests of random tokens for them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
import transformers

from bench.shapes import SHAPES
from flipfast.backends import InversionRequest
from flipfast.engine.models.checkpoint import Checkpoint
from flipfast.engine.models.families import read_spec
from flipfast.engine.models.spec import DecoderSpec

EMBEDDED = Path(str(resources.files("flipfast") / "assets" / "tiny-inverter"))


def save_random_model(folder: Path, shape: str, device: str = "cpu") -> None:
    """Write a model of random bfloat16 weights that never ends an output, with some tokenizer."""
    found = SHAPES[shape]
    config = transformers.AutoConfig.for_model(found.model_type, **found.config)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    for file in EMBEDDED.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder)


def random_model(shape: str, device: str = "cpu") -> tuple[DecoderSpec, Checkpoint]:
    """A model of random bfloat16 weights as the engine loads it, of which nothing is on disk."""
    found = SHAPES[shape]
    config = transformers.AutoConfig.for_model(found.model_type, **found.config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    tensors = {name: tensor.shape for name, tensor in model.state_dict().items()}
    checkpoint = RandomCheckpoint(f"random {shape}", torch.bfloat16, tensors, device)
    architectures = [type(model).__name__]
    return read_spec({**config.to_dict(), "architectures": architectures}), checkpoint


@dataclass(frozen=True)
class RandomCheckpoint:
    """Weights that are drawn when they are read, norms of ones; see `Checkpoint`."""

    source: str
    dtype: torch.dtype
    shapes: dict[str, torch.Size]  # of the tensors, by their names
    device: str

    @property
    def kinds(self) -> dict[str, str]:
        """None: these are floats."""
        return {}

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors, the same ones every time."""
        torch.manual_seed(0)
        for name, shape in self.shapes.items():
            tensor = torch.empty(shape, dtype=self.dtype, device=self.device)
            yield name, tensor.fill_(1.0) if len(shape) == 1 else tensor.normal_(std=0.02)


def random_requests(n: int, *, n_prompt: int, n_shared: int, vocab: int) -> list[InversionRequest]:
    """Requests of n_prompt tokens each, of which the first n_shared are common to all."""
    rng = random.Random(0)
    stem = [rng.randrange(vocab) for _ in range(n_shared)]
    rest = range(n_prompt - n_shared)
    return [InversionRequest(stem + [rng.randrange(vocab) for _ in rest]) for _ in range(n)]
