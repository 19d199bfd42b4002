"""The host's memory around sleep: what dropped weights took is free for others."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest

from flipfast.sampling import SamplingParams
from tests.engine.models import SMALL, load, prompts, run, save_random_model

SHAPE = {**SMALL, "vocab_size": 16384, "hidden_size": 512, "tie_word_embeddings": False}
PARAMS = SamplingParams(max_new_tokens=3)


def own_bytes() -> int:
    """What this process has written: not the pages of files, whoever else has them open."""
    gc.collect()
    found = psutil.Process().memory_info()
    return int(found.rss - found.shared)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", **SHAPE)


def test_a_process_has_its_memory_back_while_an_engine_without_weights_sleeps(
    folder: Path,
) -> None:
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
