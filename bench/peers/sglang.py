"""SGLang's offline engine, which starts a process of its own for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.base import Job, PeerUnavailable, until_end

_MEMORY_SHARE = 0.5


class Sglang:
    """`sglang.Engine` with its radix cache, on token ids."""

    def __init__(self, job: Job) -> None:
        import sglang

        self.version = sglang.__version__
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "max_running_requests": job.n_rows,
            "cuda_graph_max_bs": job.n_rows,
            "context_length": job.longest + 1,
            "mem_fraction_static": _MEMORY_SHARE,
        }
        self._engine: Any = sglang.Engine(
            model_path=job.folder, skip_tokenizer_init=True, log_level="error", **self.settings
        )
        self._job = job

    def forget(self) -> None:
        self._engine.flush_cache()

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        params = {
            "temperature": 0.0,
            "max_new_tokens": max_new_tokens,
            "ignore_eos": not self._job.end_ids,
            "stop_token_ids": list(self._job.end_ids),
        }
        outputs = self._engine.generate(input_ids=list(prompts), sampling_params=params)
        return [until_end(output["output_ids"], self._job.end_ids) for output in outputs]

    def close(self) -> None:
        self._engine.shutdown()


def load(job: Job) -> Sglang:
    """Load SGLang.

    Raises:
        PeerUnavailable: it is asked for a CPU.
    """
    if job.device != "cuda":
        raise PeerUnavailable("SGLang's package for CUDA has no CPU backend")
    return Sglang(job)
