"""`flipfast info`: shows versions, devices, and what each optional part needs."""

from __future__ import annotations

import platform
from importlib import metadata

from rich.console import Console
from rich.table import Table

_REQUIRED = ("flipfast", "torch", "transformers", "tokenizers", "safetensors", "numpy")
# Package, its purpose, what to install.
_OPTIONAL = (
    ("triton", "GPU kernels; comes with torch's CUDA builds", "triton"),
    ("flash-attn", "FlashAttention on CUDA", "flipfast[flash]"),
    ("trl", "GRPO training with TRL", "flipfast[trl]"),
    ("ray", "serving on several machines", "flipfast[ray]"),
    ("fastapi", "the HTTP server", "flipfast[serve]"),
    ("vllm", "vLLM as a peer", "flipfast[vllm]"),
    ("pytest-benchmark", "the benchmarks", "flipfast[bench]"),
)


def show_info() -> None:
    """Print the tables."""
    from flipfast.engine.attention import available_attention
    from flipfast.engine.models.families import available_families
    from flipfast.scoring.assembly import GET_SMALL, small_base

    console = Console(highlight=False)
    versions = Table("package", "version", title="Versions")
    versions.add_row("python", platform.python_version())
    for name in _REQUIRED:
        versions.add_row(name, _version(name) or "missing")
    console.print(versions)
    console.print(f"text core: {_text_core()}")
    families, attention = ", ".join(available_families()), ", ".join(available_attention())
    console.print(f"model families of the native engine: {families}", soft_wrap=True)
    console.print(f"attention backends: {attention}", soft_wrap=True)
    base = small_base() or f"not installed; {GET_SMALL}"
    console.print(f"model small: on SmolLM2-135M-Instruct, {base}", soft_wrap=True)
    for line in _devices():
        console.print(f"device: {line}")
    optional = Table("package", "version", "for", "install with", title="Optional parts")
    for name, purpose, requirement in _OPTIONAL:
        version = _version(name)
        hint = "" if version else f"pip install '{requirement}'"
        optional.add_row(name, version or "not installed", purpose, hint)
    console.print(optional, markup=False)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text_core() -> str:
    from flipfast.metrics.word_f1 import CORE_AVAILABLE

    return "C++ (flipfast._core)" if CORE_AVAILABLE else "pure Python; the extension is missing"


def _devices() -> list[str]:
    import torch

    from flipfast.engine.ops.cpu import instruction_set

    lines = [f"cpu, {torch.get_num_threads()} threads, kernels for {instruction_set()}"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        lines.append(f"cuda:{index} {properties.name}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
    return lines if len(lines) > 1 else [*lines, "no CUDA device"]
