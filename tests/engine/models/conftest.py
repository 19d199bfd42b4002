"""What the tests of the models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers

from tests.engine.models.paged import SHAPE, VOCAB_SIZE, random_model


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama, for tests in which the family does not matter; not to be changed."""
    path = tmp_path_factory.mktemp("llama")
    random_model(transformers.LlamaConfig(**SHAPE)).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def prompt() -> Callable[[int], list[int]]:
    """A function from a length to a prompt of ordinary tokens, always the same one."""

    def make(length: int) -> list[int]:
        generator = torch.Generator().manual_seed(length)
        ids: list[int] = torch.randint(2, VOCAB_SIZE, (length,), generator=generator).tolist()
        return ids

    return make


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose time to threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
