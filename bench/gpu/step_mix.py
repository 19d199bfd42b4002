"""The steps that the scheduler plans for a stream of requests, without a model: what each holds."""

from __future__ import annotations

import random
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from bench.scripted import FixedDrafts, Script, random_outputs
from flipfast.engine.drafting import Drafting
from flipfast.engine.engine import Engine
from flipfast.engine.model_runner import StepResult
from flipfast.engine.prefix_cache import PrefixCache
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import Chunk, StepPlan

_PAGE = 16
_VOCAB = 1000


@dataclass(frozen=True)
class Load:
    """Requests that are all there at the start.

    Attributes:
        n: how many.
        n_prompt: tokens of each prompt.
        n_shared: of these, the same in all prompts.
        n_out: least and most output tokens.
        max_seqs, max_tokens: of a step.
    """

    n: int = 1024
    n_prompt: int = 650
    n_shared: int = 160
    n_out: tuple[int, int] = (40, 100)
    max_seqs: int = 256
    max_tokens: int = 8192


class Step(NamedTuple):
    """What a step computes.

    Attributes:
        prompt_rows: tokens of prompts.
        prompt_keys: keys of the sequences that these belong to.
        prompt_pairs: queries and keys that these see.
        decoding: sequences that decode.
        decode_rows: their tokens, and all that are drafted, those behind a prompt included.
        decode_keys: their keys.
        logits: rows with logits.
        emitted: output tokens that come out of it.
    """

    prompt_rows: int = 0
    prompt_keys: int = 0
    prompt_pairs: int = 0
    decoding: int = 0
    decode_rows: int = 0
    decode_keys: int = 0
    logits: int = 0
    emitted: int = 0

    @property
    def rows(self) -> int:
        """Of all products but the head's."""
        return self.prompt_rows + self.decode_rows

    @property
    def drafted(self) -> bool:
        """Whether it verifies drafts."""
        return self.decode_rows > self.decoding


class Mix(NamedTuple):
    """The steps of a load, and tokens of prompts that shared pages saved."""

    steps: list[Step]
    n_cached: int


def simulate(load: Load, *, groups: bool = False, drafts: int = 0, acceptance: float = 0.0) -> Mix:
    """Run the engine's own scheduler and step loop on a load.

    Args:
        load: the requests.
        groups: see Scheduler.
        drafts: tokens of every draft; 0 for none.
        acceptance: the probability that a drafted token is right.
    """
    rng = random.Random(0)
    shared = list(range(load.n_shared))
    own = load.n_prompt - load.n_shared
    prompts = [[*shared, *[_VOCAB + i] * own] for i in range(load.n)]
    outputs = random_outputs([rng.randint(*load.n_out) for _ in prompts], vocab=_VOCAB)
    runner: Any = _Runner(outputs)
    pages = 2 + load.max_seqs * (-(-(load.n_prompt + load.n_out[1] + drafts) // _PAGE) + 1)
    scheduler = Scheduler(
        PrefixCache(pages, _PAGE),
        max_seqs=load.max_seqs,
        max_tokens=load.max_tokens,
        groups=groups,
    )
    drafting: Drafting | None = None
    if drafts:
        guesses = Script(prompts, outputs).guesses(acceptance)
        drafting = FixedDrafts(guesses, drafts, overlap=True)
    engine = Engine(runner, scheduler, end_ids=frozenset(), overlap=True, drafting=drafting)
    engine.generate(
        [
            Sequence(prompt, SamplingParams(len(output)), seed=i)
            for i, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
        ]
    )
    return Mix(runner.steps, engine.counters.prefix_tokens)


class _Runner:
    """Notes steps and writes what is prescribed."""

    def __init__(self, outputs: SequenceOf[list[int]]) -> None:
        self.steps: list[Step] = []
        self._outputs = outputs

    def wait_for_caller(self) -> None:
        """There is no stream."""

    def run(self, plan: StepPlan) -> StepResult:
        chunks = [chunk for chunk in plan.chunks if chunk.samples]
        chosen = [self._next(chunk) for chunk in chunks]
        right = [_n_right(chunk, tokens) for chunk, tokens in zip(chunks, chosen, strict=True)]
        step = {"logits": sum(map(len, chosen)), "emitted": sum(right)}
        prompts = [chunk for chunk in plan.chunks if chunk.sequence in plan.prefilling]
        decoding = [chunk for chunk in plan.chunks if chunk.sequence not in plan.prefilling]
        self.steps.append(
            Step(
                prompt_rows=sum(chunk.n for chunk in prompts),
                prompt_keys=sum(chunk.start + chunk.n for chunk in prompts),
                prompt_pairs=sum(x.n * x.start + x.n * (x.n + 1) // 2 for x in prompts),
                decoding=len(decoding),
                decode_rows=len(decoding) + sum(len(chunk.draft) for chunk in plan.chunks),
                decode_keys=sum(chunk.start + chunk.n_rows for chunk in decoding),
                **step,
            )
        )
        return StepResult(chunks, torch.tensor([x for tokens in chosen for x in tokens]), None)

    def _next(self, chunk: Chunk) -> list[int]:
        at = chunk.sequence.n_sampled - 1
        return self._outputs[chunk.sequence.seed][at : at + 1 + len(chunk.draft)]


def _n_right(chunk: Chunk, tokens: list[int]) -> int:
    """Output tokens of a chunk: those up to the first that the draft does not have."""
    for i, token in enumerate(chunk.draft):
        if tokens[i] != token:
            return i + 1
    return len(tokens)
