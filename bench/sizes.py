"""What is benchmarked: workloads and sizes, all of them here; model shapes are in bench.shapes.

A suite takes its sizes from `FULL`, or from `QUICK` where pytest is given `--quick`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Workload:
    """Groups of responses to one instruction each, as a trainer or a search brings them."""

    n_groups: int
    n_responses: int  # of each group
    response_tokens: tuple[int, ...] = ()  # what responses are made as long as, in turns


@dataclass(frozen=True)
class Prescribed:
    """Requests of random tokens, each with its own prescribed output."""

    n: int
    n_prompt: int  # tokens of a prompt
    n_shared: int  # of these, at the start and common to all
    n_out: int  # tokens of an output


@dataclass(frozen=True)
class Scaling:
    """The points of scaling curves on a kind of device."""

    rounds: int  # sweeps over a curve
    shape: str  # of the model that writes prescribed outputs
    memory: float  # of that model's engine, see EngineOptions
    requests: Prescribed  # of a point, where nothing else is said
    batches: tuple[int, ...]  # rows in a call
    least_rows: int  # at a point, in as many calls as it takes
    lengths: tuple[int, ...]  # tokens of a response
    tokens: int  # of all responses of a length together, or a single response's
    models: tuple[str, ...]  # shapes


@dataclass(frozen=True)
class DraftCurves:
    """Curves against the share of drafted tokens that are right, for drafts of several lengths."""

    shape: str  # of the model, "embedded" is the embedded model
    device: str  # "cpu" or "cuda"
    batch: int  # sequences at a time
    requests: Prescribed  # what is written in each round
    lengths: tuple[int | None, ...] = (4, 16, None)  # None leaves it to the engine
    acceptances: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    rounds: int = 1

    def __str__(self) -> str:
        return f"{self.shape}-{self.device}-{self.batch}"


@dataclass(frozen=True)
class GgufLoad:
    """What engines do with GGUF files."""

    kinds: tuple[str, ...]  # types of a real model's layers
    workload: Workload
    max_response_tokens: int  # what is longer loses its middle
    n_new: int  # most tokens of an output
    alone: int  # rows that are scored one at a time
    random_kinds: tuple[str, ...]  # types of a larger shape's layers, with random weights
    prescribed: Prescribed  # for that shape


@dataclass(frozen=True)
class Sizes:
    """How much a run does."""

    workloads: dict[str, Workload]
    rounds: int  # of a benchmark of whole rewards
    text_pairs: int  # response and instruction, for the text core
    stream_shares: tuple[float, ...]  # of a batch's rewards/s, at which single rows arrive
    large_on_cpu: Workload  # scored by the shape of Qwen3-0.6B on a CPU
    scaling: dict[str, Scaling]  # for "cpu" and "cuda"
    drafting: tuple[DraftCurves, ...]
    peer_rows: int  # of an RL step, for peers
    peer_new_tokens: int  # most that any of them writes for one
    published_rows: int  # of these, for the published pipeline
    more_cases: bool  # every pair of options, every source of groups, and Ray
    callers: int  # that ask a server for a row at a time
    latency_rounds: int  # how often each of 32 rows is asked for, alone
    queue: int  # rows that a server takes at a time, where it is asked for ten times as many
    bursts: int  # of so many
    gguf: GgufLoad


_ON_CPU, _ON_CUDA = Prescribed(8, 240, 60, 32), Prescribed(32, 650, 160, 32)
_SCALING = {
    "cpu": Scaling(
        rounds=2,
        shape="tiny-32k",
        memory=1e9,
        requests=_ON_CPU,
        batches=(1, 4, 16, 64, 256, 1024),
        least_rows=64,
        lengths=(64, 256, 1024, 4096, 16384),
        tokens=16384,
        models=("embedded", "qwen3-0.6b"),
    ),
    "cuda": Scaling(
        rounds=1,
        shape="qwen3-0.6b",
        memory=0.4,
        requests=_ON_CUDA,
        batches=(1, 16, 256, 4096),
        least_rows=16,
        lengths=(64, 1024, 4096, 16384),
        tokens=2**17,
        models=(
            *("qwen3-0.6b", "qwen3-8b", "llama-3.1-8b", "qwen3-1.7b", "qwen3-4b"),
            *("mistral-7b-v0.3", "olmo2-7b", "gemma3-1b", "llama-3.2-3b", "llama-3.2-1b"),
            "olmo2-1b",
        ),
    ),
}
_FEW_ON_CPU = replace(
    _SCALING["cpu"],
    rounds=1,
    requests=replace(_ON_CPU, n=4),
    batches=(1, 4, 16),
    least_rows=4,
    lengths=(64, 512, 2048),
    tokens=2048,
    models=("embedded",),
)
_FEW_ON_CUDA = replace(_SCALING["cuda"], batches=(1, 16, 256), models=("qwen3-0.6b",))

_DRAFTED = replace(_ON_CUDA, n_out=64)
_SOME, _FEW = (0.0, 0.5, 0.9, 1.0), (0.0, 0.5, 1.0)  # shares of drafted tokens that are right

# 64 instructions with a response each: 16,272 tokens of prompts, the first 42 of each the same.
_GGUF = GgufLoad(
    kinds=("Q4_0", "Q4_1", "Q8_0"),
    workload=Workload(64, 1),
    max_response_tokens=256,
    n_new=48,
    alone=8,
    random_kinds=("Q4_0", "Q8_0"),
    prescribed=Prescribed(4, 254, 42, 24),
)
_FEW_GGUF = replace(
    _GGUF, kinds=("Q4_1",), workload=Workload(4, 1), n_new=8, alone=1, random_kinds=()
)

FULL = Sizes(
    workloads={
        "rl-step": Workload(24, 8),
        "long": Workload(2, 3, response_tokens=(4096, 8192, 16384)),
        "stream": Workload(24, 8),
    },
    rounds=3,
    text_pairs=1024,
    stream_shares=(0.25, 0.5, 0.8),
    large_on_cpu=Workload(2, 4),
    scaling=_SCALING,
    drafting=(
        *(
            DraftCurves("embedded", "cpu", n, replace(_ON_CPU, n=max(8, n)), rounds=3)
            for n in (1, 8, 32)
        ),
        *(DraftCurves("qwen3-0.6b", "cpu", n, replace(_ON_CPU, n=max(2, n))) for n in (1, 8)),
        DraftCurves("qwen3-0.6b", "cuda", 1, replace(_DRAFTED, n=2), (None,), _SOME),
        DraftCurves("qwen3-0.6b", "cuda", 32, _DRAFTED, (16, None), _SOME),
        DraftCurves("qwen3-8b", "cuda", 32, _ON_CUDA, (None,), _FEW),
    ),
    peer_rows=96,
    peer_new_tokens=128,
    published_rows=32,
    more_cases=True,
    callers=64,
    latency_rounds=20,
    queue=64,
    bursts=10,
    gguf=_GGUF,
)
QUICK = replace(
    FULL,
    workloads={
        "rl-step": Workload(4, 4),
        "long": Workload(1, 1, response_tokens=(4096,)),
        "stream": Workload(2, 8),
    },
    rounds=1,
    text_pairs=256,
    stream_shares=(0.5,),
    large_on_cpu=Workload(1, 2),
    scaling={"cpu": _FEW_ON_CPU, "cuda": _FEW_ON_CUDA},
    drafting=(
        DraftCurves("embedded", "cpu", 8, _ON_CPU, (None,), _FEW),
        DraftCurves("qwen3-0.6b", "cuda", 32, _DRAFTED, (None,), _FEW),
    ),
    more_cases=False,
    callers=16,
    latency_rounds=2,
    queue=8,
    bursts=1,
    peer_rows=8,
    peer_new_tokens=16,
    published_rows=2,
    gguf=_FEW_GGUF,
)

# What peers answer with random weights in the shape of a Qwen 3, by device.
PEER_LOADS = {"cpu": Prescribed(8, 650, 160, 32), "cuda": Prescribed(256, 650, 160, 100)}

# Which share of texts has at most how many words: instructions and responses of AlpacaEval, after
# which texts are made where none are at hand.
TEXT_SHARES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 1)
INSTRUCTION_WORDS = (3, 7, 12, 20, 43, 68, 97, 115, 246)
RESPONSE_WORDS = (1, 49, 98, 206, 315, 433, 536, 754, 3875)
# At most so many tokens of output, in the same shares: of the embedded model, direct style, whose
# outputs end at 128 tokens.
OUTPUT_TOKENS = (8, 12, 16, 20, 35, 41, 74, 128, 128)
