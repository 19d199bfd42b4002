"""Our own engine, whose outputs peers' are compared with, and the engines for CUDA."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.peers.base import Job, PeerUnavailable, until_end
from bench.scripted import Script, ScriptedModel, forget_outputs
from flipfast.backends import InversionRequest, SamplingParams, load_inverter
from flipfast.engine.ops.cpu import instruction_set

_CUDA_MEMORY = 40e9  # bytes: leaves room for a peer on the same device
_SCRIPTED_MEMORY = 1e9  # bytes: all requests fit at once
_MEMORY_SHARE = 0.5  # of the device, for a peer: all requests at once, and room for our engine
_VLLM_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # compiles itself at first use, and greedy needs no sampler
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


class Native:
    """The native engine through the interface that a reward uses, without a reward's drafts unless
    a call brings them.
    """

    def __init__(self, job: Job, *, deterministic: bool = True, weights: str | None = None) -> None:
        self.version = metadata.version("flipfast")
        dtype = None if job.is_gguf else job.dtype
        self.settings: dict[str, Any] = {"dtype": dtype, "deterministic": deterministic}
        native: dict[str, Any] = {"deterministic": deterministic}
        if job.device == "cuda":
            native["memory"] = self.settings["memory"] = _CUDA_MEMORY
        if job.is_gguf:
            self.settings |= {"weights": weights, "isa": instruction_set()}
        self._inverter: Any = load_inverter(
            "native", job.folder, device=job.device, dtype=dtype, weights=weights, native=native
        )
        self._loop = self._inverter._model.engine._loop
        self._drafting, self.close = self._loop.drafting, self._inverter.close

    def forget(self) -> None:
        self._inverter.forget_prefixes()
        forget_outputs(self._drafting)

    def generate(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        *,
        drafts: Sequence[tuple[list[int], ...]] | None = None,
        drafting: bool = True,
    ) -> list[list[int]]:
        """See Peer.generate.

        Args:
            prompts, max_new_tokens: as there.
            drafts: of each prompt's request.
            drafting: whether there is speculative decoding.
        """
        self._loop.drafting = self._drafting if drafting else None
        offered = drafts or [()] * len(prompts)
        requests = [
            InversionRequest(prompt, drafts=own)
            for prompt, own in zip(prompts, offered, strict=True)
        ]
        outputs = self._inverter.generate(requests, SamplingParams(max_new_tokens))
        errors = [output.error for output in outputs if output.error is not None]
        assert not errors, errors[0]
        return [output.output_ids for output in outputs]


class Scripted:
    """The native engine on a GGUF file of random weights, with prescribed outputs."""

    def __init__(self, job: Job, *, weights: str | None = None) -> None:
        self.version = metadata.version("flipfast")
        self.settings: dict[str, Any] = {"weights": weights, "isa": instruction_set()}
        self._model = ScriptedModel(
            Path(job.folder), device=job.device, weights=weights, memory=_SCRIPTED_MEMORY
        )
        self.forget, self.close = self._model.forget_outputs, self._model.close

    def generate(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        *,
        outputs: list[list[int]],
        acceptance: float | None = None,
    ) -> list[list[int]]:
        """See Peer.generate; `outputs` are written, drafted tokens of them as `acceptance` says."""
        assert all(len(output) == max_new_tokens for output in outputs)
        self._model.write(Script(list(prompts), outputs), acceptance=acceptance)
        return outputs


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
