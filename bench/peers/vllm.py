"""vLLM's offline engine, in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from bench.peers.base import Job, PeerUnavailable, until_end

# Enough pages for all requests at once, and room for our engine on the same device.
_MEMORY_SHARE = 0.5
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # compiles itself at first use, and greedy needs no sampler
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


class Vllm:
    """`vllm.LLM` with its CUDA graphs, prefix caching and scheduler, on token ids."""

    def __init__(self, job: Job) -> None:
        os.environ.update(_ENVIRONMENT)
        import vllm

        self.version = vllm.__version__
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "enable_prefix_caching": True,
            "max_num_seqs": job.n_rows,
            "max_model_len": job.longest,
            "gpu_memory_utilization": _MEMORY_SHARE,
        }
        self._llm: Any = vllm.LLM(model=job.folder, disable_log_stats=True, seed=0, **self.settings)
        self._job, self._vllm = job, vllm
        self.settings["cuda_graphs"] = "default"

    def forget(self) -> None:
        self._llm.reset_prefix_cache()

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        params = self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=max_new_tokens,
            ignore_eos=not self._job.end_ids,
            stop_token_ids=list(self._job.end_ids),
            detokenize=False,
        )
        given = [self._vllm.TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        outputs = self._llm.generate(given, params, use_tqdm=False)
        return [until_end(output.outputs[0].token_ids, self._job.end_ids) for output in outputs]

    def close(self) -> None:
        self._llm = None


def load(job: Job) -> Vllm:
    """Load vLLM.

    Raises:
        PeerUnavailable: it is asked for a CPU, for which its package is another one.
    """
    if job.device != "cuda":
        raise PeerUnavailable("vLLM's package for CUDA has no CPU backend")
    return Vllm(job)
