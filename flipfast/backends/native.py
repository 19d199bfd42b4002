"""The inverter that runs the native engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from flipfast.backends._engine_sequences import (
    Case,
    inversion_of,
    likelihood_of,
    scoring_sequences_for,
    sequences_for,
)
from flipfast.backends._generation import end_ids, read_generation_config, unserved_processor
from flipfast.backends._loading import TOKENIZER_FILES, load_tokenizer
from flipfast.backends.base import (
    Inversion,
    InversionRequest,
    Inverter,
    Likelihood,
    LikelihoodRequest,
    SamplingParams,
)
from flipfast.engine.counters import EngineCounters
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.loading import load_engine
from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.gguf.checkpoint import GgufCheckpoint
from flipfast.engine.models.gguf.tokenizer import read_gguf_end_ids, read_gguf_tokenizer
from flipfast.engine.models.hub import fetch
from flipfast.engine.models.lora import AdaptedCheckpoint, read_adapter
from flipfast.engine.options import EngineOptions
from flipfast.engine.sequence import Sequence as EngineSequence


def load(
    model: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    batch_size: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    adapter: str | None = None,
    tokenizer: str | None = None,
    deterministic: bool = True,
    attention: str | None = None,
    memory: float | None = None,
    drafting: bool = True,
) -> NativeInverter:
    """Load a model of one of the families in `flipfast.engine.models` into the native engine.

    Args:
        model: see `read_model`; a hub model is downloaded if the local cache lacks it.
        device: "cpu", "cuda", "cuda:1"; None takes CUDA if available.
        dtype: of the weights: "float32", "bfloat16" or, on CUDA, "float16"; None takes the
            fastest on the device.
        weights: "float", "int8", "int4" or "fp8"; see EngineOptions.
        batch_size: maximum number of sequences running at a time.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run Python code that comes with the tokenizer.
        adapter: a LoRA adapter to merge into the weights, a local folder or a hub name.
        tokenizer: a local folder or hub name with the tokenizer; None for the model's own.
        deterministic, attention, memory, drafting: see EngineOptions.

    Raises:
        ConfigError: an option that cannot be used.
        UnsupportedModelError: a valid model that needs another backend.
        ModelLoadError: the model cannot be loaded.
    """
    options = EngineOptions(
        device=device,
        dtype=dtype,
        weights=weights,
        deterministic=deterministic,
        attention=attention,
        memory=memory,
        max_seqs=batch_size,
        drafting=drafting,
    )
    spec, checkpoint = read_model(model, revision)
    encoder: PreTrainedTokenizerBase | None = None
    if tokenizer is not None:
        elsewhere = fetch(tokenizer, None, TOKENIZER_FILES)
        encoder = load_tokenizer(tokenizer, elsewhere, spec.vocab_size, trust_remote_code)
    if isinstance(checkpoint, GgufCheckpoint):
        encoder = encoder or read_gguf_tokenizer(checkpoint.file)
        ends, repetition_penalty = read_gguf_end_ids(checkpoint.file), 1.0
        checkpoint = GgufCheckpoint(checkpoint.file.without_lists())
    else:
        folder = fetch(model, revision, TOKENIZER_FILES)
        generation = read_generation_config(folder)
        unserved = unserved_processor(generation)
        if unserved is not None:
            raise UnsupportedModelError(
                f"the generation config of {model!r} asks for {unserved}, which the native engine "
                "lacks"
            )
        encoder = encoder or load_tokenizer(model, folder, spec.vocab_size, trust_remote_code)
        ends, repetition_penalty = generation.eos_token_id, generation.repetition_penalty or 1.0
    if adapter is not None:
        checkpoint = AdaptedCheckpoint(checkpoint, read_adapter(adapter))
    loaded = load_engine(
        spec,
        checkpoint,
        options,
        end_ids=end_ids(ends, encoder),
        repetition_penalty=repetition_penalty,
    )
    return NativeInverter(loaded, encoder, spec.max_positions, spec.vocab_size)


class NativeInverter(Inverter):
    """Runs requests through the native engine, with continuous batching and prefix caching.

    Args:
        model: the loaded engine.
        tokenizer: the model's tokenizer.
        context_length: of the model, in tokens.
        vocab_size: rows of the model's embedding.
    """

    def __init__(
        self,
        model: LoadedModel,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        vocab_size: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.vocab_size = vocab_size
        self._model = model
        self._version = 0

    @property
    def drafts(self) -> bool:
        """Whether the engine uses speculative decoding."""
        return self._model.engine.drafts

    @property
    def watches(self) -> bool:
        """Always True."""
        return True

    @property
    def end_ids(self) -> frozenset[int]:
        """The end tokens of the model's generation config and of its tokenizer."""
        return self._model.engine.end_ids

    @property
    def weights_version(self) -> int:
        """How often `update_weights` has been called."""
        return self._version

    @property
    def counters(self) -> EngineCounters:
        """The engine's totals since it was loaded."""
        return self._model.engine.counters

    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Continue every prompt; see `Inverter.generate`."""
        inversions = self._generate(requests, sampling, on_progress, None)
        return [
            replace(inversion, text=self.decode(inversion.output_ids)) for inversion in inversions
        ]

    @property
    def token_device(self) -> torch.device | None:
        """The device on which `generate_into` leaves output tokens; None if it cannot."""
        return self._model.token_device

    def generate_into(
        self,
        tokens: torch.Tensor,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Continue every prompt and leave the output tokens on the device, without decoding them.

        Args:
            tokens: int32 (len(requests), max_new_tokens) on `token_device`; each row starts with
                the request's output_ids, and its remaining entries are undefined.
            requests, sampling, on_progress: as for `generate`.

        Returns:
            As for `generate`, but with every text None.
        """
        return self._generate(requests, sampling, on_progress, tokens)

    def _generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None,
        tokens: torch.Tensor | None,
    ) -> list[Inversion]:
        cases = sequences_for(self, requests, sampling, tokens)
        self._run(cases, on_progress)
        return [inversion_of(case) for case in cases]

    @property
    def max_running(self) -> int:
        """Number of sequences that the engine runs at a time."""
        return self._model.engine.max_seqs

    @property
    def streams(self) -> bool:
        """Always True."""
        return True

    def start(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_end: Callable[[int, Inversion], None],
    ) -> Callable[[], None]:
        """Queue prompts for later calls of `step` to continue; see `Inverter.start`."""
        self._model.require_usable()
        sequences = []
        for place, case in enumerate(sequences_for(self, requests, sampling)):
            if isinstance(case, str):
                on_end(place, Inversion.failed(case))
            else:
                case.on_end = lambda case, place=place: on_end(place, inversion_of(case))
                sequences.append(case)
        self._model.engine.start(sequences)

        def cancel() -> None:
            for sequence in sequences:
                self._model.engine.cancel(sequence)

        return cancel

    def step(self) -> None:
        """Run one step of the engine."""
        self._model.engine.step()

    @property
    def has_likelihoods(self) -> bool:
        """Always True."""
        return True

    def likelihoods(
        self,
        requests: Sequence[LikelihoodRequest],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Likelihood]:
        """Probabilities of given tokens after prompts; see `Inverter.likelihoods`.

        Requests run alongside those of `generate` and share cached prefixes with them.
        """
        cases = scoring_sequences_for(self, requests)
        self._run(cases, on_progress)
        return [likelihood_of(case) for case in cases]

    def _run(self, cases: list[Case], on_progress: Callable[[int], None] | None) -> None:
        """Run those cases that are sequences to their end."""
        self._model.require_usable()
        sequences = [case for case in cases if isinstance(case, EngineSequence)]
        n_done = len(cases) - len(sequences)
        report = on_progress or (lambda n_done: None)
        if n_done:
            report(n_done)

        def on_finished(_: EngineSequence) -> None:
            nonlocal n_done
            n_done += 1
            report(n_done)

        self._model.engine.generate(sequences, on_finished)

    def keep_prefix(self, token_ids: Sequence[int]) -> None:
        """Keep this prompt prefix in the prefix cache for longer than others."""
        self._model.engine.pin(token_ids)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache."""
        self._model.engine.forget_prefixes()

    def sleep(self, *, drop_weights: bool = False) -> None:
        """Free all device memory until `wake`; see `LoadedModel.sleep`."""
        self._model.sleep(drop_weights=drop_weights)

    def wake(self) -> None:
        """Make the engine usable again after `sleep`."""
        self._model.wake()

    def update_weights(self, source: Mapping[str, torch.Tensor] | str | Path) -> None:
        """Load new weights in place, from a full state dict or a folder with safetensors."""
        self._version += 1  # before the update: one that fails halfway has changed weights, too
        self._model.update_weights(source)

    def close(self) -> None:
        """Free the model's memory; the inverter cannot be used afterwards."""
        self._model.close()
