"""Our own engine; its outputs are what peers' are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from bench.peers.base import Job
from flipfast.backends import InversionRequest, SamplingParams, load_inverter

_CUDA_MEMORY = 40e9  # bytes: leaves room for a peer on the same device


class Native:
    """The native engine through the interface that a reward uses, without a reward's drafts."""

    def __init__(self, job: Job, deterministic: bool) -> None:
        self.version = metadata.version("flipfast")
        self.settings: dict[str, Any] = {"dtype": job.dtype, "deterministic": deterministic}
        native: dict[str, Any] = {"deterministic": deterministic}
        if job.device == "cuda":
            native["memory"] = self.settings["memory"] = _CUDA_MEMORY
        self._inverter: Any = load_inverter(
            "native", job.folder, device=job.device, dtype=job.dtype, native=native
        )

    def forget(self) -> None:
        self._inverter.forget_prefixes()

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        requests = [InversionRequest(prompt) for prompt in prompts]
        outputs = self._inverter.generate(requests, SamplingParams(max_new_tokens))
        errors = [output.error for output in outputs if output.error is not None]
        assert not errors, errors[0]
        return [output.output_ids for output in outputs]

    def close(self) -> None:
        self._inverter.close()


def load(job: Job, *, deterministic: bool) -> Native:
    """Load the engine."""
    return Native(job, deterministic)
