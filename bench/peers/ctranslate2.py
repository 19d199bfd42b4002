"""CTranslate2, on the checkpoint as its own converter writes it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.converters import TransformersConverter

from bench.peers.base import Job, shared_length, until_end


class Ctranslate2:
    """A generator with a thread a row, as its manual has it for throughput.

    Batches have one row: it runs rows of unequal lengths token by token from where the shortest
    prompt ends, and 16 such rows take longer together than one after the other.
    """

    def __init__(self, job: Job, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.version = ctranslate2.__version__
        self.settings: dict[str, Any] = {
            "compute_type": "float32",
            "inter_threads": job.threads,
            "intra_threads": 1,
            "max_batch_size": 1,
            "static_prompt": "what all prompts begin with, kept between calls",
        }
        self._job, self._folder = job, folder  # which is gone when nobody holds it any more
        self._names = json.loads(Path(folder.name, "vocabulary.json").read_text("utf-8"))
        self._generator: Any = ctranslate2.Generator(
            folder.name,
            device="cpu",
            compute_type="float32",
            inter_threads=job.threads,
            intra_threads=1,
        )

    def forget(self) -> None:
        pass

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        n_shared = shared_length(prompts)
        results = self._generator.generate_batch(
            [self._tokens(prompt[n_shared:]) for prompt in prompts],
            static_prompt=self._tokens(prompts[0][:n_shared]) or None,
            max_batch_size=1,
            beam_size=1,
            sampling_topk=1,
            max_length=max_new_tokens,
            min_length=0 if self._job.end_ids else max_new_tokens,
            end_token=list(self._job.end_ids) or None,
            include_prompt_in_result=False,
        )
        return [until_end(result.sequences_ids[0], self._job.end_ids) for result in results]

    def close(self) -> None:
        self._generator.unload_model()

    def _tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._names[token] for token in ids]


def load(job: Job) -> Ctranslate2:
    """Convert the checkpoint and load it."""
    folder = tempfile.TemporaryDirectory(prefix="ctranslate2-")
    TransformersConverter(job.folder).convert(
        str(Path(folder.name)), quantization="float32", force=True
    )
    return Ctranslate2(job, folder)
