"""transformers: `generate`, continuous batching, and the published pipeline on top of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.generation import ContinuousBatchingConfig
from transformers.generation.continuous_batching.utils import WorkloadHints

from bench.peers.base import Job, until_end
from flipfast.config import FlipConfig
from flipfast.metrics.word_f1_py import word_f1
from flipfast.parsing.reference import parse_reference
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import PromptTemplate

_ROWS = {"cpu": 16, "cuda": 256}
_MEMORY_SHARES = {"cpu": 0.3, "cuda": 0.8}  # of what is free, for the cache of continuous batching


def load_model(job: Job) -> Any:
    """The checkpoint as transformers has it, without its own generation config."""
    torch.set_num_threads(job.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job.folder, dtype=job.dtype, attn_implementation="sdpa"
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


class Generate:
    """`generate` on batches of prompts of like lengths, padded on the left."""

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
        self._model: Any = load_model(job)

    def forget(self) -> None:
        pass

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), self._rows):
            part = order[start : start + self._rows]
            outputs = self._run([prompts[i] for i in part], max_new_tokens)
            found.update(zip(part, outputs, strict=True))
        return [found[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _run(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        config, device = generation_config(self._job, max_new_tokens), self._job.device
        rows = self._model.generate(
            ids.to(device), attention_mask=mask.to(device), generation_config=config
        )
        return [until_end(row, self._job.end_ids) for row in rows[:, longest:].tolist()]

    def close(self) -> None:
        self._model = None


class Continuous:
    """`generate_batch` without its set-up: a manager that knows no prefix, anew for each call.

    `generate_batch` makes one in each call, CUDA graphs included, or keeps it with all prefixes.
    """

    def __init__(self, job: Job) -> None:
        self.version = transformers.__version__
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "attention": "paged flash attention where it is installed, else paged sdpa",
            "allow_block_sharing": True,
            "max_memory_percent": _MEMORY_SHARES[job.device],
            "sizes and CUDA graphs": "what it infers from the workload",
        }
        self._job = job
        self._model: Any = load_model(job)
        self._manager: Any = None

    def forget(self) -> None:
        self.close()
        share, job = _MEMORY_SHARES[self._job.device], self._job
        self._manager = self._model.init_continuous_batching(
            generation_config=generation_config(job, job.n_new),
            continuous_batching_config=ContinuousBatchingConfig(max_memory_percent=share),
            workload_hints=WorkloadHints(job.n_prompt, job.n_new, job.n_rows),
        )
        self._manager.warmup()
        self._manager.start()

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        ids = self._manager.add_requests(inputs=list(prompts), max_new_tokens=max_new_tokens)
        found: dict[str, Any] = {}
        while len(found) < len(ids):
            result = self._manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                found[result.request_id] = result
            elif result is None and not self._manager.is_running():
                raise RuntimeError(f"it stopped with {len(found)} of {len(ids)} requests done")
        errors = [result.error for result in found.values() if result.error is not None]
        assert not errors, errors[0]
        return [until_end(found[i].generated_tokens, self._job.end_ids) for i in ids]

    def close(self) -> None:
        if self._manager is not None:
            self._manager.stop(block=True)
            self._manager.destroy()
            self._manager = None


class PublishedPipeline:
    """What the published script does, with its HTTP call left out; parser and F1 are bit-equal."""

    def __init__(self, job: Job, template: PromptTemplate, max_response_tokens: int) -> None:
        self._model, self._n_new = Generate(job, rows=1), job.n_new
        self.version = self._model.version
        self.settings = {**self._model.settings, "parser": "reference", "f1": "Python"}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(job.folder)
        self._renderer = PromptRenderer(
            self._tokenizer,
            template,
            date=FlipConfig.prompt_date,
            thinking=False,
            max_prompt_tokens=job.n_prompt,
            max_response_tokens=max_response_tokens,
        )

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> list[float | None]:
        """One reward a row; 0.0 where nothing could be inferred."""
        return [self._score(*pair) for pair in zip(instructions, responses, strict=True)]

    def _score(self, instruction: str, response: str) -> float:
        prompt = self._renderer.render(response).token_ids
        [output] = self._model.generate([prompt], self._n_new)
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        text = self._tokenizer.decode(output, **options)
        return word_f1(parse_reference(text)[0], instruction)[0]
