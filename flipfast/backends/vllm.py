"""The inverter that runs on vLLM's offline engine, `vllm.LLM`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from vllm import LLM, TokensPrompt
from vllm import SamplingParams as VllmParams
from vllm.platforms import current_platform

from flipfast.backends._seeds import narrow_seed
from flipfast.backends.base import Inversion, InversionRequest, Inverter, SamplingParams
from flipfast.errors import ConfigError, FlipfastError, ModelLoadError


def load(
    model: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    memory: float | None = None,
    tokenizer: str | None = None,
) -> VllmInverter:
    """Load a model into a new vLLM engine.

    Args:
        model: a local folder or a hub name.
        device: None, or the kind of device that vLLM is installed for; it accepts no other.
        dtype: "float32", "bfloat16" or "float16"; None is vLLM's "auto".
        batch_size: maximum number of sequences running at a time, vLLM's max_num_seqs.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run Python code that comes with the model.
        memory: above 1.0, bytes of KV cache on each GPU; at most 1.0, vLLM's
            gpu_memory_utilization, a share of the whole GPU that includes the weights.
        tokenizer: a local folder or hub name with the tokenizer; None for the model's own.

    Raises:
        ConfigError: an option that cannot be used.
        ModelLoadError: vLLM cannot load the model.
    """
    _check_device(device)
    options: dict[str, Any] = {"dtype": dtype or "auto", "trust_remote_code": trust_remote_code}
    if tokenizer is not None:
        options["tokenizer"] = tokenizer
    if revision is not None:
        options["revision"] = revision
        if tokenizer is None:
            options["tokenizer_revision"] = revision
    if batch_size is not None:
        options["max_num_seqs"] = batch_size
    if memory is not None:
        options |= _memory(memory)
    try:
        return VllmInverter(LLM(model, **options))
    except Exception as error:
        raise ModelLoadError(
            f"vLLM could not load {model!r}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


class VllmInverter(Inverter):
    """Runs all requests of a call through one `LLM.generate`; vLLM does the batching.

    Prompts go in and outputs come out as token ids, so that prompt, truncation, parser and overlap
    match every other backend. Arg-maxes, and the samples that a seed yields, depend on vLLM's own
    arithmetic. vLLM ends an output at its tokenizer's end token; further end tokens and repetition
    penalty come from the model's generation config, as far as the LLM itself reads it.

    Calls from several threads take turns; nothing else may use the LLM during a call.

    Args:
        llm: a `vllm.LLM`, owned by the caller: `close` only drops the reference to it.
    """

    def __init__(self, llm: Any) -> None:
        model_config = llm.llm_engine.model_config
        self.tokenizer = llm.get_tokenizer()
        self.context_length = int(model_config.max_model_len)
        self.vocab_size = int(model_config.get_vocab_size())
        self._can_sleep = bool(model_config.enable_sleep_mode)
        self._repetition_penalty = llm.get_default_sampling_params().repetition_penalty
        self._llm = llm
        self._lock = threading.Lock()
        self._version = 0
        self._asleep = self._dropped = False

    @property
    def max_running(self) -> int:
        """256, at least what vLLM runs at a time by default; calls of any size are accepted."""
        return 256

    @property
    def weights_version(self) -> int:
        """How often `weights_changed` has been called."""
        return self._version

    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Continue every prompt; see `Inverter.generate`. Reports progress only at the end."""
        refusals = [self.refusal(request, sampling) for request in requests]
        sound = [r for r, refusal in zip(requests, refusals, strict=True) if refusal is None]
        with self._lock:
            outputs = iter(self._run(sound, sampling))
        if on_progress is not None and requests:
            on_progress(len(requests))
        return [next(outputs) if r is None else Inversion.failed(r) for r in refusals]

    def sleep(self, *, drop_weights: bool = False) -> None:
        """Free the GPU's memory until `wake`.

        Args:
            drop_weights: discard the weights (vLLM's level 2), so that `wake` reads the checkpoint
                again, instead of moving them to host memory (level 1).

        Raises:
            ConfigError: the LLM was created without sleep mode.
            FlipfastError: the inverter is asleep or closed.
        """
        with self._lock:
            llm = self._usable()
            if not self._can_sleep:
                raise ConfigError(
                    "this LLM cannot sleep: make it yourself with enable_sleep_mode=True, and "
                    "share it as FlipReward(inverter=VllmInverter(llm))"
                )
            llm.sleep(level=2 if drop_weights else 1)
            self._asleep, self._dropped = True, drop_weights

    def wake(self) -> None:
        """Make the LLM usable again after `sleep`; does nothing if awake."""
        with self._lock:
            if not self._asleep or self._llm is None:
                return
            if self._dropped:
                self._llm.wake_up(tags=["weights"])
                self._llm.collective_rpc("reload_weights")
                self._llm.wake_up(tags=["kv_cache"])
            else:
                self._llm.wake_up()
            self._asleep = False

    def weights_changed(self) -> None:
        """Call this after the LLM has received new weights, by any of vLLM's methods.

        Discards cached prefixes and invalidates rewards kept by `cache_rewards`.

        Raises:
            FlipfastError: the inverter is asleep or closed.
        """
        with self._lock:
            self._usable().reset_prefix_cache()
            self._version += 1

    def close(self) -> None:
        """Drop the reference to the LLM; vLLM frees its memory when no other reference is left."""
        self._llm = None

    def _usable(self) -> Any:
        if self._llm is None:
            raise FlipfastError("this inverter is closed; load it again to use it")
        if self._asleep:
            raise FlipfastError("the engine is asleep: call wake() first")
        return self._llm

    def _run(
        self, requests: Sequence[InversionRequest], sampling: SamplingParams
    ) -> list[Inversion]:
        """Run requests; if they fail, run halves, until only the failing ones get the error."""
        llm = self._usable()
        if not requests:
            return []
        try:
            # An earlier failed call may have left requests queued; their outputs come first.
            outputs = llm.generate(
                [TokensPrompt(prompt_token_ids=list(r.prompt_ids)) for r in requests],
                [self._params(request, sampling) for request in requests],
                use_tqdm=False,
            )[-len(requests) :]
        except Exception as error:
            if len(requests) == 1:
                return [Inversion.failed(f"{type(error).__name__}: {error}")]
        else:
            return [self._inversion(output.outputs[0]) for output in outputs]
        middle = len(requests) // 2
        return self._run(requests[:middle], sampling) + self._run(requests[middle:], sampling)

    def _params(self, request: InversionRequest, sampling: SamplingParams) -> Any:
        samples = sampling.temperature > 0
        return VllmParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,  # 0 means all tokens in vLLM, too
            seed=narrow_seed(request.seed) if samples else None,
            repetition_penalty=self._repetition_penalty,
            detokenize=False,
        )

    def _inversion(self, output: Any) -> Inversion:
        """Convert a CompletionOutput, whose token ids include the end token if there was one."""
        if output.finish_reason not in ("stop", "length"):
            return Inversion.failed(f"vLLM ended the request with {output.finish_reason!r}")
        ids = list(output.token_ids)
        output_ids = ids[:-1] if output.finish_reason == "stop" else ids
        return Inversion(output_ids, self.decode(output_ids), output.finish_reason)


def _check_device(device: str | None) -> None:
    kind, _, index = (device or "").partition(":")
    if device is None or (kind == current_platform.device_type and index in ("", "0")):
        return
    raise ConfigError(
        f"device={device!r} is not for backend='vllm', which runs on "
        f"{current_platform.device_type!r} here; CUDA_VISIBLE_DEVICES chooses among GPUs"
    )


def _memory(memory: float) -> dict[str, Any]:
    if not memory > 0:
        raise ConfigError(f"memory must be above 0, not {memory}")
    if memory > 1:
        return {"kv_cache_memory_bytes": int(memory)}
    return {"gpu_memory_utilization": memory}
