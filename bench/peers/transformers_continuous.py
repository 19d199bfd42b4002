"""transformers' continuous batching: `generate_batch` without its set-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers
from transformers.generation import ContinuousBatchingConfig
from transformers.generation.continuous_batching.utils import WorkloadHints

from bench.peers.base import Job, until_end
from bench.peers.transformers_generate import generation_config, load_model

_MEMORY_SHARES = {"cpu": 0.3, "cuda": 0.8}  # of what is free, for its cache


class Continuous:
    """A manager that has warmed up and knows no prefix, anew for each call.

    `generate_batch` makes one in each call, CUDA graphs included, or keeps it with all prefixes.
    """

    def __init__(self, job: Job) -> None:
        self.version = transformers.__version__
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "attention": "paged flash attention where it is installed, else paged sdpa",
            "allow_block_sharing": True,
            "max_memory_percent": _MEMORY_SHARES[job.device],
            "sizes and CUDA graphs": "what it infers from the workload",
        }
        self._job = job
        self._model: Any = load_model(job, "sdpa")
        self._manager: Any = None

    def forget(self) -> None:
        self._stop()
        self._manager = self._model.init_continuous_batching(
            generation_config=generation_config(self._job, self._job.n_new),
            continuous_batching_config=ContinuousBatchingConfig(
                max_memory_percent=_MEMORY_SHARES[self._job.device]
            ),
            workload_hints=WorkloadHints(self._job.n_prompt, self._job.n_new, self._job.n_rows),
        )
        self._manager.warmup()
        self._manager.start()

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        ids = self._manager.add_requests(inputs=list(prompts), max_new_tokens=max_new_tokens)
        found: dict[str, Any] = {}
        while len(found) < len(ids):
            result = self._manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                found[result.request_id] = result
            elif result is None and not self._manager.is_running():
                raise RuntimeError(f"it stopped with {len(found)} of {len(ids)} requests done")
        errors = [result.error for result in found.values() if result.error is not None]
        assert not errors, errors[0]
        return [until_end(found[i].generated_tokens, self._job.end_ids) for i in ids]

    def close(self) -> None:
        self._stop()
        self._model = None

    def _stop(self) -> None:
        if self._manager is not None:
            self._manager.stop(block=True)
            self._manager.destroy()
            self._manager = None


def load(job: Job) -> Continuous:
    """Load the model."""
    return Continuous(job)
