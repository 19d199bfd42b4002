"""What is benchmarked: workloads, sizes and model shapes, all of them here.

A suite takes its sizes from `FULL`, or from `QUICK` where pytest is given `--quick`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Workload:
    """Groups of responses to one instruction each, as a trainer or a search brings them.

    Attributes:
        n_groups: instructions.
        n_responses: responses of each.
        response_tokens: what each response is made as long as, one after the other, in tokens of
            the embedded model; none leaves responses as they are.
        rows_per_s: how often a single row arrives, on average; None for all of them at once.
    """

    n_groups: int
    n_responses: int
    response_tokens: tuple[int, ...] = ()
    rows_per_s: float | None = None


@dataclass(frozen=True)
class Requests:
    """Requests of random tokens for a model of random weights.

    Attributes:
        shape: the model's, one of SHAPES or "embedded".
        device: where it runs.
        n: requests.
        n_prompt: tokens of each, of which all share the first n_shared.
        n_out: output tokens of each.
        batch: sequences that run at a time.
        draft: tokens that a step tries in advance for each sequence, where a step does so.
        rounds: of a benchmark.
    """

    shape: str
    device: str
    n: int
    n_prompt: int
    n_shared: int
    n_out: int
    batch: int
    draft: int = 0
    rounds: int = 3

    def __str__(self) -> str:
        return f"{self.shape}-{self.device}-{self.batch}"


@dataclass(frozen=True)
class Sizes:
    """How much a run does.

    Attributes:
        workloads: by name.
        rounds: of a benchmark of whole rewards.
        text_pairs: response and instruction, for the text core.
        op_products: (inputs, outputs) of the CPU's products.
        op_rows: of products and of operations on rows.
        stages: what prefill, decode and verification are measured on.
        draft_curves: what drafts are measured on.
        draft_acceptances: shares of drafted tokens that are right.
        draft_lengths: tokens of a draft; None leaves it to the engine.
        more_cases: whether to compare every pair of options, on every source of groups, and to
            start Ray.
        callers: that ask a server for a row at a time.
        latency_rounds: how often each of 32 rows is asked for, alone.
        queue: rows that a server takes at a time, where it is asked for ten times as many.
        bursts: of so many.
        starts: processes started for each thing that one imports.
    """

    workloads: dict[str, Workload]
    rounds: int
    text_pairs: int
    op_products: tuple[tuple[int, int], ...]
    op_rows: tuple[int, ...]
    stages: tuple[Requests, ...]
    draft_curves: tuple[Requests, ...]
    draft_acceptances: tuple[float, ...]
    draft_lengths: tuple[int | None, ...]
    more_cases: bool
    callers: int
    latency_rounds: int
    queue: int
    bursts: int
    starts: int


FULL = Sizes(
    workloads={
        "rl-step": Workload(24, 8),
        "best-of-n": Workload(128, 8),
        "long": Workload(2, 3, response_tokens=(4096, 8192, 16384)),
        "stream": Workload(24, 8, rows_per_s=10.0),
    },
    rounds=3,
    text_pairs=1024,
    # Gate and up, qkv, down of Qwen3-0.6B; gate and up, down of the embedded model.
    op_products=((1024, 3072), (1024, 4096), (3072, 1024), (320, 1792), (896, 320)),
    op_rows=(1, 8, 32, 512),
    stages=(
        Requests("embedded", "cpu", 32, 240, 60, 33, batch=32, draft=8),
        Requests("qwen3-0.6b", "cpu", 2, 650, 160, 9, batch=2, draft=4, rounds=1),
        Requests("qwen3-0.6b", "cuda", 64, 650, 160, 65, batch=64, draft=4),
        Requests("qwen3-8b", "cuda", 64, 650, 160, 65, batch=64, draft=4),
    ),
    draft_curves=(
        Requests("embedded", "cpu", 8, 240, 60, 32, batch=1),
        Requests("embedded", "cpu", 8, 240, 60, 32, batch=8),
        Requests("embedded", "cpu", 32, 240, 60, 32, batch=32),
        Requests("qwen3-0.6b", "cpu", 2, 240, 60, 32, batch=1, rounds=1),
        Requests("qwen3-0.6b", "cpu", 8, 240, 60, 32, batch=8, rounds=1),
        Requests("qwen3-0.6b", "cuda", 2, 650, 160, 64, batch=1, rounds=1),
        Requests("qwen3-0.6b", "cuda", 32, 650, 160, 64, batch=32, rounds=1),
        Requests("qwen3-1.7b", "cuda", 2, 650, 160, 64, batch=1, rounds=1),
        Requests("qwen3-1.7b", "cuda", 32, 650, 160, 64, batch=32, rounds=1),
        Requests("qwen3-4b", "cuda", 2, 650, 160, 64, batch=1, rounds=1),
        Requests("qwen3-4b", "cuda", 32, 650, 160, 64, batch=32, rounds=1),
        Requests("qwen3-8b", "cuda", 2, 650, 160, 64, batch=1, rounds=1),
        Requests("qwen3-8b", "cuda", 32, 650, 160, 64, batch=32, rounds=1),
    ),
    draft_acceptances=(0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
    draft_lengths=(4, 16, None),
    more_cases=True,
    callers=64,
    latency_rounds=20,
    queue=64,
    bursts=10,
    starts=10,
)
QUICK = replace(
    FULL,
    workloads={
        "rl-step": Workload(4, 4),
        "best-of-n": Workload(6, 4),
        "long": Workload(1, 1, response_tokens=(4096,)),
        "stream": Workload(4, 8, rows_per_s=10.0),
    },
    rounds=1,
    text_pairs=256,
    op_products=FULL.op_products[:1] + FULL.op_products[3:4],
    op_rows=(1, 32),
    stages=tuple(replace(FULL.stages[i], rounds=1) for i in (0, 2)),
    draft_curves=tuple(replace(FULL.draft_curves[i], rounds=1) for i in (1, 6)),
    draft_acceptances=(0.0, 0.5, 1.0),
    draft_lengths=(4, None),
    more_cases=False,
    callers=16,
    latency_rounds=2,
    queue=8,
    bursts=2,
    starts=1,
)

# Which share of texts has at most how many words: instructions and responses of AlpacaEval, after
# which texts are made where none are at hand.
TEXT_SHARES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 1)
INSTRUCTION_WORDS = (3, 7, 12, 20, 43, 68, 97, 115, 246)
RESPONSE_WORDS = (1, 49, 98, 206, 315, 433, 536, 754, 3875)
# At most so many tokens of output, in the same shares: of the embedded model, direct style, whose
# outputs end at 128 tokens.
OUTPUT_TOKENS = (8, 12, 16, 20, 35, 41, 74, 128, 128)


@dataclass(frozen=True)
class Shape:
    """A model's shape.

    Attributes:
        model_type: as in config.json.
        config: its other fields.
    """

    model_type: str
    config: dict[str, Any]


def _shape(
    model_type: str, hidden: int, inner: int, layers: int, heads: tuple[int, int, int], **more: Any
) -> Shape:
    """Heads are those of queries, those of keys and values, and the size of each."""
    names = ("num_attention_heads", "num_key_value_heads", "head_dim")
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return Shape(model_type, {**sizes, **dict(zip(names, heads, strict=True)), **more})


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


_QWEN3 = {"vocab_size": 151936, "max_position_embeddings": 40960, **_rope(1e6)}
_LLAMA3 = {
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
_OLMO2 = {"vocab_size": 100352, "max_position_embeddings": 4096, **_rope(5e5)}
_TIED, _UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}

# The published configurations of models that the reward was published with, and Llama 3.1.
SHAPES = {
    "qwen3-0.6b": _shape("qwen3", 1024, 3072, 28, (16, 8, 128), **_QWEN3, **_TIED),
    "qwen3-1.7b": _shape("qwen3", 2048, 6144, 28, (16, 8, 128), **_QWEN3, **_TIED),
    "qwen3-4b": _shape("qwen3", 2560, 9728, 36, (32, 8, 128), **_QWEN3, **_TIED),
    "qwen3-8b": _shape("qwen3", 4096, 12288, 36, (32, 8, 128), **_QWEN3, **_UNTIED),
    "llama-3.2-1b": _shape("llama", 2048, 8192, 16, (32, 8, 64), **_LLAMA3, **_TIED),
    "llama-3.2-3b": _shape("llama", 3072, 8192, 28, (24, 8, 128), **_LLAMA3, **_TIED),
    "llama-3.1-8b": _shape("llama", 4096, 14336, 32, (32, 8, 128), **_LLAMA3, **_UNTIED),
    "olmo2-1b": _shape("olmo2", 2048, 8192, 16, (16, 16, 128), **_OLMO2, **_UNTIED),
    "olmo2-7b": _shape("olmo2", 4096, 11008, 32, (32, 32, 128), **_OLMO2, **_UNTIED),
    "gemma3-1b": _shape(
        "gemma3_text",
        1152,
        6912,
        26,
        (4, 1, 256),
        vocab_size=262144,
        max_position_embeddings=32768,
        sliding_window=512,
        query_pre_attn_scalar=256,
        **_TIED,
    ),
    "mistral-7b-v0.3": _shape(
        "mistral",
        4096,
        14336,
        32,
        (32, 8, 128),
        vocab_size=32768,
        max_position_embeddings=32768,
        sliding_window=None,
        **_rope(1e6),
        **_UNTIED,
    ),
    # The embedded model's, with room for long prompts.
    "tiny-32k": _shape(
        "qwen3",
        320,
        896,
        4,
        (6, 2, 64),
        vocab_size=4096,
        max_position_embeddings=32768,
        **_rope(1e4),
        **_TIED,
    ),
}

QWEN3 = tuple(name for name in SHAPES if name.startswith("qwen3"))
VOCABULARY = _QWEN3["vocab_size"]


def heads(name: str) -> tuple[int, int, int]:
    """Query heads, key heads and head size of a shape."""
    c = SHAPES[name].config
    return c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]


def products(name: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of a layer's products: qkv, output, gate and up, down."""
    c = SHAPES[name].config
    queries, keys, size = heads(name)
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    return [
        ((queries + 2 * keys) * size, hidden),
        (hidden, queries * size),
        (2 * inner, hidden),
        (hidden, inner),
    ]
