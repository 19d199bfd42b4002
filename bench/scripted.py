"""Outputs written beforehand: what drafting costs and saves where a given share of it is right.

The engine plans, runs and verifies as always, and every pass computes all that it would; only what
it chooses in the end is replaced by the next tokens of a script. So a model of random weights can
be timed as if it wrote something that drafts foresee.
"""

from __future__ import annotations

import random
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from bench.models import EMBEDDED, random_model, random_requests
from bench.sizes import OUTPUT_TOKENS, TEXT_SHARES, Prescribed
from flipfast._core import Drafter
from flipfast.config import FlipConfig
from flipfast.engine.drafting import Drafting
from flipfast.engine.loading import load_engine
from flipfast.engine.model_runner import StepResult
from flipfast.engine.models.checkpoint import Checkpoint, read_model
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.options import EngineOptions
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import MAX_DRAFT, Sequence
from flipfast.engine.step_plan import Chunk, StepPlan
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import get_template


@dataclass(frozen=True)
class Script:
    """Prompts and what each of them is answered with, a token at least, as token ids."""

    prompts: list[list[int]]
    outputs: list[list[int]]

    def guesses(self, acceptance: float) -> list[list[int]]:
        """The outputs with each token, by itself, right at this probability, else another one."""
        rng = random.Random(repr(acceptance))
        return [
            [token if rng.random() < acceptance else token + 1 for token in output]
            for output in self.outputs
        ]


def random_outputs(lengths: SequenceOf[int], *, vocab: int, seed: int = 0) -> list[list[int]]:
    """Outputs of these lengths, in tokens; a guess that is wrong is in the vocabulary, too."""
    rng = random.Random(f"outputs {seed}")
    return [[rng.randrange(vocab - 1) for _ in range(length)] for length in lengths]


def script_of(requests: Prescribed, model: ScriptedModel, seed: int = 0) -> Script:
    """Random requests for a model, with the outputs of a seed."""
    sizes = {"n_prompt": requests.n_prompt, "n_shared": requests.n_shared}
    asked = random_requests(requests.n, vocab=model.vocab_size - 1, **sizes)
    outputs = random_outputs([requests.n_out] * requests.n, vocab=model.vocab_size, seed=seed)
    return Script([list(request.prompt_ids) for request in asked], outputs)


def text_script(texts: SequenceOf[str], *, vocab: int, n_out: int | None = None) -> Script:
    """Direct prompts of responses, none of them cut, in the embedded model's tokens; outputs of
    n_out tokens, of None as long as real ones are.
    """
    tokenizer, template = AutoTokenizer.from_pretrained(EMBEDDED), get_template("direct")
    renderer = PromptRenderer(
        tokenizer,
        template,
        date=FlipConfig.prompt_date,
        thinking=False,
        max_prompt_tokens=2**31,
    )
    prompts = [renderer.render(text).token_ids for text in texts]
    lengths = output_lengths(len(texts)) if n_out is None else [n_out] * len(texts)
    return Script(prompts, random_outputs(lengths, vocab=vocab))


def output_lengths(n: int, seed: int = 0) -> list[int]:
    """n lengths in tokens, as real outputs have them."""
    rng = random.Random(seed)
    return [round(np.interp(rng.random(), TEXT_SHARES, OUTPUT_TOKENS)) for _ in range(n)]


class FixedDrafts(Drafting):
    """Drafts of one length, from a guess for each seed of a sequence, whatever becomes of them."""

    def __init__(self, guesses: SequenceOf[SequenceOf[int]], length: int, *, overlap: bool) -> None:
        super().__init__(overlap=overlap)
        self._guesses, self._length = guesses, length

    def extend(self, plan: StepPlan, scheduler: Scheduler) -> None:
        """Add a draft to each chunk that samples."""
        room = scheduler.room_for_drafts(plan)
        for place, chunk in enumerate(plan.chunks):
            sequence = chunk.sequence
            n = min(self._length, sequence.sampling.max_new_tokens - sequence.n_sampled, room)
            if chunk.samples and n > 0:
                at = sequence.n_sampled - 1
                scheduler.add_draft(plan, place, self._guesses[sequence.seed][at : at + n])
                room -= len(plan.chunks[place].draft)


def forget_outputs(drafting: Drafting) -> None:
    """Drop what drafting has learned from outputs: a second run of the same requests would find
    those of the first.
    """
    drafting._drafter = Drafter(MAX_DRAFT)


@dataclass(frozen=True)
class Run:
    """What it took to write a script."""

    seconds: float
    passes: float  # in which a prompt got output tokens, mean of the prompts
    computed: int  # tokens that were run, drafted ones included; those of a shared start once
    drafted: int  # tokens, as those below
    accepted: int
    peak_pages: int  # in use at a time


class ScriptedModel:
    """A loaded model that writes what a script has.

    Attributes:
        vocab_size: of the model.
        dtype: of its weights.
        page_bytes: of a page of its cache, in all layers.

    Args:
        model: the folder of its checkpoint, or what `read_model` would say of it.
        options: of EngineOptions.
    """

    def __init__(self, model: Path | tuple[DecoderSpec, Checkpoint], **options: Any) -> None:
        spec, checkpoint = read_model(str(model)) if isinstance(model, Path) else model
        self.vocab_size = spec.vocab_size
        self._model = load_engine(spec, checkpoint, EngineOptions(**options), end_ids=frozenset())
        runner = self._model._runner
        assert runner is not None
        self.dtype = str(runner.decoder.ops.weight_dtype).removeprefix("torch.")
        self.page_bytes = runner._attention.page_bytes() * len(spec.layers)
        self._overlap = runner.device.type == "cuda"
        self._compute = runner.run
        runner.run = self._step  # type: ignore[method-assign]
        self._outputs: list[list[int]] = []
        self._adaptive: dict[float, Drafting] = {}

    def write(
        self,
        script: Script,
        *,
        acceptance: float | None = None,
        length: int | None = None,
        keep_prefixes: bool = False,
    ) -> Run:
        """Have a script written, from an empty prefix cache.

        Args:
            script: what to write.
            acceptance: the probability that a drafted token is right; None for no drafts at all.
            length: of every draft; None leaves it to the engine, which learns from outputs and from
                calls before with the same acceptance: give it another script each time.
            keep_prefixes: start from the prefix cache that calls before have filled.

        Raises:
            AssertionError: an output is not the script's.
        """
        engine = self._model.engine
        engine._loop.drafting = None
        offered: list[tuple[list[int], ...]] = [()] * len(script.prompts)
        if acceptance is not None:
            guesses = script.guesses(acceptance)
            if length is not None:
                engine._loop.drafting = FixedDrafts(guesses, length, overlap=self._overlap)
            else:
                fresh = Drafting(overlap=self._overlap)
                engine._loop.drafting = self._adaptive.setdefault(acceptance, fresh)
            offered = [([-1, *guess],) for guess in guesses]
        if not keep_prefixes:
            engine.forget_prefixes()
        engine._scheduler.cache.pool.peak_held = 0
        self._outputs = script.outputs
        sequences = [
            Sequence(prompt, SamplingParams(len(output)), seed=i, drafts=drafts)
            for i, (prompt, output, drafts) in enumerate(
                zip(script.prompts, script.outputs, offered, strict=True)
            )
        ]
        before, started = engine.counters, perf_counter()
        engine.generate(sequences)
        seconds, after = perf_counter() - started, engine.counters
        assert [sequence.output_ids for sequence in sequences] == script.outputs
        names = ("computed_tokens", "drafted_tokens", "accepted_tokens")
        moved = [getattr(after, name) - getattr(before, name) for name in names]
        passes = (after.sampling_passes - before.sampling_passes) / len(sequences)
        return Run(seconds, passes, *moved, after.peak_pages)

    def forget_outputs(self) -> None:
        """Start drafting anew, except for what it knows of costs."""
        for drafting in self._adaptive.values():
            forget_outputs(drafting)

    def log_probs(self, prompt: list[int], targets: list[int]) -> list[float]:
        """What the model itself thinks of tokens behind a prompt, from an empty prefix cache."""
        engine, sequence = self._model.engine, Sequence.scoring(prompt, targets)
        engine.forget_prefixes()
        engine.generate([sequence])
        assert sequence.error is None, sequence.error
        return sequence.log_probs

    def close(self) -> None:
        """Give the model's memory back."""
        self._model.close()

    def _step(self, plan: StepPlan) -> StepResult:
        result = self._compute(plan)
        tokens = [token for chunk in result.chunks for token in self._next(chunk)]
        return replace(result, tokens=torch.tensor(tokens))

    def _next(self, chunk: Chunk) -> list[int]:
        """The script's tokens behind the known ones of a chunk and behind each of its draft."""
        at = chunk.sequence.n_sampled - 1
        return self._outputs[chunk.sequence.seed][at : at + 1 + len(chunk.draft)]


def load_shape(shape: str, device: str, **options: Any) -> ScriptedModel:
    """The embedded model under its name, else random weights in one of bench.shapes.SHAPES."""
    model = EMBEDDED if shape == "embedded" else random_model(shape, device)
    return ScriptedModel(model, device=device, **options)
