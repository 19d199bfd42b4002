"""Sleep, weight updates and shutdown of a loaded model."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from flipfast.engine.engine import Engine
from flipfast.engine.model_runner import ModelRunner
from flipfast.engine.models.checkpoint import Checkpoint, read_model
from flipfast.engine.models.fp8 import with_scales
from flipfast.engine.models.lora import (
    AdaptedCheckpoint,
    is_adapter_folder,
    is_adapter_state,
    read_adapter,
)
from flipfast.engine.ops.blocks import Blocks
from flipfast.errors import FlipfastError


class LoadedModel:
    """An engine together with its runner and weights.

    Attributes:
        engine: runs sequences; use it only while `require_usable` passes.

    Args:
        engine: of the runner.
        runner: holds the decoder.
        checkpoint: where the weights came from.
    """

    def __init__(self, engine: Engine, runner: ModelRunner, checkpoint: Checkpoint) -> None:
        self.engine = engine
        self._runner: ModelRunner | None = runner
        self._checkpoint = checkpoint
        self._why_not: str | None = None  # why it cannot be used now
        self._asleep = self._dropped = False
        self._as_on_disk = True  # whether the weights are the checkpoint's
        _empty_cache()  # of what reading them took

    @property
    def token_device(self) -> torch.device | None:
        """The device on which sequences can leave their output tokens; None if they cannot."""
        runner = self._live()
        return runner.device if runner.keeps_rows else None

    def require_usable(self) -> None:
        """Raise FlipfastError, saying what to do, if the model is asleep, closed or broken."""
        if self._why_not is not None:
            raise FlipfastError(self._why_not)

    def sleep(self, *, drop_weights: bool = False) -> None:
        """Free all device memory; `wake` allocates it again.

        Args:
            drop_weights: discard the weights, so that `wake` reads the checkpoint again, instead of
                moving them to pinned host memory. On the CPU, weights are in host memory anyway and
                stay there unless they are dropped.

        Raises:
            FlipfastError: the engine has unfinished requests, or cannot be used now.
        """
        self.require_usable()
        runner = self._live()
        self.engine.forget_prefixes()
        runner.release()
        runner.decoder.offload(keep=not drop_weights)
        self._asleep, self._dropped = True, drop_weights
        self._why_not = "the engine is asleep: call wake() first"
        _empty_cache()

    def wake(self) -> None:
        """Make the model usable again after `sleep`; does nothing if awake.

        Raises:
            ModelLoadError: dropped weights cannot be read again.
        """
        if not self._asleep:
            return
        runner = self._live()
        runner.decoder.restore()
        runner.allocate()
        self._asleep = False
        if self._dropped:
            self._load(self._checkpoint.tensors(), self._checkpoint.source)
            self._as_on_disk = True
        self._why_not = None

    def update_weights(self, source: Mapping[str, torch.Tensor] | str | Path) -> None:
        """Load new weights of the same model in place; discards cached prefixes.

        Args:
            source: a full state dict, or a folder with safetensors; or either of the model's
                adapter alone, which takes the place of the last one: it is merged into the
                checkpoint's weights, and these are read again.

        Raises:
            FlipfastError: the engine has unfinished requests or is asleep or closed, the folder
                holds another model, or the base of an adapter is not known.
            ModelLoadError: a tensor is missing, unknown or misshapen. The engine then refuses work
                until an update succeeds.
        """
        runner = self._live()
        if self._asleep:
            self.require_usable()
        checkpoint, as_on_disk, spec = self._checkpoint, True, runner.decoder.spec
        tensors: Iterable[tuple[str, torch.Tensor | Blocks]]
        if isinstance(source, Mapping) and not is_adapter_state(source):
            name = "the new state dict"
            tensors = with_scales(source.items(), name)
            as_on_disk = False
        else:
            if isinstance(source, Mapping):
                checkpoint = self._adapted().with_state(source, "the new adapter")
            elif is_adapter_folder(Path(source)):
                checkpoint = replace(self._adapted(), adapter=read_adapter(str(source)))
            else:
                spec, checkpoint = read_model(str(source))
                if replace(spec, tied=runner.decoder.spec.tied) != runner.decoder.spec:
                    raise FlipfastError(
                        f"{source} holds a model of another shape than {self._checkpoint.source}: "
                        "load it as a model of its own"
                    )
            tensors, name = checkpoint.tensors(), checkpoint.source
        self.engine.forget_prefixes()
        runner.decoder.spec = spec
        self._load(tensors, name)
        self._checkpoint, self._as_on_disk = checkpoint, as_on_disk
        self._why_not = None

    def close(self) -> None:
        """Free all memory for good and cancel running requests."""
        if self._runner is None:
            return
        self.engine.cancel_all()
        if not self._asleep:
            self._runner.release()
            self._runner.decoder.offload(keep=False)
        self._runner = None
        self._why_not = "this engine is closed: load the model again to use it"
        _empty_cache()

    def _adapted(self) -> AdaptedCheckpoint:
        """The checkpoint, if another adapter can take the place of its own."""
        if not isinstance(self._checkpoint, AdaptedCheckpoint):
            raise FlipfastError(
                "these are an adapter's weights, and the model was loaded without one: load it "
                "with adapter=FOLDER, whose configuration says how they are scaled"
            )
        if not self._as_on_disk:
            raise FlipfastError(
                "an adapter is merged into the checkpoint's weights, and an update has replaced "
                "those: send the whole state dict"
            )
        return self._checkpoint

    def _live(self) -> ModelRunner:
        if self._runner is None:
            self.require_usable()
        assert self._runner is not None
        return self._runner

    def _load(self, tensors: Iterable[tuple[str, torch.Tensor | Blocks]], name: str) -> None:
        self._why_not = f"the weights of {name} came in only in part: update them again"
        runner = self._live()
        runner.decoder.load(tensors, name)
        runner.wait_for_caller()
        _empty_cache()


def _empty_cache() -> None:
    """Make the allocators return free memory: torch's on the device, glibc's on the host."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
