"""The engine on the Triton kernels: on CUDA as it runs there, else in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from flipfast.engine import loading
from flipfast.engine.keep import FusedKeep
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.ops.blocks import FP8_GROUPS, FP8_ROWS
from flipfast.engine.ops.torch_ops import TorchOps
from flipfast.engine.ops.triton_ops import TritonOps
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from tests.engine.test_cuda_graphs import recorded
from tests.engine.toy_models import SMALL, assert_steady, load, prompts, run, save_random_model
from tests.kernels.conftest import _one_chain_of_products  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow

HERE = "cuda" if torch.cuda.is_available() else "cpu"
PARAMS = SamplingParams(max_new_tokens=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {**SMALL, "vocab_size": 96, "num_hidden_layers": 1, "hidden_size": 32}
    return save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", **shape)


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    def ops(device: torch.device, options: Any) -> TritonOps:
        return TritonOps(device, torch.float32)

    monkeypatch.setattr(loading, "_ops", ops)
    monkeypatch.setattr(loading, "_keep", lambda device: FusedKeep())
    return {"device": HERE, "attention": "triton_paged", "max_seqs": 8}


def test_tokens_are_those_of_plain_torch(folder: Path, on_triton: dict[str, Any]) -> None:
    ids = prompts([1, 33], 96, stem=16)
    results = run(load(folder, **on_triton, max_tokens=24), ids, PARAMS)
    loading._ops = lambda device, options: TorchOps(
        device, torch.float32
    )  # put back by the fixture
    plain = load(folder, device=HERE, attention="reference", deterministic=False)
    assert_steady(results, 96)
    assert [r[0] for r in results] == [r[0] for r in run(plain, ids, PARAMS)]


def test_bits_do_not_depend_on_the_company(folder: Path, on_triton: dict[str, Any]) -> None:
    ids = prompts([2, 33, 20], 96, stem=16)
    alone = [run(load(folder, **on_triton, prefix_cache=False), [i], PARAMS)[0] for i in ids]
    together = load(folder, **on_triton, max_tokens=24)
    assert run(together, ids, PARAMS) == alone
    assert together.engine.counters.prefix_tokens > 0
    replayed = load(folder, **on_triton)
    if HERE == "cpu":
        recorded(replayed)
    assert run(replayed, ids[::-1], PARAMS) == alone[::-1]


@pytest.mark.parametrize("kind", [FP8_ROWS, FP8_GROUPS])
def test_bits_do_not_depend_on_the_company_with_8_bit_weights(
    tmp_path: Path, on_triton: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Other bits than those of floats, the same in chunks, behind a prefix, and from a graph."""

    class Ops(TritonOps):
        def linear(self, *sizes: int, **options: Any) -> Any:
            return super().linear(*sizes, **{**options, "kinds": (kind,)})

    # Rows of more than 128 numbers, which have two scales of their own.
    shape = {**SMALL, "vocab_size": 96, "num_hidden_layers": 1, "hidden_size": 144}
    folder = save_random_model(tmp_path, "Qwen3Config", **shape)
    ids = prompts([2, 33, 20], 96, stem=16)
    floats = run(load(folder, **on_triton), ids, PARAMS)
    here = torch.device(HERE)
    monkeypatch.setattr(loading, "_ops", lambda *_: Ops(here, torch.float32, fp8="kept"))
    alone = [run(load(folder, **on_triton, prefix_cache=False), [i], PARAMS)[0] for i in ids]
    assert all(one[2] != other[2] for one, other in zip(alone, floats, strict=True))
    together = load(folder, **on_triton, max_tokens=24)
    assert run(together, ids, PARAMS) == alone
    assert together.engine.counters.prefix_tokens > 0
    together.sleep()
    together.wake()
    assert run(together, ids[::-1], PARAMS) == alone[::-1]
    replayed = load(folder, **on_triton)
    if HERE == "cpu":
        recorded(replayed)
    assert run(replayed, ids[::-1], PARAMS) == alone[::-1]


def test_output_tokens_stay_on_the_device(folder: Path, on_triton: dict[str, Any]) -> None:
    model = load(folder, **on_triton)
    assert model.token_device == torch.device(HERE)
    ids = prompts([5, 2, 3], 96)
    rows = torch.full((3, 4), -7, dtype=torch.int32, device=HERE)
    params = SamplingParams(max_new_tokens=3)
    # The row may be a part of a wider one; the second sequence has none.
    sequences = [
        Sequence(prompt, params, output_row=None if i == 1 else rows[i, :3])
        for i, prompt in enumerate(ids)
    ]
    model.engine.generate(sequences)
    for i in (0, 2):
        n = len(sequences[i].output_ids)
        assert n > 0
        assert rows[i, :n].tolist() == sequences[i].output_ids
    assert rows[1].tolist() == [-7] * 4
    assert rows[:, 3].tolist() == [-7] * 3


def test_without_the_kernels_no_tokens_stay(folder: Path) -> None:
    assert load(folder).token_device is None


def test_a_greedy_row_is_the_same_beside_a_sampled_one(
    folder: Path, on_triton: dict[str, Any]
) -> None:
    """Alone its arg-max is taken inside the head's product, in company from the logits."""
    ids = prompts([3, 4], 96)
    alone = Sequence(ids[0], PARAMS)
    load(folder, **on_triton).engine.generate([alone])
    mixed = [Sequence(ids[0], PARAMS), Sequence(ids[1], SamplingParams(2, temperature=1.0))]
    load(folder, **on_triton).engine.generate(mixed)
    assert mixed[0].output_ids == alone.output_ids


def test_scores_come_from_the_fused_head(
    folder: Path, on_triton: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Close to plain torch's, and the same bits alone, in chunks, and beside decoding sequences."""
    ids = prompts([2, 33, 20], 96, stem=16)
    cases = [(row[:-n], row[-n:]) for row, n in zip(ids, (1, 20, 3), strict=True)]

    def score(model: LoadedModel, order: list[int]) -> list[tuple[list[float], list[int]]]:
        sequences = [Sequence.scoring(*cases[i]) for i in order]
        model.engine.generate([*sequences, *[Sequence(cases[i][0], PARAMS) for i in order]])
        return [(seq.log_probs, seq.best_ids) for seq in sequences]

    alone = [score(load(folder, **on_triton, prefix_cache=False), [i])[0] for i in range(3)]
    together = load(folder, **on_triton, max_tokens=24)
    if HERE == "cpu":
        recorded(together)
    with monkeypatch.context() as patch:
        patch.setattr(TritonOps, "argmax", None)  # no logits are written
        assert score(together, [2, 0, 1]) == [alone[i] for i in (2, 0, 1)]
    assert together.engine.counters.prefix_tokens > 0
    monkeypatch.setattr(loading, "_ops", lambda device, options: TorchOps(device, torch.float32))
    plain = load(folder, device=HERE, attention="reference", deterministic=False)
    for (log_probs, best), (wanted, wanted_best) in zip(
        alone, score(plain, [0, 1, 2]), strict=True
    ):
        assert log_probs == pytest.approx(wanted, rel=1e-4, abs=1e-4)
        assert best == wanted_best
