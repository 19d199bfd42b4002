"""The engine's stages alone, on prescribed outputs: prefill, decode, verification of drafts.

Before anything is timed, the model itself writes some tokens behind two of the prompts, a token a
pass and with drafts; of each token the logit must be the highest that transformers finds there, up
to rounding. `share_of_floor` relates a stage to what its weights, keys and products take at the
rates of a copy and a square product, measured in the same run; what fits a cache can beat it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench.floors import Pass, floor
from bench.models import EMBEDDED, random_model
from bench.scripted import FixedDrafts, Script, ScriptedModel, random_script
from bench.shapes import SHAPES
from bench.sizes import FULL, QUICK, Requests
from flipfast.engine.models.checkpoint import Checkpoint, read_model
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.profiling.rates import measure_rates
from flipfast.profiling.recorder import Cost

_N_CHECKED, _CHECKED_TOKENS, _CHECKED_PROMPT = 2, 8, 96
# By which a chosen token's logit may miss the highest: those of random weights differ by some 3.
_TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.5}
_CUDA_BYTES = 24e9  # beside which the reference needs room

Outputs = list[list[int]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = QUICK if metafunc.config.getoption("--quick") else FULL
    if "requests_" in metafunc.fixturenames:
        cases = [
            pytest.param(case, marks=[pytest.mark.gpu] if case.device == "cuda" else [])
            for case in sizes.stages
        ]
        metafunc.parametrize("requests_", cases, ids=str, scope="module")


class StageModel(ScriptedModel):
    """A loaded model that can be run up to a stage.

    Args:
        model: a folder, or a spec with its checkpoint.
        options: of EngineOptions.
    """

    def __init__(self, model: Path | tuple[DecoderSpec, Checkpoint], **options: Any) -> None:
        super().__init__(model, **options)
        runner = self._model._runner
        assert runner is not None
        self.device = runner.device
        self.weight_dtype = runner.decoder.ops.weight_dtype

    def outputs(self, prompts: Outputs, drafts: Outputs | None = None) -> Outputs:
        """What the model itself writes, where there are drafts with some of them in each step."""
        runner, engine = self._model._runner, self._model.engine
        assert runner is not None
        engine._drafting = FixedDrafts(drafts, 3, overlap=self._overlap) if drafts else None
        engine.forget_prefixes()
        runner.run = self._compute  # type: ignore[method-assign]
        try:
            sequences = _sequences(prompts, _CHECKED_TOKENS)
            engine.generate(sequences)
        finally:
            runner.run = self._step  # type: ignore[method-assign]
        return [sequence.output_ids for sequence in sequences]

    def begin(self, script: Script, draft: int = 0) -> list[Sequence]:
        """Run prompts up to the first token of every output; later steps have drafts so long."""
        engine = self._model.engine
        engine._drafting = None
        engine.forget_prefixes()
        self._outputs = script.outputs
        sequences = _sequences(script.prompts, len(script.outputs[0]))
        engine.start(sequences)
        while not all(sequence.n_sampled for sequence in sequences):
            engine.step()
        if draft:
            engine._drafting = FixedDrafts(script.outputs, draft, overlap=self._overlap)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return sequences

    def finish(self, sequences: list[Sequence]) -> None:
        """Run what has begun to its end."""
        while any(sequence.finish_reason is None for sequence in sequences):
            self._model.engine.step()
        assert [sequence.output_ids for sequence in sequences] == self._outputs

    @property
    def max_tokens(self) -> int:
        """Tokens of a step at most."""
        return self._model.engine._scheduler.max_tokens


measured_rates = cache(measure_rates)  # once a run


def _sequences(prompts: Outputs, n_out: int) -> list[Sequence]:
    params = SamplingParams(max_new_tokens=n_out)
    return [Sequence(prompt, params, seed=i) for i, prompt in enumerate(prompts)]


@dataclass(frozen=True)
class Stage:
    """What is needed to run and judge the stages of a model.

    Attributes:
        requests: of which sizes.
        model: loaded.
        script: prompts and outputs.
        spec: of the model.
        weight_bytes: of a number among the weights.
        gap: by how much outputs' tokens miss the highest logits of transformers, at most.
    """

    requests: Requests
    model: StageModel
    script: Script
    spec: DecoderSpec
    weight_bytes: int
    gap: Callable[[Outputs, Outputs], float]

    def check(self, *, drafts: bool) -> None:
        """Compare what the model writes with the reference."""
        prompts = [prompt[:_CHECKED_PROMPT] for prompt in self.script.prompts[:_N_CHECKED]]
        outputs = self.model.outputs(prompts)
        assert self.gap(prompts, outputs) <= _TOLERANCE[self.model.weight_dtype]
        if drafts:
            wrong_later = [[*output[:5], output[5] ^ 1, *output[6:]] for output in outputs]
            assert self.model.outputs(prompts, wrong_later) == outputs

    def note(self, benchmark: Any, cost: Cost, *, tokens: int, rows: int) -> None:
        """Rates of the median round, and how near they are to the floor."""
        seconds = benchmark.stats.stats.median
        rates = measured_rates(self.model.device, self.model.weight_dtype)
        benchmark.extra_info.update(
            shape=self.requests.shape,
            dtype=self.model.dtype,
            n_rows=self.requests.n,
            draft=self.requests.draft,
            prompt_tokens=self.requests.n_prompt,
            tokens_per_s=round(tokens / seconds, 1),
            computed_rows_per_s=round(rows / seconds, 1),
            gb_per_s=round(cost.n_bytes / seconds * 1e-9, 2),
            tflop_per_s=round(cost.flops / seconds * 1e-12, 4),
            share_of_floor=round(rates.floor(cost) / seconds, 3),
        )

    def cost(self, passes: list[Pass]) -> Cost:
        cache_bytes = self.model.weight_dtype.itemsize
        return floor(self.spec, passes, weight_bytes=self.weight_bytes, cache_bytes=cache_bytes)


@pytest.fixture(scope="module")
def stage(requests_: Requests) -> Iterator[Stage]:
    r = requests_
    given = read_model(str(EMBEDDED)) if r.shape == "embedded" else random_model(r.shape, r.device)
    options = {"memory": _CUDA_BYTES} if r.device == "cuda" else {}
    model = StageModel(given, device=r.device, max_seqs=r.batch, **options)
    sizes = {"n_prompt": r.n_prompt, "n_shared": r.n_shared, "n_out": r.n_out}
    script = random_script(r.n, vocab=model.vocab_size, **sizes)
    spec, checkpoint = given
    weight_bytes = min(model.weight_dtype.itemsize, checkpoint.dtype.itemsize)
    gap = partial(largest_gap, transformers_model(r, checkpoint, model.weight_dtype))
    yield Stage(r, model, script, spec, weight_bytes, gap)
    model.close()
    del gap
    gc.collect()
    if r.device == "cuda":
        torch.cuda.empty_cache()


def transformers_model(requests_: Requests, checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """The same weights in transformers."""
    auto = transformers.AutoModelForCausalLM
    if requests_.shape == "embedded":
        return auto.from_pretrained(EMBEDDED, dtype=dtype).to(requests_.device).eval()
    shape = SHAPES[requests_.shape]
    config = transformers.AutoConfig.for_model(shape.model_type, **shape.config)
    with torch.device(requests_.device):
        model = auto.from_config(config, dtype=dtype)
    tied = config.tie_word_embeddings
    weights = {k: v for k, v in checkpoint.tensors() if not (tied and k == "lm_head.weight")}
    model.load_state_dict(weights, strict=not tied)
    return model.eval()


@torch.inference_mode()
def largest_gap(model: Any, prompts: Outputs, outputs: Outputs) -> float:
    """By how much an output token's logit is below the highest in its place, at most."""
    gaps = []
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = torch.tensor([prompt + output], device=model.device)
        logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(-1, ids[0, len(prompt) :, None])[:, 0]
        gaps.append(float((logits.amax(-1) - chosen).max()))
    return max(gaps)


def bench_prefill(benchmark: Any, stage: Stage) -> None:
    """Prompts to their first tokens, what they share computed once."""
    stage.check(drafts=False)
    r = stage.requests
    script = Script(stage.script.prompts, [output[:1] for output in stage.script.outputs])
    benchmark.group = f"prefill {r}"
    run = benchmark.pedantic(stage.model.write, (script,), rounds=r.rounds)
    new = r.n_prompt - r.n_shared
    n_passes = -(-run.computed // stage.model.max_tokens)
    passes = [Pass([(0, r.n_shared), *[(r.n_shared, new)] * r.n], r.n)]
    passes += [Pass([], 0)] * (n_passes - 1)  # which read the weights, too
    cost = stage.cost(passes)
    stage.note(benchmark, cost, tokens=r.n * r.n_prompt, rows=run.computed)


def bench_decode(benchmark: Any, stage: Stage) -> None:
    """A token a pass and sequence."""
    run_outputs(benchmark, stage, 0)


def bench_verify(benchmark: Any, stage: Stage) -> None:
    """Passes that try a draft for each sequence, all of it right."""
    run_outputs(benchmark, stage, stage.requests.draft)


def run_outputs(benchmark: Any, stage: Stage, draft: int) -> None:
    """Time outputs from behind their first token to their end."""
    r = stage.requests
    stage.check(drafts=draft > 0)

    def begin() -> tuple[tuple[list[Sequence]], dict[str, Any]]:
        return (stage.model.begin(stage.script, draft),), {}

    benchmark.group = f"{'verify' if draft else 'decode'} {r}"
    benchmark.pedantic(stage.model.finish, setup=begin, rounds=r.rounds)
    starts = range(1, r.n_out, draft + 1)
    chunks = [(r.n_prompt + at - 1, min(draft + 1, r.n_out - at)) for at in starts]
    passes = [Pass([chunk] * r.n, r.n * chunk[1]) for chunk in chunks]
    n_tokens = r.n * (r.n_out - 1)
    stage.note(benchmark, stage.cost(passes), tokens=n_tokens, rows=n_tokens)
