"""What of vLLM the backend touches, strict about names, with the native engine behind it.

The names were read off releases 0.11.0, 0.26.0 and 0.33.0 and are those that all three have: what
passes here is known to each of them. So is the behaviour: outputs end with the end token where
there was one and are sorted by request, a seed is a signed integer of 64 bits, and a request that
is refused leaves those before it in the engine (as in 0.11; later ones take them out).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from flipfast.backends import InversionRequest, load_inverter
from flipfast.backends import SamplingParams as OurParams

LLM_OPTIONS = frozenset({
    "allowed_local_media_path", "allowed_media_domains", "compilation_config", "convert",
    "cpu_offload_gb", "disable_custom_all_reduce", "dtype", "enable_sleep_mode", "enforce_eager",
    "generation_config", "gpu_memory_utilization", "hf_overrides", "hf_token",
    "kv_cache_memory_bytes", "logits_processors", "max_model_len", "max_num_seqs",
    "mm_processor_kwargs", "quantization", "revision", "runner", "seed", "skip_tokenizer_init",
    "structured_outputs_config", "tensor_parallel_size", "tokenizer", "tokenizer_mode",
    "tokenizer_revision", "trust_remote_code",
})  # fmt: skip
PARAMS: dict[str, Any] = {
    "n": 1, "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0,
    "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": None, "stop": None,
    "stop_token_ids": None, "ignore_eos": False, "max_tokens": 16, "min_tokens": 0,
    "logprobs": None, "prompt_logprobs": None, "detokenize": True, "skip_special_tokens": True,
    "spaces_between_special_tokens": True, "include_stop_str_in_output": False,
    "logit_bias": None, "allowed_token_ids": None, "extra_args": None, "bad_words": None,
}  # fmt: skip


class SamplingParams:
    """Takes fields by name alone, and checks the ranges that vLLM checks."""

    def __init__(self, **fields: Any) -> None:
        unknown = set(fields) - set(PARAMS)
        if unknown:
            raise TypeError(f"Unexpected keyword argument {unknown}")
        for name, value in {**PARAMS, **fields}.items():
            setattr(self, name, value)
        if not 0.0 < self.top_p <= 1.0 or self.top_k < -1 or self.temperature < 0.0:
            raise ValueError("out of range")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise OverflowError("no signed integer of 64 bits")


class LLM:
    """The offline engine; `poison` makes it refuse requests with that token.

    Attributes:
        calls: of the methods that sleep, wake and change it, in their order.
        made: options of the constructor.
    """

    default_repetition_penalty = 1.0

    def __init__(self, model: str, **options: Any) -> None:
        unknown = set(options) - LLM_OPTIONS
        if unknown:
            raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument {unknown}")
        self.made = options
        self.calls: list[Any] = []
        self.poison: int | None = None
        self.dead = False
        self._engine = load_inverter("native", model, device="cpu", dtype="float32")
        self._waiting: list[tuple[int, list[int], SamplingParams]] = []
        self._n_requests = 0
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(
                max_model_len=options.get("max_model_len") or self._engine.context_length,
                get_vocab_size=lambda: self._engine.vocab_size,
                enable_sleep_mode=options.get("enable_sleep_mode", False),
            )
        )

    def get_tokenizer(self) -> Any:
        return self._engine.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams(repetition_penalty=self.default_repetition_penalty)

    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool = True,
    ) -> list[SimpleNamespace]:
        assert not use_tqdm, "a progress bar nobody asked for"
        if self.dead:
            raise RuntimeError("EngineCore encountered an issue")
        for prompt, params in zip(prompts, sampling_params, strict=True):
            ids = prompt["prompt_token_ids"]
            if not ids or self.poison in ids:
                raise ValueError(f"Token id {self.poison} is out of vocabulary")
            self._waiting.append((self._n_requests, ids, params))
            self._n_requests += 1
        waiting, self._waiting = self._waiting, []
        return [self._output(*request) for request in waiting]

    def sleep(self, level: int = 1) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.calls.append(("wake_up", tags))

    def collective_rpc(self, method: str) -> None:
        self.calls.append(("collective_rpc", method))

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")

    def _output(self, number: int, ids: list[int], params: SamplingParams) -> SimpleNamespace:
        sampling = OurParams(params.max_tokens, params.temperature, params.top_p, params.top_k)
        (found,) = self._engine.generate([InversionRequest(ids, params.seed or 0)], sampling)
        end = [min(self._engine.end_ids)] if found.finish_reason == "stop" else []
        completion = SimpleNamespace(
            index=0,
            text=found.text if params.detokenize else "",
            token_ids=[*found.output_ids, *end],
            finish_reason=found.finish_reason,
            stop_reason=None,
        )
        return SimpleNamespace(request_id=str(number), outputs=[completion], finished=True)


@contextmanager
def vllm_stand_in() -> Iterator[None]:
    """`import vllm` finds this module's, and the backend is imported anew."""
    vllm, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    vllm.__dict__.update(LLM=LLM, SamplingParams=SamplingParams, TokensPrompt=dict)
    platforms.__dict__.update(current_platform=SimpleNamespace(device_type="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "vllm", vllm)
        patch.setitem(sys.modules, "vllm.platforms", platforms)
        patch.delitem(sys.modules, "flipfast.backends.vllm", raising=False)
        yield
        # What was imported meanwhile knows the stand-in.
        sys.modules.pop("flipfast.backends.vllm", None)
