"""The host's memory around sleep: what dropped weights took is free for others."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import transformers

from flipfast.engine.sampling import SamplingParams
from tests.engine.models.gguf_files import write_gguf
from tests.engine.toy_models import SMALL, load, prompts, run, save_random_model

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {**SMALL, "vocab_size": 16384, "hidden_size": 512, "tie_word_embeddings": False}
PARAMS = SamplingParams(max_new_tokens=3)


def own_bytes() -> int:
    """What this process has written: not the pages of files, whoever else has them open."""
    gc.collect()
    found = psutil.Process().memory_info()
    return int(found.rss - found.shared)


def sleep_and_wake(folder: Path) -> None:
    """What the test below asks of a process that has done nothing else."""
    ids = prompts([40, 70, 90], SHAPE["vocab_size"])
    warm = load(folder, dtype="float32")  # libraries keep something of the first run
    run(warm, ids, PARAMS)
    warm.close()
    before = own_bytes()
    model = load(folder, dtype="float32")
    expected = run(model, ids, PARAMS)
    awake = own_bytes() - before
    assert awake > 2 * 4 * SHAPE["vocab_size"] * SHAPE["hidden_size"]  # embedding and head alone
    for _ in range(2):
        model.sleep(drop_weights=True)
        assert own_bytes() - before < 0.1 * awake
        model.wake()
        assert run(model, ids, PARAMS) == expected
        assert own_bytes() - before < 1.1 * awake
    model.close()
    assert own_bytes() - before < 0.1 * awake


def load_a_file(path: Path) -> None:
    """As above."""
    load(path).close()
    before, size = own_bytes(), path.stat().st_size
    most = 1.15 * size + 2**24  # buffers and tables take the rest, whatever the model
    model = load(path)
    assert own_bytes() - before < most
    for _ in range(2):
        model.sleep(drop_weights=True)
        assert own_bytes() - before < 0.1 * size
        model.wake()
        assert own_bytes() - before < most
    model.close()


@pytest.mark.slow
def test_quantised_weights_take_what_their_file_takes(tmp_path: Path) -> None:
    shape = {**SHAPE, "vocab_size": 32768, "hidden_size": 1024, "num_hidden_layers": 1}
    folder = save_random_model(tmp_path / "floats", "Qwen3Config", **shape)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    write_gguf(tmp_path / "model.gguf", model, "Q4_0")
    alone("load_a_file", tmp_path / "model.gguf")


@pytest.mark.slow
def test_a_process_has_its_memory_back_while_an_engine_without_weights_sleeps(
    tmp_path: Path,
) -> None:
    alone("sleep_and_wake", save_random_model(tmp_path, "Qwen3Config", **SHAPE))


def alone(function: str, path: Path) -> None:
    """Call it in a process of its own: what other tests have freed would be taken, uncounted."""
    code = f"from {__name__} import *; {function}(Path({str(path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
