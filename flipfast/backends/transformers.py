"""The inverter that runs any causal language model through transformers' own `generate`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteriaList

from flipfast.backends._generation import end_ids, stop_strings
from flipfast.backends._loading import (
    context_length,
    load_model,
    quiet,
    resolve_device,
    resolve_dtype,
)
from flipfast.backends._sampling import LogitsWatch, SeededSampler
from flipfast.backends._stopping import StopStrings, before_stop
from flipfast.backends.base import Inversion, InversionRequest, Inverter, SamplingParams
from flipfast.errors import ConfigError, FlipfastError

# Without a batch size: maximum rows and maximum tokens (padding and output included) per batch.
_ROWS = {"cpu": 16, "cuda": 64}
_TOKENS = {"cpu": 16_384, "cuda": 131_072}


def load(
    model: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: str | None = None,
) -> TransformersInverter:
    """Load a causal language model with transformers.

    Args:
        model: a local folder, or a hub name, which is downloaded if the local cache lacks it.
        device: "cpu", "cuda", "cuda:1"; None takes CUDA if available.
        dtype: "float32", "bfloat16" or "float16"; None takes bfloat16 on CUDA, else float32.
        batch_size: maximum rows per batch; None chooses by the device and the prompts.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run Python code that comes with the model.
        tokenizer: a local folder or hub name with the tokenizer; None for the model's own.

    Raises:
        ConfigError: an option that cannot be used.
        ModelLoadError: the model cannot be loaded.
    """
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
    place = resolve_device(device)
    language_model, its_tokenizer = load_model(
        model,
        device=place,
        dtype=resolve_dtype(dtype, place),
        revision=revision,
        trust_remote_code=trust_remote_code,
        tokenizer=tokenizer,
    )
    return TransformersInverter(language_model, its_tokenizer, batch_size=batch_size)


class TransformersInverter(Inverter):
    """Runs left-padded batches, sorted by length, through `model.generate`.

    Greedy output is token-identical to `model.generate(do_sample=False)` on the prompt alone as
    long as no two logits differ by less than the rounding of a batched matrix product. In float32
    this practically always holds; in half precision ties occur, and batch_size=1 avoids them. The
    end tokens and logits processors of the folder's generation config apply, and its stop strings,
    which do not become part of the output; sampling follows the call's `SamplingParams` alone.

    Args:
        model: a transformers causal language model, as `load` prepares it.
        tokenizer: the model's tokenizer.
        batch_size: maximum rows per batch; None chooses by the device and the prompts.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length(model, tokenizer)
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        self._model = model
        self._batch_size = batch_size
        self._end_ids = end_ids(model.generation_config.eos_token_id, tokenizer)
        self._stop_strings = stop_strings(model.generation_config)
        model.generation_config.stop_strings = None  # generate would ask for the tokenizer
        self._uniform_above = _longest_mixed(model)

    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Continue every prompt; see `Inverter.generate`."""
        if self._model is None:
            raise FlipfastError("this inverter is closed; load it again to use it")
        report = on_progress or (lambda n_done: None)
        refusals = ((i, self.refusal(request, sampling)) for i, request in enumerate(requests))
        done = {i: Inversion.failed(reason) for i, reason in refusals if reason is not None}
        if done:
            report(len(done))
        lengths = {i: len(r.prompt_ids) for i, r in enumerate(requests) if i not in done}
        for batch in self._batches(lengths, sampling.max_new_tokens):
            outputs = self._run([requests[i] for i in batch], sampling)
            done.update(zip(batch, outputs, strict=True))
            report(len(done))
        return [done[i] for i in range(len(requests))]

    def close(self) -> None:
        """Free the model's memory; the inverter cannot be used afterwards."""
        self._model = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _batches(self, lengths: dict[int, int], max_new_tokens: int) -> Iterator[list[int]]:
        """Split requests, given as index and prompt length, into batches, longest first."""
        order = sorted(lengths, key=lambda i: -lengths[i])
        start = 0
        while start < len(order):
            longest = lengths[order[start]]
            batch = order[start : start + self._most_rows(longest + max_new_tokens)]
            if longest + max_new_tokens > self._uniform_above:
                batch = [i for i in batch if lengths[i] == longest]
            yield batch
            start += len(batch)

    def _most_rows(self, n_tokens: int) -> int:
        if self._batch_size is not None:
            return self._batch_size
        kind = "cuda" if self._model.device.type == "cuda" else "cpu"
        return min(_ROWS[kind], max(1, _TOKENS[kind] // n_tokens))

    def _run(self, batch: list[InversionRequest], sampling: SamplingParams) -> list[Inversion]:
        """Run a batch; if it fails, run its halves, until only the failing rows get the error."""
        try:
            return self._generate(batch, sampling)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
        # Outside the except block the traceback, and with it the batch's memory, is released.
        if out_of_memory:
            torch.cuda.empty_cache()
        if len(batch) == 1:
            return [Inversion.failed(reason)]
        middle = len(batch) // 2
        return self._run(batch[:middle], sampling) + self._run(batch[middle:], sampling)

    @torch.inference_mode()
    def _generate(self, batch: list[InversionRequest], sampling: SamplingParams) -> list[Inversion]:
        model = self._model
        input_ids, attention_mask = _left_padded([request.prompt_ids for request in batch])
        watch = LogitsWatch(len(batch), model.device)
        processors = LogitsProcessorList([watch])
        if sampling.temperature > 0:
            processors.append(SeededSampler([request.seed for request in batch], sampling))
        criteria = StoppingCriteriaList()
        stops = None
        if self._stop_strings:
            n_prompt = input_ids.shape[1]
            stops = StopStrings(self.tokenizer, self._stop_strings, len(batch), n_prompt)
            criteria.append(stops)
        with quiet(progress_bars=True):  # generate warns about options that are switched off
            sequences = model.generate(
                input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                logits_processor=processors,
                stopping_criteria=criteria,
                max_new_tokens=sampling.max_new_tokens,
            )
        rows = sequences[:, input_ids.shape[1] :].tolist()
        stopped = [None] * len(rows) if stops is None else stops.lengths
        return [
            self._inversion(row[:length], bad, stopped=length is not None)
            for row, bad, length in zip(rows, watch.first_bad.tolist(), stopped, strict=True)
        ]

    def _inversion(self, new_ids: list[int], first_bad: int, *, stopped: bool = False) -> Inversion:
        end = next((i for i, token_id in enumerate(new_ids) if token_id in self._end_ids), None)
        output_ids = new_ids[:end]
        if 0 <= first_bad < len(new_ids) and first_bad <= len(output_ids):
            return Inversion.failed(
                f"the model's logits are not finite at output token {first_bad}; "
                "another dtype may help (float32, or bfloat16 instead of float16)"
            )
        if end is None and stopped:
            return Inversion(*before_stop(self.tokenizer, output_ids, self._stop_strings), "stop")
        reason = "length" if end is None else "stop"
        return Inversion(output_ids, self.decode(output_ids), reason)


def _left_padded(prompts: list[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (rows, longest) int64 on the CPU.

    A row is padded with its own first token: the mask hides it from the model, and a repetition
    penalty, which ignores the mask, sees no token that the prompt lacks.
    """
    longest = max(len(prompt) for prompt in prompts)
    padding = [longest - len(prompt) for prompt in prompts]
    ids = [[p[0]] * n_pad + list(p) for p, n_pad in zip(prompts, padding, strict=True)]
    mask = torch.arange(longest)[None, :] >= torch.tensor(padding)[:, None]
    return torch.tensor(ids), mask.long()


def _longest_mixed(model: Any) -> int:
    """Maximum number of tokens up to which rows of different lengths may share a batch.

    LongRoPE has two sets of frequencies and picks one for the whole batch by its longest row, so
    longer rows are batched only with rows of the same length.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return sys.maxsize
    return int(rope["original_max_position_embeddings"])
