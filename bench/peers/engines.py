"""Our own engine, whose outputs peers' are compared with, and the engines for CUDA."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from bench.peers.base import Job, PeerUnavailable, until_end
from flipfast.backends import InversionRequest, SamplingParams, load_inverter

_CUDA_MEMORY = 40e9  # bytes: leaves room for a peer on the same device
_MEMORY_SHARE = 0.5  # of the device, for a peer: all requests at once, and room for our engine
_VLLM_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # compiles itself at first use, and greedy needs no sampler
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


class Native:
    """The native engine through the interface that a reward uses, without a reward's drafts."""

    def __init__(self, job: Job, deterministic: bool = True) -> None:
        self.version = metadata.version("flipfast")
        self.settings: dict[str, Any] = {"dtype": job.dtype, "deterministic": deterministic}
        native: dict[str, Any] = {"deterministic": deterministic}
        if job.device == "cuda":
            native["memory"] = self.settings["memory"] = _CUDA_MEMORY
        self._inverter: Any = load_inverter(
            "native", job.folder, device=job.device, dtype=job.dtype, native=native
        )
        self.forget, self.close = self._inverter.forget_prefixes, self._inverter.close

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        requests = [InversionRequest(prompt) for prompt in prompts]
        outputs = self._inverter.generate(requests, SamplingParams(max_new_tokens))
        errors = [output.error for output in outputs if output.error is not None]
        assert not errors, errors[0]
        return [output.output_ids for output in outputs]


class Vllm:
    """`vllm.LLM`, in this process, with its CUDA graphs, prefix caching and scheduler."""

    def __init__(self, job: Job) -> None:
        _need_cuda(job, "vLLM")
        os.environ.update(_VLLM_ENVIRONMENT)
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
        self._job, self._vllm, self.forget = job, vllm, self._llm.reset_prefix_cache

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


class Sglang:
    """`sglang.Engine` with its radix cache, which starts a process of its own for the device."""

    def __init__(self, job: Job) -> None:
        _need_cuda(job, "SGLang")
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
        self.forget, self.close = self._engine.flush_cache, self._engine.shutdown

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        params = {
            "temperature": 0.0,
            "max_new_tokens": max_new_tokens,
            "ignore_eos": not self._job.end_ids,
            "stop_token_ids": list(self._job.end_ids),
        }
        outputs = self._engine.generate(input_ids=list(prompts), sampling_params=params)
        return [until_end(output["output_ids"], self._job.end_ids) for output in outputs]


def _need_cuda(job: Job, name: str) -> None:
    if job.device != "cuda":
        raise PeerUnavailable(f"{name}'s package for CUDA has no CPU backend")
