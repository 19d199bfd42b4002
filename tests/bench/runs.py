"""Small runs made by hand, in the form that pytest-benchmark writes them."""

from __future__ import annotations

from typing import Any

HOSTILE = '<script src="http://example.org/x.js">&"\'|`$'
CPU = {"device": "Test CPU, AVX512", "threads": 2, "commit": "abc123", "torch": "2.13.0"}
CUDA = {**CPU, "device": "Test GPU"}


def row(suite: str, name: str, group: str | None, **info: Any) -> dict[str, Any]:
    """A benchmark on the CPU; `info` goes over its conditions."""
    return {
        "fullname": f"bench/bench_{suite}.py::bench_{name}",
        "name": f"bench_{name}",
        "group": group,
        "extra_info": {**CPU, **info},
        "stats": {"min": 0.25, "median": 0.5125, "data": [0.25, 0.775]},
    }


def stage(name: str, share: float, *, work: float | None = None) -> dict[str, Any]:
    """A stage of a run of two seconds."""
    flops = None if work is None else 10 * work
    floor = None if work is None else 0.4321
    known = {"bytes": work, "flops": flops, "floor_share": floor}
    return {"name": name, "seconds": 2 * share, "share": share, **known}


def run(*rows: dict[str, Any], skipped: Any = (), sizes: str = "full") -> dict[str, Any]:
    """A run of some benchmarks."""
    return {
        "benchmarks": list(rows),
        "skipped": list(skipped),
        "datetime": "2026-01-02T03:04:05",
        "version": "5.3.1",
        "machine_info": {"sizes": sizes},
    }


def profile(name: str, kind: str, *stages: dict[str, Any], **info: Any) -> dict[str, Any]:
    """The stages of a workload."""
    rates = {"copy_gb_per_s": 12.25, "product_gflop_per_s": 345.5, "dtype": "float32"}
    known = {"profile": name, "model": "embedded", "kind": kind, "stages": list(stages)}
    return row(
        "profile", f"stages[{name}-{kind}]", f"stages on {kind}", **{**rates, **known, **info}
    )


def full_run() -> dict[str, Any]:
    """One benchmark at least of every kind of figure, one of them with a hostile name."""
    points = [{"batch": b, "rewards_per_s": 7.5 * b, "more": 1.0} for b in (1, 8, 64)]
    curve = {"curve": points, "x_name": "batch", "y_name": "rewards_per_s"}
    drafts = [{"acceptance": a, "speed": 0.9 + a} for a in (0.0, 0.5)]
    both = {"x_name": "acceptance", "y_name": "speed"}
    cpu = [
        stage("product 1792 x 320 (gate and up)", 0.41, work=2e9),
        stage("attention", 0.31, work=1e9),
        stage("step, rest", 0.17),
        stage("prompts", 0.11),
    ]
    cuda = [stage("wait for tokens", 0.9), stage("fused_argmax", 0.61, work=3e9)]
    return run(
        row("text_core", "core[threads=1]", None, pairs_per_s=309876),
        row("rewards", "direct[rl-step]", "rl-step", style="direct", rewards_per_s=43.21),
        row(
            "rewards",
            "large",
            "long, qwen3-8b",
            **CUDA,
            shape="qwen3-8b",
            rewards_per_s=98.7,
            tokens_per_s=65432.1,
        ),
        row("peers", "generate", "rl-step", peer="transformers", rewards_per_s=12.34),
        row("kernels_gpu", "gemm[1]", "gemm", **CUDA, tflop_per_s=12.5, gb_per_s=3210.5),
        row("kernels_gpu", "gemm[2]", "gemm", **CUDA, speed_over_cublas=0.75, us=3.5),
        row("kernels_gpu", "gemm[3]", "gemm", **CUDA, speed_over_cublas=0.95, us=4.5),
        row(
            "text_core",
            f"peer[{HOSTILE}]",
            HOSTILE,
            flipfast_speedup=45.25,
            settings={"a": HOSTILE},
        ),
        row("cpu_ops", "product", "product", gflop_per_s=123.5, mbytes=1.5),
        row("scaling", "batch", "rewards/s against batch", series="tiny", **curve),
        row("drafting", "curve[4]", "embedded-cpu-1", series="draft 4", curve=drafts, **both),
        row(
            "workloads", "stream[0.5]", "stream", p50_ms=12.5, p90_ms=34.5, p99_ms=56.75, rate=8.125
        ),
        row("fewer_steps", "groups", "workload", first={"passes": 9.75}, memory_mib=[111, 222]),
        profile("rl-step", "cpu", *cpu),
        profile("long", "cuda", *cuda, **CUDA),
        skipped=[{"name": "bench_vllm", "reason": f"vLLM is not installed {HOSTILE}"}],
    )
