"""Builds an engine from a model's specification, checkpoint and options."""

from __future__ import annotations

import torch

from flipfast.engine.attention import AttentionBackend, AttentionShape, load_attention
from flipfast.engine.cuda_graphs import CudaRecorder
from flipfast.engine.drafting import Drafting
from flipfast.engine.engine import Engine
from flipfast.engine.keep import FusedKeep, Keep
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.model_runner import ModelRunner
from flipfast.engine.models.checkpoint import Checkpoint
from flipfast.engine.models.decoder import Decoder
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.models.workspace import logits_bytes, workspace_bytes
from flipfast.engine.ops.base import Ops
from flipfast.engine.ops.torch_ops import TorchOps, plain_product
from flipfast.engine.options import DTYPES, EngineOptions, n_pages, resolve_device
from flipfast.engine.prefix_cache import PrefixCache
from flipfast.engine.sampler import sampling_bytes
from flipfast.engine.scheduler import Scheduler
from flipfast.errors import ConfigError, MissingDependencyError, ModelLoadError


def load_engine(
    spec: DecoderSpec,
    checkpoint: Checkpoint,
    options: EngineOptions,
    *,
    end_ids: frozenset[int],
    repetition_penalty: float = 1.0,
) -> LoadedModel:
    """Load the weights, allocate the pages and build the engine.

    Args:
        spec, checkpoint: from `read_model`.
        options: of the engine.
        end_ids: token ids that end an output.
        repetition_penalty: 1.0 for none.

    Raises:
        ConfigError: an option that cannot be used, here or with this model.
        MissingDependencyError: an option needs a package that cannot be imported.
        ModelLoadError: the checkpoint is broken, or does not fit in memory.
        UnsupportedModelError: the device is neither CPU nor CUDA.
    """
    device = _device(options.device)
    ops = _ops(device, options)
    attention = _attention(spec, ops, options)
    max_seqs, max_tokens = options.seqs(device), options.tokens(device)
    try:
        decoder = Decoder(
            spec,
            ops,
            attention,
            max_tokens=max_tokens,
            max_logit_rows=max_seqs,
            source_dtype=checkpoint.dtype,
            kinds=checkpoint.kinds,
        )
        decoder.load(checkpoint.tensors(), checkpoint.source)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelLoadError(
            f"the weights in {checkpoint.source} do not fit on {device} ({error}); "
            "another device, a smaller dtype or a smaller model may help"
        ) from error
    pages = _n_pages(spec, ops, attention, options, repetition_penalty)
    # A repetition penalty depends on the previous tokens, which a draft only guesses.
    drafts = options.drafting and repetition_penalty == 1.0
    runner = ModelRunner(
        decoder,
        ops,
        attention,
        n_pages=pages,
        max_seqs=max_seqs,
        keep=_keep(device),
        repetition_penalty=repetition_penalty,
        drafts=drafts,
        recorder=CudaRecorder if device.type == "cuda" and options.cuda_graphs else None,
    )
    if device.type == "cuda":
        runner.warm_up(max_tokens)
    cache = PrefixCache(
        pages,
        attention.page_size,
        enabled=options.prefix_cache,
        copies_pins=device.type == "cpu",
    )
    scheduler = Scheduler(
        cache,
        max_seqs=max_seqs,
        max_tokens=max_tokens,
        groups=device.type == "cuda" and options.cuda_graphs,
    )
    overlap = device.type == "cuda"
    drafting = Drafting(overlap=overlap) if drafts else None
    engine = Engine(runner, scheduler, end_ids=end_ids, overlap=overlap, drafting=drafting)
    return LoadedModel(engine, runner, checkpoint)


def _device(name: str | None) -> torch.device:
    device = resolve_device(name)
    if device.type not in ("cpu", "cuda"):
        raise UnsupportedModelError(f"the native engine runs on 'cpu' and 'cuda', not on {name!r}")
    return device


def _ops(device: torch.device, options: EngineOptions) -> Ops:
    if options.dtype is not None and options.dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise ConfigError(f"unknown dtype {options.dtype!r}; use one of: {known}")
    dtype = DTYPES[options.dtype] if options.dtype else None
    if device.type == "cpu":
        if options.weights == "fp8":
            raise ConfigError(
                "weights='fp8' is for CUDA, not for the CPU: use 'int8', or leave weights at None"
            )
        from flipfast.engine.ops.cpu import CpuOps, best_weight_dtype
        from flipfast.engine.ops.cpu_plain import PlainProductOps

        kind = CpuOps if options.deterministic else PlainProductOps
        return kind(dtype or best_weight_dtype(), weights=options.weights)
    if options.weights in ("int8", "int4"):
        raise ConfigError(
            f"weights={options.weights!r} is for the CPU, not for {device}: set device='cpu', or "
            "leave weights at None"
        )
    capability = torch.cuda.get_device_capability(device)
    multiplies_fp8 = capability >= (8, 9)
    if options.weights == "fp8" and not multiplies_fp8:
        raise ConfigError(
            f"weights='fp8' needs compute capability 8.9 or newer, and {device} has "
            f"{'.'.join(map(str, capability))}: leave weights at None"
        )
    dtype = dtype or torch.bfloat16
    try:
        from flipfast.engine.ops.triton_ops import TritonOps
    except ImportError as error:
        if not options.deterministic and options.weights != "fp8":
            return TorchOps(device, dtype)
        wanted = "deterministic=True" if options.deterministic else "weights='fp8'"
        raise MissingDependencyError(
            f"{wanted} on {device} needs triton, which cannot be imported ({error}); "
            "install it with pip, or set deterministic=False and leave weights at None"
        ) from error
    fp8 = {"fp8": "all", "float": ""}.get(options.weights or "", "kept" if multiplies_fp8 else "")
    if options.deterministic:
        return TritonOps(device, dtype, fp8=fp8)
    return TritonOps(device, dtype, plain_product, fp8)


def _keep(device: torch.device) -> Keep:
    if device.type == "cuda":
        try:
            return FusedKeep()
        except ImportError:  # no Triton
            pass
    return Keep()


def _attention(spec: DecoderSpec, ops: Ops, options: EngineOptions) -> AttentionBackend:
    shape = AttentionShape(
        n_heads=spec.n_heads,
        n_kv_heads=spec.n_kv_heads,
        head_dim=spec.head_dim,
        dtype=ops.weight_dtype,
        device=ops.device,
        softcap=spec.attention_softcap is not None,
    )
    return load_attention(options.attention, shape, batch_invariant=options.deterministic)


def _n_pages(
    spec: DecoderSpec,
    ops: Ops,
    attention: AttentionBackend,
    options: EngineOptions,
    repetition_penalty: float,
) -> int:
    seqs, tokens = options.seqs(ops.device), options.tokens(ops.device)
    # The workspace is already allocated, so free memory excludes it; a budget in bytes does not.
    fixed = sampling_bytes(spec.vocab_size) + logits_bytes(spec, ops, seqs)
    fixed += ops.scratch_bytes(tokens, max(spec.hidden_size, spec.n_heads * spec.head_dim))
    fixed += seqs * attention.page_bytes()  # buffer for page copies from leaders to followers
    if repetition_penalty != 1.0:
        fixed += seqs * spec.vocab_size
    if options.memory is not None and options.memory > 1:
        fixed += workspace_bytes(spec, ops, tokens)
    pages_a_seq = -(-spec.max_positions // attention.page_size)
    return n_pages(
        options.budget(ops.device),
        fixed=fixed,
        page=attention.page_bytes() * len(spec.layers),
        wanted=1 + seqs * pages_a_seq,
    )
