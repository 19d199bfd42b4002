"""What the host does for a step on a CUDA device that is none: launches, and copies both ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("triton")

from bench.gpu.fake_cuda import FakeCuda
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from tests.engine.test_fake_cuda import SHAPE, fake, load_on_cuda  # noqa: F401  (a fixture)
from tests.engine.toy_models import prompts, save_random_model

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


class Work(NamedTuple):
    """How much the host did in a step."""

    started: int
    to_device: int
    to_host: int


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Models by their number of layers; Qwen3-0.6B has 28, and so 256 kernels in a step."""

    def saved(n_layers: int) -> Path:
        shape = {**SHAPE, "num_hidden_layers": n_layers}
        return save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", **shape)

    return {n_layers: saved(n_layers) for n_layers in (1, 28)}


def steps_of(fake: FakeCuda, model: LoadedModel) -> dict[str, list[Work]]:  # noqa: F811
    """What the host does in later steps, by their kind: "decode", or with prompts "mixed"."""
    found: dict[str, list[Work]] = defaultdict(list)
    runner: Any = model._runner
    plain: Callable[..., Any] = runner.run

    def run(plan: Any) -> Any:
        before = Work(fake.n_started, fake.n_to_device, fake.n_to_host)
        result = plain(plan)
        after = Work(fake.n_started, fake.n_to_device, fake.n_to_host)
        done = Work(*(new - old for new, old in zip(after, before, strict=True)))
        found["mixed" if plan.prefilling else "decode"].append(done)
        return result

    runner.run = run
    return found


def generate(model: LoadedModel, *sampled: bool, n_out: int = 6) -> None:
    """Run requests that join one after the other, some of them sampled, into output rows."""
    for i, is_sampled in enumerate(sampled):
        params = SamplingParams(n_out, temperature=float(is_sampled))
        row = torch.zeros(n_out, dtype=torch.int32, device="cuda")
        ids = prompts([20 + 3 * i], SHAPE["vocab_size"])[0]
        model.engine.start([Sequence(ids, params, output_row=row)])
        model.engine.step()
    while not model.engine._scheduler.idle:
        model.engine.step()
    assert model.engine.counters.failed_steps == 0


@pytest.mark.slow
def test_a_greedy_step_is_one_copy_there_one_launch_and_one_copy_back(
    folders: dict[int, Path],
    fake: FakeCuda,  # noqa: F811
) -> None:
    """With prompts or without; the head and what becomes of the tokens are part of the launch."""
    model = load_on_cuda(folders[28])
    found = steps_of(fake, model)
    generate(model, False, False, False)
    assert len(found["mixed"]) == 3
    assert len(found["decode"]) > 1
    assert set(found["mixed"] + found["decode"]) == {Work(1, 1, 1)}


@pytest.mark.slow
def test_other_steps_copy_no_more_than_twice(
    folders: dict[int, Path],
    fake: FakeCuda,  # noqa: F811
) -> None:
    """Sampled ones, those that score, those that copy pages, and those under a penalty."""
    for penalty in (1.0, 1.5):
        model = load_on_cuda(folders[1], repetition_penalty=penalty)
        found = steps_of(fake, model)
        generate(model, True, False, True)
        prompt = prompts([20], SHAPE["vocab_size"])[0]
        samples = [Sequence(prompt, SamplingParams(3, temperature=1.0), seed=i) for i in range(3)]
        model.engine.generate([*samples, Sequence.scoring(prompt, [3, 4])])
        assert model.engine.counters.copied_pages == 2
        works = found["mixed"] + found["decode"]
        assert max(work.to_device for work in works) == 2
        assert {work.to_host for work in works} == {1}
