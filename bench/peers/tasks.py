"""The requests that engines are compared on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from bench.models import EMBEDDED, random_requests, save_random_model
from bench.peers.base import Job
from bench.shapes import SHAPES
from bench.sizes import Prescribed
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import get_template


@dataclass(frozen=True)
class Task:
    """Requests and what answers them.

    Attributes:
        name: of the group of benchmarks.
        job: what engines get ready for.
        prompts: token ids.
        rounds: of each peer.
    """

    name: str
    job: Job
    prompts: list[list[int]]
    rounds: int

    @property
    def facts(self) -> dict[str, object]:
        """What a report needs to know of it."""
        return {
            "dtype": self.job.dtype,
            "n_rows": len(self.prompts),
            "prompt_tokens": sum(map(len, self.prompts)),
            "max_new_tokens": self.job.n_new,
        }


def embedded_job(n_rows: int, n_new: int) -> Job:
    """The embedded inverter with prompts of up to its whole context."""
    config = embedded_config()
    n_prompt = config["max_position_embeddings"] - n_new
    ends = (config["eos_token_id"],)
    return Job(str(EMBEDDED), "cpu", n_rows, n_prompt, n_new, ends, torch.get_num_threads())


def embedded_task(responses: list[str], n_new: int, rounds: int) -> Task:
    """The embedded inverter's own prompts for responses."""
    job, made_for = embedded_job(len(responses), n_new), embedded_config()["flipfast"]
    renderer = PromptRenderer(
        AutoTokenizer.from_pretrained(EMBEDDED),
        get_template(made_for["style"]),
        thinking=False,
        max_prompt_tokens=job.n_prompt,
        max_response_tokens=made_for["max_response_tokens"],
    )
    prompts = [renderer.render(response).token_ids for response in responses]
    job = replace(job, n_prompt=max(map(len, prompts)))
    return Task("peers: embedded, rl-step", job, prompts, rounds)


def random_task(shape: str, device: str, load: Prescribed, folder: Path) -> Task:
    """Random tokens for random weights, which are written to a folder."""
    save_random_model(folder, shape, device)
    if device == "cuda":
        torch.cuda.empty_cache()  # the engines are in other processes
    vocab = SHAPES[shape].config["vocab_size"]
    requests = random_requests(load.n, n_prompt=load.n_prompt, n_shared=load.n_shared, vocab=vocab)
    prompts = [list(request.prompt_ids) for request in requests]
    threads = torch.get_num_threads()
    job = Job(str(folder), device, load.n, load.n_prompt, load.n_out, (), threads)
    return Task(f"peers: {shape}, {device}", job, prompts, rounds=1)


def embedded_config() -> dict[str, Any]:
    """What the embedded inverter's config.json has."""
    return dict(json.loads((EMBEDDED / "config.json").read_text("utf-8")))
