"""What one of several processes takes of the machine."""

import os

import pytest
import torch

from flipfast.config import FlipConfig
from flipfast.engine.options import MEMORY_SHARE
from flipfast.errors import ConfigError
from flipfast.serving import async_engine
from flipfast.serving.engine_process import EngineSpec, native_engine


@pytest.fixture
def made(monkeypatch):
    """Engines that would have been made: their configurations, and the GPUs that they would see."""
    found = []

    def make(*, config, max_queue):
        assert max_queue == 7
        found.append((config, os.environ.get("CUDA_VISIBLE_DEVICES")))

    monkeypatch.setattr(async_engine, "AsyncFlipEngine", make)
    return found


def make_all(n_workers, **options):
    for worker in range(n_workers):
        native_engine(EngineSpec(FlipConfig(**options), 7, worker, n_workers))


@pytest.mark.parametrize(("visible", "seen"), [(None, ["0", "1"]), ("5,GPU-a,2", ["5", "GPU-a"])])
def test_each_sees_one_gpu(made, monkeypatch, visible, seen):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for worker in range(2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back in the end
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        native_engine(EngineSpec(FlipConfig(), 7, worker, 2))
    assert made == [(FlipConfig(), gpu) for gpu in seen]


def test_more_processes_than_gpus_are_refused(made, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="2 workers need a GPU each, and there are 1"):
        make_all(2)
    assert made == []


@pytest.mark.parametrize(
    ("memory", "share"), [(None, MEMORY_SHARE["cpu"] / 3), (0.6, 0.6 / 3), (1e9, 1e9)]
)
def test_on_the_cpu_threads_and_memory_are_shared(made, monkeypatch, memory, share):
    n_threads = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", n_threads.append)
    make_all(3, device="cpu", memory=memory)
    assert sorted(n_threads) == [2, 3, 3]
    assert [config.memory for config, _ in made] == [pytest.approx(share)] * 3


def test_one_alone_takes_what_the_configuration_says(made, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", None)
    make_all(1, device="cpu")
    make_all(1, device="cuda:1")
    assert [config for config, _ in made] == [FlipConfig(device=d) for d in ("cpu", "cuda:1")]
