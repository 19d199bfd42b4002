"""Peers answer the same requests as our engine: what they are given and what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class PeerUnavailable(Exception):
    """A peer cannot run here; the message says why."""


@dataclass(frozen=True)
class Job:
    """What a peer gets ready for."""

    folder: str  # of the checkpoint, which has bfloat16 weights, or a GGUF file
    device: str  # "cpu", where peers compute in float32, or "cuda", in bfloat16
    n_rows: int  # requests of a call
    n_prompt: int  # tokens of the longest prompt
    n_new: int  # most new tokens of a request
    end_ids: tuple[int, ...]  # tokens that end an output; none leaves outputs to their length
    threads: int  # to compute with on a CPU
    n_shared: int | None = None  # tokens that all prompts begin with; None: as many as a call's do

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a GGUF file, on which engines compute as they do by default."""
        return self.folder.endswith(".gguf")

    @property
    def longest(self) -> int:
        """Tokens of the longest request, its output included."""
        return self.n_prompt + self.n_new

    @property
    def dtype(self) -> str:
        """What is computed in."""
        return "float32" if self.device == "cpu" else "bfloat16"


class Peer(Protocol):
    """An engine that is loaded for a job: a class whose argument that is."""

    version: str  # of its package
    settings: dict[str, Any]  # what it runs with, for the report

    def forget(self) -> None:
        """Drop prefixes and outputs that earlier calls left in caches; not timed."""

    def generate(
        self, prompts: Sequence[list[int]], max_new_tokens: int, **hints: Any
    ) -> list[list[int]]:
        """The new tokens of each prompt, greedily, up to an end token and without it.

        `hints` are what only some engines take, such as `drafts`.
        """

    def close(self) -> None:
        """Give its memory back."""


def until_end(output: Sequence[int], end_ids: Sequence[int]) -> list[int]:
    """An output up to its first end token."""
    end = next((i for i, token in enumerate(output) if token in end_ids), len(output))
    return [int(token) for token in output[:end]]


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, at most all but the last of the shortest."""
    length = min(map(len, prompts)) - 1
    columns = zip(*(prompt[:length] for prompt in prompts), strict=True)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), length)
