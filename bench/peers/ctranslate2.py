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

    def __init__(self, job: Job) -> None:
        self.version = ctranslate2.__version__
        threads = {"inter_threads": job.threads, "intra_threads": 1}
        self.settings: dict[str, Any] = {
            "compute_type": "float32",
            **threads,
            "max_batch_size": 1,
            "static_prompt": "what all prompts begin with, kept between calls",
        }
        self._end_ids = list(job.end_ids)
        with tempfile.TemporaryDirectory(prefix="ctranslate2-") as folder:
            TransformersConverter(job.folder).convert(folder, quantization="float32", force=True)
            self._names = json.loads(Path(folder, "vocabulary.json").read_text("utf-8"))
            self._generator: Any = ctranslate2.Generator(
                folder, device="cpu", compute_type="float32", **threads
            )
        self.close = self._generator.unload_model

    def forget(self) -> None:
        pass

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        n_shared = shared_length(prompts)
        names = [[self._names[token] for token in prompt] for prompt in prompts]
        results = self._generator.generate_batch(
            [prompt[n_shared:] for prompt in names],
            static_prompt=names[0][:n_shared] or None,
            max_batch_size=1,
            beam_size=1,
            sampling_topk=1,
            max_length=max_new_tokens,
            min_length=0 if self._end_ids else max_new_tokens,
            end_token=self._end_ids or None,
            include_prompt_in_result=False,
        )
        return [until_end(result.sequences_ids[0], self._end_ids) for result in results]
