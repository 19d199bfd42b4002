"""LoRA adapters in PEFT's format, merged into the weights of a checkpoint as they are read.

The method is LoRA (Hu et al. 2021), with the scale of rsLoRA (Kalajdzievski 2023) and the
magnitudes of DoRA (Liu et al. 2024) where an adapter has them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from flipfast.engine.models.checkpoint import Checkpoint
from flipfast.engine.models.hub import fetch
from flipfast.engine.models.weights import HEAD, TABLE, bare
from flipfast.engine.ops.blocks import Blocks, widened
from flipfast.errors import ModelLoadError

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TIED = {TABLE.removesuffix(".weight"), HEAD.removesuffix(".weight")}
_PARTS = re.compile(r"(.*)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?")
# Whole weights: those of modules_to_save, and those that PEFT saves with an adapted head.
_WHOLE = re.compile(r"(.*?)(?:\.modules_to_save)?(?:\.default)?(?:\.base_layer)?\.weight")
# Settings that change nothing in what is merged, whatever they say.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "modules_to_save",
    "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules",
    "task_type",
}  # fmt: skip
_READ = {"alpha_pattern", "lora_alpha", "peft_type", "r", "rank_pattern", "use_dora", "use_rslora"}
# First weights that are taken out of the base: PEFT changes the base with them.
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class LoraConfig:
    """How an adapter's matrices are scaled.

    Attributes:
        alpha: divided by the rank, or by its root.
        alpha_pattern: values for the modules that an expression matches.
        by_root: rsLoRA.
    """

    alpha: float
    alpha_pattern: Mapping[str, float]
    by_root: bool

    def scale(self, module: str, rank: int) -> float:
        """What multiplies B @ A of a module, given its bare name."""
        found = (
            value
            for key, value in self.alpha_pattern.items()
            if re.match(rf"(.*\.)?({key})$", f"model.{module}")
        )
        return next(found, self.alpha) / (math.sqrt(rank) if self.by_root else rank)


@dataclass(frozen=True)
class Adapter:
    """What is added to the weights of a model.

    Attributes:
        source: for messages.
        config: how it is scaled.
        modules: "A" (rank, n_in), "B" (n_out, rank) and, with DoRA, "m" (n_out,), by the bare name
            of the module; "W" (n_out, n_in) is a weight that takes the place of the model's.
    """

    source: str
    config: LoraConfig
    modules: Mapping[str, Mapping[str, torch.Tensor]] = field(repr=False)

    def with_state(self, state: Mapping[str, torch.Tensor], source: str) -> Adapter:
        """The same adapter after more training.

        Raises:
            ModelLoadError: it holds something that cannot be merged.
        """
        return Adapter(source, self.config, _modules(state, source))

    def merged(self, module: str, weight: torch.Tensor) -> torch.Tensor:
        """A module's weight (n_out, n_in) with what the adapter adds, float32.

        Raises:
            ModelLoadError: the shapes do not fit.
        """
        found = self.modules[module]
        parts = {name: part.to(weight.device).float() for name, part in found.items()}
        shape = parts["W"].shape if "W" in parts else (len(parts["B"]), parts["A"].shape[1])
        if tuple(shape) != tuple(weight.shape):
            raise ModelLoadError(
                f"{self.source}: the adapter of {module} is for a weight of {tuple(shape)}, the "
                f"model's is {tuple(weight.shape)}"
            )
        merged = parts.get("W", weight).float()
        if "A" in parts:
            scale = self.config.scale(module, parts["A"].shape[0])
            merged = merged + (parts["B"] @ parts["A"]) * scale
        if "m" in parts:
            merged *= (parts["m"] / torch.linalg.vector_norm(merged, dim=1))[:, None]
        return merged


@dataclass(frozen=True)
class AdaptedCheckpoint:
    """A checkpoint with an adapter merged in; see `Checkpoint`."""

    base: Checkpoint
    adapter: Adapter

    @property
    def source(self) -> str:
        """What error messages call it."""
        return f"{self.base.source} with {self.adapter.source}"

    @property
    def dtype(self) -> torch.dtype:
        """The base's; merged weights are float32 and rounded where the engine stores less."""
        return self.base.dtype

    @property
    def kinds(self) -> Mapping[str, str]:
        """The base's: what is merged is floats, and goes where the base's would have gone."""
        return self.base.kinds

    def tensors(self) -> Iterator[tuple[str, torch.Tensor | Blocks]]:
        """Names and tensors.

        Raises:
            ModelLoadError: the adapter has a module that the model lacks, or of another shape.
        """
        left = set(self.adapter.modules)
        for name, tensor in self._with_head():
            module = bare(name).removesuffix(".weight")
            if module in left and name.endswith(".weight"):
                left.remove(module)
                yield name, self.adapter.merged(module, widened(tensor))
            else:
                yield name, tensor
        if left:
            raise ModelLoadError(
                f"{self.adapter.source} adapts {len(left)} modules that {self.base.source} does "
                f"not have, the first is {min(left)}"
            )

    def _with_head(self) -> Iterator[tuple[str, torch.Tensor | Blocks]]:
        """The base's tensors, with a tied one's head if the adapter changes it or the embedding.

        PEFT adapts the two apart, and has both in an adapter that keeps them tied.
        """
        missing = bool(_TIED & self.adapter.modules.keys())
        table: torch.Tensor | Blocks | None = None
        for name, tensor in self.base.tensors():
            if bare(name) == TABLE:
                table = tensor
            missing = missing and bare(name) != HEAD
            yield name, tensor
        if missing and table is not None:
            yield HEAD, table

    def with_state(self, state: Mapping[str, torch.Tensor], source: str) -> AdaptedCheckpoint:
        """The same base with the adapter after more training."""
        return replace(self, adapter=self.adapter.with_state(state, source))


def is_adapter_state(state: Mapping[str, Any]) -> bool:
    """Whether a state dict is that of an adapter alone."""
    return any(_PARTS.fullmatch(name) for name in state)


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / _CONFIG).is_file()


def read_adapter(name: str, revision: str | None = None) -> Adapter:
    """Read an adapter.

    Args:
        name: a folder or a hub name with adapter_config.json and adapter_model.safetensors.
        revision: of the hub repository; None is its main branch.

    Raises:
        ModelLoadError: a file is missing or broken, or asks for what cannot be merged.
    """
    folder = fetch(name, revision, [_CONFIG, _WEIGHTS])
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise ModelLoadError(f"the adapter {name!r} has no {file}: {folder}")
    config = _read_config(folder / _CONFIG)
    path = folder / _WEIGHTS
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{path} is truncated, or no safetensors file: {error}") from error
    return Adapter(str(path), config, _modules(state, str(path)))


def _read_config(path: Path) -> LoraConfig:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise ModelLoadError(f"{path}: peft_type is {kind!r}; only LORA can be merged here")
    for name, value in config.items():
        if name == "init_lora_weights" and value in _PLAIN_STARTS:
            continue
        if name == "bias" and value == "none":
            continue
        if name not in _HARMLESS | _READ and value not in (None, False, [], {}):
            raise ModelLoadError(f"{path}: {name}={value!r} cannot be merged here")
    alpha, pattern = config.get("lora_alpha"), config.get("alpha_pattern") or {}
    if not isinstance(alpha, (int, float)) or not isinstance(pattern, dict):
        raise ModelLoadError(f"{path}: lora_alpha is {alpha!r}, alpha_pattern {pattern!r}")
    return LoraConfig(float(alpha), pattern, bool(config.get("use_rslora")))


def _modules(state: Mapping[str, torch.Tensor], source: str) -> dict[str, dict[str, torch.Tensor]]:
    short = {"lora_A": "A", "lora_B": "B", "lora_magnitude_vector": "m"}
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        found, whole = _PARTS.fullmatch(name), _WHOLE.fullmatch(name)
        if found is not None:
            stem, part = found[1], short[found[2]]
        elif whole is not None and "lora_" not in name:
            stem, part = whole[1], "W"
        else:
            raise ModelLoadError(f"{source}: the tensor {name} cannot be merged here")
        if tensor.ndim != (1 if part == "m" else 2):
            raise ModelLoadError(f"{source}: the tensor {name} has shape {tuple(tensor.shape)}")
        modules.setdefault(bare(stem.removeprefix("base_model.")), {})[part] = tensor.detach()
    for module, parts in modules.items():
        if parts.keys() == {"W"}:
            continue
        if not {"A", "B"} <= parts.keys() or parts["A"].shape[0] != parts["B"].shape[1]:
            raise ModelLoadError(f"{source}: the matrices of {module} do not belong together")
        if "m" in parts and parts["m"].shape != parts["B"].shape[:1]:
            raise ModelLoadError(f"{source}: the magnitudes of {module} do not fit its matrices")
    return modules
