"""Compiled variants of kernels that an engine asks for: at load, and in a run; JSON to stdout.

A program of its own: the tests' process may run Triton as an interpreter, which compiles nothing.
Here nothing is compiled either; what would be is noted.
"""

import json
import sys

import torch

from bench.gpu.rehearsal import pretend
from bench.models import random_model
from bench.shapes import SHAPES
from flipfast.engine.loading import load_engine
from flipfast.engine.options import EngineOptions
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from tests.kernels.launches import BOTH_KINDS, noted

CONTEXT = 5000
VOCABULARY = 2048


def main(shape, **options):
    pretend(compiles=True)
    found = noted()
    few = {"num_hidden_layers": 2, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT}
    if SHAPES[shape].config.get("sliding_window"):
        few |= BOTH_KINDS
    SHAPES[shape] = SHAPES[shape]._replace(config={**SHAPES[shape].config, **few})
    spec, checkpoint = random_model(shape, "cuda")
    engine = EngineOptions(device="cuda", memory=3e8, **options)
    model = load_engine(spec, checkpoint, engine, end_ids=frozenset({1}))
    at_load = set(found)
    for lengths in ([1], [4], [900], [4900], [40] * 40, [10, 200, 3000, 4900], [4900] * 4):
        model.engine.generate([one for i, n in enumerate(lengths) for one in requests(i, n)])
        model.engine.forget_prefixes()
    model.engine.start([*requests(0, 4900)])
    for _ in range(6):
        model.engine.step()
    model.engine.generate([*requests(1, 40)])  # a short prompt beside few long sequences
    counters = model.engine.counters
    assert counters.drafted_tokens > 0
    assert counters.scored_tokens > 0
    assert counters.failed_steps == 0
    json.dump({"at_load": len(at_load), "later": sorted(found.keys() - at_load)}, sys.stdout)


def requests(i, n):
    """Prompts of n tokens, to be continued in all ways that there are, and to be scored."""
    prompt = [2 + (i + j) % (VOCABULARY - 2) for j in range(n)]
    row = torch.zeros(40, dtype=torch.int32)
    yield Sequence(prompt, SamplingParams(max_new_tokens=30))
    yield Sequence(prompt, SamplingParams(max_new_tokens=40), drafts=([0] * 40,), output_row=row)
    yield Sequence(prompt, SamplingParams(max_new_tokens=8, temperature=1.0))
    yield Sequence.scoring(prompt, prompt[:20])


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
