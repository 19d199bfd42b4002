"""LM head fused with arg-max, log-sum-exp and log-probability: logits never reach memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from flipfast_kernels.gemm import LinearConfig, pick_config
from flipfast_kernels.jit.lm_head import head_row_kernel, head_tile_kernel
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_integers,
    check_last_stride,
    check_range,
    check_shape,
    device_facts,
    power_of_two,
)

_MOST_TOKENS = 1 << 22  # one program holds a row's parts, and token ids are stored as float32


@dataclass(frozen=True)
class LmHead:
    """Results of `lm_head` for each row of logits.

    Attributes:
        best: (m,) int64, the first token with the largest logit; -1 for a row that has a NaN or
            whose largest logit is not finite. The row's other results are then NaN.
        best_logit: (m,) float32.
        logsumexp: (m,) float32; None if not requested.
        target_logprob: (m,) float32, log-probability of the row's target; None without targets.
    """

    best: torch.Tensor
    best_logit: torch.Tensor
    logsumexp: torch.Tensor | None = None
    target_logprob: torch.Tensor | None = None


def lm_head(
    x: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor | None = None,
    *,
    statistics: bool = False,
    softcap: float | None = None,
    out: LmHead | None = None,
    parts: torch.Tensor | None = None,
    config: LinearConfig | None = None,
    validate: bool = True,
) -> LmHead:
    """Arg-max, log-sum-exp and target log-probability of x @ weight.T, which is never written.

    A program computes one tile of the product with the instructions and the order of `linear`, so
    a logit has the bits that linear(x, weight) has in float32, and reduces it to three numbers per
    row; a second kernel combines each row's tiles (the log-sum-exp over parts as in Milakov and
    Gimelshein 2018). Exponentials are relative to the largest logit, whose own term is left out of
    the sum and added inside the logarithm, log(1 + rest): a log-probability near 0 keeps its
    relative precision. The tile width depends on the weight and the device alone, and a row is
    summed in one order: on compute capability 9 a row belongs to the same four threads in tiles of
    either height, elsewhere sums use a single tile height. So a row's results depend neither on
    the other rows nor on their number.

    The soft cap is monotonic, so the arg-max is taken of the uncapped logits, even where the cap
    rounds two of them to the same number.

    Work: 2 m V d operations; (V d + m d) numbers read, 12 m V / block_n bytes of parts written
    and read once; block_n is 128 from V = 4096 on. On an H200 (989 TFLOP/s dense bf16, 4.8 TB/s
    per the datasheet) bf16 takes at least max(2 m V d / 989e12, 2 V d / 4.8e12) seconds: with
    V = 151936 and d = 1024 that is 65 microseconds up to about 206 rows.

    Args:
        x: (m, d), bfloat16, float16 or float32; any row stride.
        weight: (V, d) of x's dtype, V from 1 to 4194304; any row stride.
        targets: (m,) int32 or int64, tokens whose log-probability to compute; None for none.
            Targets imply statistics.
        statistics: whether to compute the log-sum-exp.
        softcap: logits become softcap * tanh(logit / softcap); None for no cap.
        out: tensors to overwrite; None allocates them.
        parts: (at least `head_parts`,) float32, overwritten; None allocates it.
        config: None picks one. A row's bits are the same only for equal block_n, block_k and
            instruction.
        validate: check targets against V; on CUDA the host waits for that. Without it a target
            outside [0, V) gives NaN.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, a softcap that is not above
            0 and finite, a target outside [0, V).
    """
    n_rows, n_out, n_in = _check(x, weight, targets, softcap)
    statistics = statistics or targets is not None
    if out is None:
        out = _make_out(n_rows, x.device, statistics, targets is not None)
    _check_out(out, n_rows, statistics, targets is not None)
    if config is None:
        config = _pick(n_rows, n_out, x, statistics)
    n_tiles = -(-n_out // config.block_n)
    n_parts = (3 if statistics else 2) * n_rows * n_tiles
    if parts is None:
        parts = torch.empty(n_parts, dtype=torch.float32, device=x.device)
    _check_parts(parts, n_parts)
    results = {name: getattr(out, name) for name in out.__dataclass_fields__}
    check_device(head_tile_kernel, x=x, weight=weight, targets=targets, parts=parts, **results)
    if validate and targets is not None:
        check_range("targets", targets, 0, n_out)
    if n_rows == 0:
        return out
    cap = 1.0 if softcap is None else softcap
    flags = {
        "HAS_SUMS": statistics,
        "HAS_TARGETS": targets is not None,
        "HAS_CAP": softcap is not None,
    }
    head_tile_kernel[(-(-n_rows // config.block_m) * n_tiles,)](
        x,
        weight,
        targets,
        out.target_logprob,
        parts,
        n_rows,
        n_out,
        n_in,
        x.stride(0),
        weight.stride(0),
        cap,
        **flags,
        EVEN_K=n_in % config.block_k == 0,
        **config.launch_options(),
    )
    block = power_of_two(n_tiles)
    head_row_kernel[(n_rows,)](
        parts,
        targets,
        out.best,
        out.best_logit,
        out.logsumexp,
        out.target_logprob,
        n_rows,
        n_out,
        n_tiles,
        cap,
        **flags,
        BLOCK=block,
        enable_fp_fusion=False,
        num_warps=row_warps(block),
    )
    return out


def lm_head_ref(
    x: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor | None = None,
    *,
    statistics: bool = False,
    softcap: float | None = None,
) -> LmHead:
    """Reference for `lm_head`, from float64 logits."""
    logits = x.double() @ weight.double().T
    best_logit, best = logits.max(dim=1)
    bad = ~best_logit.isfinite()
    if softcap is not None:
        logits, best_logit = (softcap * (part / softcap).tanh() for part in (logits, best_logit))

    def kept(values: torch.Tensor) -> torch.Tensor:
        return values.masked_fill(bad, math.nan).float()

    out = {"best": best.masked_fill(bad, -1), "best_logit": kept(best_logit)}
    if statistics or targets is not None:
        out["logsumexp"] = kept(logits.logsumexp(dim=1))
    if targets is not None:
        at = targets.long()[:, None]
        out["target_logprob"] = kept(logits.log_softmax(dim=1).gather(1, at)[:, 0])
    return LmHead(**out)


def head_parts(n_rows: int, weight: torch.Tensor, statistics: bool) -> int:
    """Number of float32 values that `lm_head` needs for its parts.

    Args:
        n_rows: rows of x.
        weight: of the head.
        statistics: whether the log-sum-exp is computed.
    """
    n_out = len(weight)
    block_n = head_configs(n_out, weight.dtype, device_facts(weight.device)[0])[0].block_n
    return (3 if statistics else 2) * n_rows * -(-n_out // block_n)


def row_warps(block: int) -> int:
    """Warps of the program that combines a row's `block` parts."""
    return min(max(block // 256, 1), 16)


def head_configs(
    n_out: int, dtype: torch.dtype, capability: int
) -> tuple[LinearConfig, LinearConfig]:
    """The configuration for few rows and the one for many.

    Both reduce a row's columns alike: their tiles are equally wide, and a warp has equally many
    rows of them.

    Args:
        n_out: rows of the weight.
        dtype: of x and the weight.
        capability: the device's compute capability, 90 for 9.0.
    """
    if dtype == torch.float32:
        few = LinearConfig(32, 64, 16, 8, 4, 3)
        return few, few
    block_n = 128 if n_out >= 4096 else 64
    many = LinearConfig(128, block_n, 64, 8, 8, 3)
    if 100 <= capability < 120:
        # 64 and 128 rows use different instructions here, so there is one tile height.
        return many, many
    return LinearConfig(64, block_n, 64, 8, 4, 4 if capability == 90 else 3), many


def _pick(n_rows: int, n_out: int, x: torch.Tensor, statistics: bool) -> LinearConfig:
    """A single tile height where sums over columns may differ in order between heights."""
    capability, multiprocessors = device_facts(x.device)
    pair = head_configs(n_out, x.dtype, capability)
    if statistics and (capability != 90 or x.dtype == torch.float32):
        return pair[0]
    return pick_config(n_rows, n_out, pair, multiprocessors)


def _make_out(n_rows: int, device: torch.device, sums: bool, targets: bool) -> LmHead:
    def floats() -> torch.Tensor:
        return torch.empty(n_rows, dtype=torch.float32, device=device)

    best = torch.empty(n_rows, dtype=torch.int64, device=device)
    return LmHead(best, floats(), floats() if sums else None, floats() if targets else None)


def _check(
    x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor | None, softcap: float | None
) -> tuple[int, int, int]:
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dim() != 2:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected 2 dimensions")
        check_last_stride(name, tensor)
    check_float(x=x)
    if weight.dtype != x.dtype:
        raise ValueError(f"weight is {weight.dtype}, x {x.dtype}: they must be of one dtype")
    check_shape("weight", weight, (weight.shape[0], x.shape[1]))
    if not 0 < weight.shape[0] <= _MOST_TOKENS:
        raise ValueError(f"weight has {weight.shape[0]} rows: expected 1 to {_MOST_TOKENS}")
    if targets is not None:
        check_integers(targets=targets)
        check_shape("targets", targets, (x.shape[0],))
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"softcap is {softcap}: it must be above 0 and finite, or None")
    return x.shape[0], weight.shape[0], x.shape[1]


def _check_out(out: LmHead, n_rows: int, sums: bool, targets: bool) -> None:
    wanted = {"best": True, "best_logit": True, "logsumexp": sums, "target_logprob": targets}
    for name, is_wanted in wanted.items():
        tensor = getattr(out, name)
        if (tensor is not None) != is_wanted:
            raise ValueError(f"out.{name} is {'missing' if is_wanted else 'given in vain'}")
        if tensor is None:
            continue
        check_shape(f"out.{name}", tensor, (n_rows,))
        dtype = torch.int64 if name == "best" else torch.float32
        if tensor.dtype != dtype:
            raise ValueError(f"out.{name} is {tensor.dtype}: pass {dtype}")


def _check_parts(parts: torch.Tensor, least: int) -> None:
    if parts.dtype != torch.float32 or parts.dim() != 1 or not parts.is_contiguous():
        raise ValueError(
            f"parts is {parts.dtype} {tuple(parts.shape)} with strides {parts.stride()}: pass "
            "contiguous float32 in one dimension"
        )
    if parts.shape[0] < least:
        raise ValueError(f"parts has {parts.shape[0]} numbers: {least} are needed, see head_parts")
