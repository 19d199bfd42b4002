"""transformers' `generate` on batches of prompts of like lengths, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from bench.peers.base import Job, until_end

_ROWS = {"cpu": 16, "cuda": 256}


class Generate:
    """A model of transformers, and the batches it is given.

    Args:
        job: what for.
        rows: of a batch; None takes what suits the device.
    """

    def __init__(self, job: Job, rows: int | None = None) -> None:
        self.version = transformers.__version__
        rows = min(rows or _ROWS[job.device], job.n_rows)
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "attention": "sdpa",
            "batch": rows,
            "order": "by length",
            "padding": "left",
        }
        self._job, self._rows = job, rows
        self._model: Any = load_model(job, "sdpa")

    def forget(self) -> None:
        pass

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), self._rows):
            part = order[start : start + self._rows]
            found.update(
                zip(part, self._run([prompts[i] for i in part], max_new_tokens), strict=True)
            )
        return [found[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _run(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        config = generation_config(self._job, max_new_tokens)
        device = self._job.device
        rows = self._model.generate(
            ids.to(device), attention_mask=mask.to(device), generation_config=config
        )
        return [until_end(row, self._job.end_ids) for row in rows[:, longest:].tolist()]

    def close(self) -> None:
        self._model = None


def load_model(job: Job, attention: str) -> Any:
    """The checkpoint as transformers has it, without its own generation config."""
    torch.set_num_threads(job.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job.folder, dtype=job.dtype, attn_implementation=attention
    )
    model.generation_config = transformers.GenerationConfig()
    return model.to(job.device).eval()


def generation_config(job: Job, max_new_tokens: int) -> transformers.GenerationConfig:
    """Greedy, with the job's end tokens."""
    return transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(job.end_ids) or -1,
        pad_token_id=0,
    )


def load(job: Job) -> Generate:
    """Load the model."""
    return Generate(job)
