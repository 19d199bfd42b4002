"""Random models on disk, loaded into engines, with an eye on their logits."""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import torch
import transformers

from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.loading import load_engine
from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.options import EngineOptions
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence, lead_samples

END_IDS = frozenset({1})


def save_random_model(folder: Path, family: str, seed: int = 7, **shape: Any) -> Path:
    """A random model of a transformers config class, with norms that are not all alike."""
    config = getattr(transformers, family)(**shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if "norm" in name:
                torch.nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(folder)
    return folder


SMALL = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "eos_token_id": 1,
}
# Wide enough that products have several panels and pieces of k, and threads share them.
WIDE = {
    **SMALL,
    "vocab_size": 1024,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "head_dim": 64,
    "initializer_range": 0.05,
}


def load(folder: Path, *, repetition_penalty: float = 1.0, **options: Any) -> LoadedModel:
    spec, checkpoint = read_model(str(folder))
    return load_engine(
        spec,
        checkpoint,
        EngineOptions(**{"device": "cpu", "memory": 2**28, **options}),
        end_ids=END_IDS,
        repetition_penalty=repetition_penalty,
    )


def prompts(lengths: SequenceOf[int], vocab_size: int, *, stem: int = 0) -> list[list[int]]:
    """Prompts of the given lengths that share their first `stem` tokens."""
    rng = random.Random(3)
    shared = [rng.randrange(2, vocab_size) for _ in range(stem)]
    return [
        (shared + [rng.randrange(2, vocab_size) for _ in range(length)])[:length]
        for length in lengths
    ]


def run(
    model: LoadedModel,
    prompt_ids: list[list[int]],
    params: SamplingParams,
    disturb: Callable[[], None] = lambda: None,
    drafts: Callable[[list[int]], tuple[SequenceOf[int], ...]] = lambda prompt: (),
    seeds: SequenceOf[int] | None = None,
) -> list[tuple[list[int], str | None, bytes]]:
    """For each prompt the output, why it ended, and the bits of all its logits.

    `disturb` is called before every step, `drafts` gives a prompt's. With `seeds`, one each, equal
    prompts run once.
    """
    sequences = [Sequence(ids, params, sum(ids), drafts(ids)) for ids in prompt_ids]
    if seeds is not None:
        for sequence, seed in zip(sequences, seeds, strict=True):
            sequence.seed = seed
        lead_samples(sequences)
    bits: dict[int, list[bytes]] = {id(sequence): [] for sequence in sequences}
    runner = model._runner
    assert runner is not None
    plain_run, plain_choose = runner.run, runner._choose
    seen: list[torch.Tensor] = []

    def choose(hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        parts = hidden.split(runner.decoder.max_logit_rows)
        seen[:] = [torch.cat([runner.decoder.logits(part).clone() for part in parts])]
        return plain_choose(hidden, *rest)

    def spy(plan: Any) -> Any:
        result = plain_run(plan)
        rows = iter(seen[0])
        for chunk, emitted in zip(result.chunks, result.wait(), strict=True):
            drafted = [next(rows) for _ in range(1 + len(chunk.draft))]
            kept = torch.stack(drafted[: len(emitted)])
            bits[id(chunk.sequence)].append(kept.cpu().numpy().tobytes())
        return result

    runner._choose, runner.run = choose, spy  # type: ignore[method-assign]
    try:
        for sequence in sequences:
            model.engine.add(sequence)
        while any(sequence.finish_reason is None for sequence in sequences):
            disturb()
            model.engine.step()
    finally:
        runner._choose, runner.run = plain_choose, plain_run  # type: ignore[method-assign]
    return [(s.output_ids, s.finish_reason, b"".join(bits[id(s)])) for s in sequences]


def assert_steady(results: SequenceOf[tuple[Any, Any, bytes]], vocab_size: int) -> None:
    """That greedy tokens of `run` in float32 are no matter of rounding: none is nearly a tie."""
    for _, _, bits in results:
        logits = torch.frombuffer(bytearray(bits), dtype=torch.float32).view(-1, vocab_size)
        best, second = logits.topk(2).values.unbind(-1)
        assert (best - second).min() > 1e-3, "a near tie: take another model or other prompts"
