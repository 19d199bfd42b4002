"""The variants of kernels that runs launch.

A variant is a kernel with its constants and with what Triton asks of every other argument: its
type, and whether it is 1 or divisible by 16. Engines load, and with that launch all that they will
ever launch, on a device that is none: nothing is compiled, and nothing runs. Widths are those of
real models; there are two layers, and nobody writes the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import triton
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

from bench.gpu.rehearsal import pretend
from bench.shapes import SHAPES, Shape

MODELS = {name: shape for name, shape in SHAPES.items() if name[:5] in ("qwen3", "llama", "olmo2")}
MODELS["gemma3-1b"] = SHAPES["gemma3-1b"]
SMALLEST = "qwen3-0.6b"
# Runs by compute capability, in groups for processes of their own: all for 9.0, else a selection.
RUNS = [(90, [*MODELS][::2]), (90, [*MODELS][1::2]), (80, [SMALLEST]), (100, [SMALLEST])]
RUNS += [(sm, ["fp8"]) for sm in (89, 90, 100)]  # 8.9 is the first that multiplies these
FEW = {"num_hidden_layers": 2, "max_position_embeddings": 16384}
BOTH_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
VOCABULARY = [b"soil", b" the", b'"', b"{", b"}", b":"]

_DONE = SimpleNamespace(
    launch_metadata=lambda *_: None, run=lambda *_: None, function=None, packed_metadata=None
)


class Variant(NamedTuple):
    """A kernel, and what Triton compiles it for, in JSON as its `preload` reads it."""

    module: str
    kernel: str
    data: str


def noted() -> dict[tuple[str, str], Variant]:
    """The variants that Triton is asked for from now on, none of which it compiles."""
    found: dict[tuple[str, str], Variant] = {}

    def note(*, key: Any, fn: Any, compile: dict[str, Any], **_: Any) -> None:
        found[fn.name, str(key)] = Variant(fn.module, fn.name, compile["specialization_data"])
        fn.jit_function.compile = lambda *_, **__: _DONE

    triton.knobs.runtime.jit_cache_hook = note
    return found


def launched(sm: int, models: Sequence[str]) -> list[Variant]:
    """What runs of these models launch at this compute capability, 90 for 9.0.

    Call it in a process of its own.
    """
    pretend(compiles=True, capability=sm)
    found = noted()
    if models == ["fp8"]:
        _load_fp8()
        types = ("*fp8e4nv", "<fp8e4nv")  # of a pointer, of a tensor descriptor
        return [one for one in found.values() if any(each in one.data for each in types)]
    for name in models:
        _load(MODELS[name])
    if sm == 90 and SMALLEST in models:
        _load(MODELS[SMALLEST], dtype="float32")
    _score()
    _launch_others(sm)
    return list(found.values())


def _load_fp8() -> None:
    """Load engines whose 8-bit weights have scales of rows, and of groups."""
    from flipfast.engine.ops.blocks import FP8_GROUPS

    for name in (SMALLEST, "qwen3-8b"):
        _load(MODELS[name], weights="fp8")
        _load(MODELS[name], SimpleNamespace(get=lambda *_: FP8_GROUPS))


def _load(shape: Shape, kinds: Any = None, **options: Any) -> None:
    """Load an engine, which runs all kinds of steps."""
    from flipfast.engine import model_runner
    from flipfast.engine.loading import load_engine
    from flipfast.engine.models.decoder import Decoder
    from flipfast.engine.models.families import read_spec
    from flipfast.engine.options import EngineOptions

    Decoder.load = lambda *_: None
    model_runner.sample = lambda _, best, __: best  # torch's, and slow
    kind = shape.model_type
    few = FEW | (BOTH_KINDS if shape.config.get("sliding_window") else {})
    config = AutoConfig.for_model(kind, **{**shape.config, **few}).to_dict()
    spec = read_spec({**config, "architectures": [CLASSES[kind]]})
    checkpoint = SimpleNamespace(source=kind, dtype=torch.bfloat16, kinds=kinds or {}, tensors=dict)
    engine = EngineOptions(device="cuda", memory=2e9, **options)
    load_engine(spec, checkpoint, engine, end_ids=frozenset({1}))


def _score() -> None:
    """Score outputs where they are, of usual lengths."""
    from flipfast.parsing.token_spans import span_automaton
    from flipfast.scoring.device_scoring import DeviceScorer
    from flipfast_kernels.word_tables import build_token_table

    table = build_token_table(VOCABULARY)
    scorer = DeviceScorer(None, table, span_automaton(VOCABULARY, "robust"))
    for longest in (60, 512):
        scorer.warm_up(longest)


def _launch_others(sm: int) -> None:
    """Launch what no engine does, through the functions of the package."""
    from flipfast_kernels.acceptance import accept_tokens
    from flipfast_kernels.kv_cache import write_kv
    from flipfast_kernels.overlap_f1 import overlap_f1

    def zeros(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="cuda")

    slots = zeros(16, dtype=torch.int64)
    pages = zeros(32, 16, 8, 128)
    write_kv(zeros(16, 8, 128), zeros(16, 8, 128), pages, pages, slots, validate=False)
    accept_tokens(
        slots,
        slots,
        zeros(2, dtype=torch.int32),
        max_positions=16,
        draft_probs=zeros(16, dtype=torch.float32),
        uniforms=zeros(16, dtype=torch.float64),
        end_ids=slots,
        budgets=zeros(1, dtype=torch.int32),
        validate=False,
    )
    usual = torch.int32
    rows = [(64, usual), (32, torch.int64), (1024, usual), (4096, usual)]
    if sm == 90:  # alone: compiling it takes half a minute
        rows.append((64, torch.int64))
    for n_ids, dtype in rows:
        ids = zeros(16 * n_ids, dtype=dtype)
        offsets = torch.arange(17, dtype=torch.int32) * n_ids
        overlap_f1(ids, offsets, ids, offsets)
