"""Real GGUF files: token ids are llama.cpp's, greedy outputs transformers'."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers

from flipfast.backends import InversionRequest, SamplingParams, load_inverter
from flipfast.engine.models.gguf.reader import open_gguf
from flipfast.engine.models.gguf.tokenizer import read_gguf_tokenizer
from tests.engine.models.real_files import gemma3, smollm2

MADE_UP = [
    "\n\n1.", "\n\n\n- a", "a  b   c", "   x", "\t\t\n  ", "  ", " \n \n", "\r\n\r\n  a",
    "a\u00a0b", "1234567", "3.14 1,000", "½ ² Ⅷ", "it's I'LL don't 'tis", "x" * 60,
    "é ñ ÅÄÖ e\u0301", "你好，世界。", "🙂👩\u200d👧", "<0x0A>", "def f(x):\n\treturn x\n",
    "<|im_start|>user", "a\u200bb\ufeffc",
]  # fmt: skip


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smollm2() if request.param == "smollm2" else gemma3(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def llama_ids(model: Path) -> Iterator[Callable[[str], list[int]]]:
    """llama.cpp's tokenizer on the same file."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs xllamacpp: make frameworks")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = str(model), 256, False
    server = xllamacpp.Server(params)
    with httpx.Client(base_url=server.listening_address, timeout=300) as client:

        def ids(text: str) -> list[int]:
            body = {"content": text, "add_special": False, "parse_special": False}
            found: list[int] = client.post("/tokenize", json=body).json()["tokens"]
            return found

        yield ids


@pytest.mark.slow
def test_token_ids_are_those_of_llama_cpp(
    model: Path, llama_ids: Callable[[str], list[int]], shared_file: Callable[[str], Path]
) -> None:
    with gzip.open(shared_file("data/pairs_train.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rng = random.Random(0)
    texts = [row["response"] for row in rng.sample(rows, 700)]
    texts += [row["instruction"] for row in rng.sample(rows, 300)] + MADE_UP
    tokenizer = read_gguf_tokenizer(open_gguf(model))
    different = [
        text
        for text in texts
        if tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        != llama_ids(text)
    ]
    assert different == []


@pytest.mark.slow
def test_greedy_outputs_are_those_of_transformers(model: Path) -> None:
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(
        model.parent, gguf_file=model.name, dtype=torch.float32
    )
    inverter = load_inverter("native", str(model), dtype="float32")
    prompts = ["The capital of France is", "A poem about rivers.\n\n1.", "def fib(n):\n    if n"]
    requests = [InversionRequest(tuple(inverter.tokenizer.encode(p)), seed=0) for p in prompts]
    outputs = inverter.generate(requests, SamplingParams(max_new_tokens=16))
    for request, output in zip(requests, outputs, strict=True):
        ids = torch.tensor([request.prompt_ids])
        with torch.no_grad():
            logits = theirs(torch.tensor([[*request.prompt_ids, *output.output_ids]])).logits[0]
        steps = logits[ids.shape[1] - 1 : -1]
        chosen = steps.gather(-1, torch.tensor(output.output_ids)[:, None])[:, 0]
        assert (steps.amax(-1) - chosen).max() <= 1e-3  # near ties aside the best
        assert len(output.output_ids) == 16
    inverter.close()
