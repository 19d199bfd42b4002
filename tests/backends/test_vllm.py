"""The backend on vLLM: options, a user's own LLM, sleep, faults; on a stand-in for vLLM."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flipfast import FlipReward
from flipfast.backends import Inversion, InversionRequest, SamplingParams, load_inverter
from flipfast.errors import ConfigError, FlipfastError, ModelLoadError
from flipfast.scoring.assembly import EMBEDDED, _model_folder
from flipfast.training.world import World
from tests.backends import vllm_stand_in as stand_in

FOLDER = _model_folder(EMBEDDED)
GREEDY = SamplingParams(max_new_tokens=8)
REQUESTS = [InversionRequest([5 + i, 6, 7 + 2 * i], seed=2**64 - 1 - i) for i in range(5)]


@pytest.fixture(autouse=True)
def _vllm() -> Iterator[None]:
    with stand_in.vllm_stand_in():
        yield


def inverter_on(llm: stand_in.LLM) -> Any:
    from flipfast.backends.vllm import VllmInverter

    return VllmInverter(llm)


def rows() -> tuple[list[str], list[str]]:
    rng, world = Random(5), World(held_out=True)
    samples = [sample for _ in range(3) for sample in world.group(rng).samples]
    return [s.instruction for s in samples], [s.response for s in samples]


@pytest.mark.slow
def test_rewards_are_the_native_ones() -> None:
    expected = FlipReward(device="cpu", dtype="float32").score(*rows())
    assert len(set(expected.rewards)) > 2
    own = FlipReward(backend="vllm").score(*rows())
    shared = FlipReward(inverter=inverter_on(stand_in.LLM(FOLDER))).score(*rows())
    for batch in (own, shared):
        assert batch.rewards == expected.rewards
        assert batch.inferred == expected.inferred
        assert batch.status == expected.status
        assert batch.n_output_tokens == expected.n_output_tokens


@pytest.mark.slow
def test_a_shared_llm_is_asked_in_its_own_models_style(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("flipfast")["style"] == "direct"
    (folder / "config.json").write_text(json.dumps(config))
    for name, wants_json in ((FOLDER, False), (str(folder), True)):
        reward = FlipReward(inverter=inverter_on(stand_in.LLM(name)))
        assert reward._parts.template.wants_json is wants_json


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({}, {"dtype": "auto", "trust_remote_code": False}),
        ({"dtype": "bfloat16", "batch_size": 7}, {"dtype": "bfloat16", "max_num_seqs": 7}),
        ({"memory": 0.5, "device": "cpu"}, {"gpu_memory_utilization": 0.5}),
        ({"memory": 2e9, "device": "cpu:0"}, {"kv_cache_memory_bytes": 2_000_000_000}),
        ({"revision": "v1"}, {"revision": "v1", "tokenizer_revision": "v1"}),
        ({"trust_remote_code": True}, {"trust_remote_code": True}),
        ({"tokenizer": FOLDER, "revision": "v1"}, {"tokenizer": FOLDER, "revision": "v1"}),
    ],
)
def test_options_are_vllms(options: dict[str, Any], made: dict[str, Any]) -> None:
    inverter: Any = FlipReward(FOLDER, backend="vllm", **options).inverter
    usual = {"dtype": "auto", "trust_remote_code": False}
    assert inverter._llm.made == {**usual, **made}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"device": "cuda"}, "device='cuda' is not for backend='vllm', which runs on 'cpu'"),
        ({"device": "cpu:1"}, "CUDA_VISIBLE_DEVICES"),
        ({"memory": 0.0}, "memory must be above 0, not 0.0"),
        ({"scoring": "likelihood"}, "needs backend='native': 'vllm' does not have it"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        FlipReward(FOLDER, backend="vllm", **options)


def test_a_model_that_vllm_cannot_load() -> None:
    with pytest.raises(ModelLoadError, match="vLLM could not load './nowhere': ModelLoadError"):
        load_inverter("vllm", "./nowhere")


def test_what_is_asked_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = stand_in.LLM(FOLDER)
    llm.default_repetition_penalty = 1.25
    inverter = inverter_on(llm)
    params: list[Any] = []
    output = llm._output
    monkeypatch.setattr(
        llm, "_output", lambda n, ids, asked: params.append(asked) or output(n, ids, asked)
    )
    inverter.generate(REQUESTS[:1], GREEDY)
    inverter.generate(REQUESTS[:1], SamplingParams(9, temperature=0.5, top_p=0.9, top_k=3))
    usual = {**stand_in.PARAMS, "repetition_penalty": 1.25, "detokenize": False}
    assert vars(params[0]) == {**usual, "temperature": 0.0, "max_tokens": 8}
    assert vars(params[1]) == {
        **usual, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "max_tokens": 9, "seed": 3,
    }  # fmt: skip


def test_a_refused_request_fails_alone_and_leaves_nothing_behind() -> None:
    llm = stand_in.LLM(FOLDER)
    inverter = inverter_on(llm)
    expected = inverter.generate(REQUESTS, GREEDY)
    assert len({tuple(result.output_ids) for result in expected}) > 1
    llm.poison = REQUESTS[3].prompt_ids[0]
    results = inverter.generate(REQUESTS, GREEDY)
    assert results[3] == Inversion.failed(f"ValueError: Token id {llm.poison} is out of vocabulary")
    assert [*results[:3], results[4]] == [*expected[:3], expected[4]]
    assert not llm._waiting


@pytest.mark.slow
def test_what_somebody_elses_call_left_behind_is_nobodys_result() -> None:
    llm = stand_in.LLM(FOLDER)
    inverter = inverter_on(llm)
    expected = inverter.generate(REQUESTS, GREEDY)
    llm.poison = 9
    with pytest.raises(ValueError, match="out of vocabulary"):
        llm.generate(
            [{"prompt_token_ids": [50, 60]}, {"prompt_token_ids": [9]}],
            [stand_in.SamplingParams()] * 2,
            use_tqdm=False,
        )
    llm.poison = None
    assert inverter.generate(REQUESTS, GREEDY) == expected


def test_a_dead_engine_fails_every_row() -> None:
    llm = stand_in.LLM(FOLDER)
    reward = FlipReward(inverter=inverter_on(llm), on_failure=0.0)
    llm.dead = True
    batch = reward.score(*rows())
    assert set(batch.status) == {"error"}
    assert set(batch.rewards) == {0.0}
    assert "EngineCore encountered an issue" in str(batch.errors[0])


def test_an_aborted_request_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = stand_in.LLM(FOLDER)
    output = llm._output

    def aborted(*request: Any) -> Any:
        found = output(*request)
        found.outputs[0].finish_reason = "abort"
        return found

    monkeypatch.setattr(llm, "_output", aborted)
    (result,) = inverter_on(llm).generate(REQUESTS[:1], GREEDY)
    assert result == Inversion.failed("vLLM ended the request with 'abort'")


@pytest.mark.parametrize(
    ("drop_weights", "calls"),
    [
        (False, [("sleep", 1), ("wake_up", None)]),
        (
            True,
            [
                ("sleep", 2),
                ("wake_up", ["weights"]),
                ("collective_rpc", "reload_weights"),
                ("wake_up", ["kv_cache"]),
            ],
        ),
    ],
)
def test_sleep_and_wake(drop_weights: bool, calls: list[Any]) -> None:
    llm = stand_in.LLM(FOLDER, enable_sleep_mode=True)
    inverter = inverter_on(llm)
    inverter.wake()  # awake already: nothing happens
    inverter.sleep(drop_weights=drop_weights)
    for act in (inverter.sleep, inverter.weights_changed):
        with pytest.raises(FlipfastError, match="asleep: call wake"):
            act()
    with pytest.raises(FlipfastError, match="asleep"):
        inverter.generate(REQUESTS, GREEDY)
    inverter.wake()
    assert llm.calls == calls
    assert inverter.generate(REQUESTS, GREEDY)[0].error is None


def test_an_llm_without_sleep_mode_says_how_to_get_it() -> None:
    llm = stand_in.LLM(FOLDER)
    with pytest.raises(ConfigError, match="enable_sleep_mode=True"):
        inverter_on(llm).sleep()
    assert llm.calls == []


@pytest.mark.slow
def test_new_weights_make_kept_rewards_old() -> None:
    llm = stand_in.LLM(FOLDER)
    inverter = inverter_on(llm)
    reward = FlipReward(inverter=inverter, cache_rewards=100)
    instructions, responses = rows()
    first = reward.score(instructions, responses)
    again = reward.score(instructions, responses)
    assert first.stats.n_cached == 0 < again.stats.n_cached
    inverter.weights_changed()
    assert reward.score(instructions, responses).stats.n_cached == 0
    assert llm.calls == ["reset_prefix_cache"]


def test_close_leaves_the_llm_to_its_owner() -> None:
    llm = stand_in.LLM(FOLDER)
    inverter = inverter_on(llm)
    inverter.close()
    for act in (lambda: inverter.generate(REQUESTS, GREEDY), inverter.sleep):
        with pytest.raises(FlipfastError, match="closed"):
            act()
    assert inverter_on(llm).generate(REQUESTS, GREEDY)[0].error is None
