"""Engines that answer the same requests as ours, each in a process of its own.

A peer is one file here with `load(job, **options) -> Peer`; PEERS names them.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Entry(NamedTuple):
    """A module of this package and the options that its `load` gets."""

    module: str
    options: dict[str, Any]


OURS = "flipfast"
PEERS = {
    OURS: Entry("native", {"deterministic": True}),
    "flipfast-fast": Entry("native", {"deterministic": False}),
    "transformers": Entry("transformers_generate", {}),
    "transformers-continuous": Entry("transformers_continuous", {}),
    "vllm": Entry("vllm", {}),
    "sglang": Entry("sglang", {}),
    "llama.cpp": Entry("llama_cpp", {}),
    "ctranslate2": Entry("ctranslate2", {}),
}
