"""verl: its reward loop's and its legacy managers' own code, with our functions."""

import asyncio
import inspect
from importlib import resources

import numpy as np
import pytest

from flipfast import FlipReward
from flipfast.errors import InputError
from flipfast.trainers.verl import compute_score, compute_score_batch
from tests.trainers.conftest import BREAD, CHAT, RESPONSE, RIVER
from tests.trainers.fakes import UNPARSED, FixedScorer
from tests.waiting import PATIENCE_S

EXTRA = {"score", "inferred", "status", "flip_failed", "flip_precision", "flip_recall"}


def score(*args, **kwargs):
    return asyncio.run(compute_score("data", *args, **kwargs))


def test_verl_finds_it_to_be_asynchronous():
    assert inspect.iscoroutinefunction(compute_score)


def test_a_sample_gets_the_reward_of_a_batch(flip: FlipReward):
    batch = flip.score([BREAD], [RESPONSE])
    found = score(RESPONSE, BREAD, {"index": 3})
    assert found["score"] == batch.rewards[0]
    assert found["flip_precision"] == batch.precision[0]
    assert found["flip_recall"] == batch.recall[0]
    assert (found["inferred"], found["status"]) == (batch.inferred[0], "ok")
    assert set(found) == EXTRA


def test_where_the_instruction_is(flip: FlipReward):
    with_context = flip([CHAT], [RESPONSE])[0]
    plain = flip([BREAD], [RESPONSE])[0]
    assert with_context != plain
    assert score(RESPONSE, "", {"prompt": np.array(CHAT)})["score"] == with_context
    assert score(RESPONSE, None, {"prompt": CHAT})["score"] == with_context
    found = score(RESPONSE, "42", {"question": BREAD}, instruction_key="question")
    assert found["score"] == plain
    with pytest.raises(InputError, match="no 'query', it has 'question'"):
        score(RESPONSE, "42", {"question": BREAD}, instruction_key="query")


def test_a_sample_without_an_instruction_is_a_failure():
    found = score(RESPONSE, None, {})
    assert (found["score"], found["status"], found["flip_failed"]) == (0.0, "error", 1.0)


def test_a_failure_keeps_the_keys():
    found = score(RESPONSE, BREAD, target=FixedScorer(UNPARSED), on_failure=-0.5)
    assert (found["score"], found["flip_failed"]) == (-0.5, 1.0)
    assert set(found) == EXTRA


def test_the_legacy_batch(flip: FlipReward):
    truths = np.array([BREAD, RIVER, None], dtype=object)
    extras = np.array([{}, {}, {"prompt": CHAT}], dtype=object)
    texts = [RESPONSE, "The Seine.", RESPONSE]
    found = compute_score_batch(
        data_sources=["d"] * 3, solution_strs=texts, ground_truths=truths, extra_infos=extras
    )
    assert [one["score"] for one in found] == flip([BREAD, RIVER, CHAT], texts)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resources.files("flipfast") / "assets" / "tiny-inverter")


@pytest.fixture(scope="module")
def verl():
    reason = "needs verl's own code: pip install verl"
    pytest.importorskip("verl.trainer.ppo.reward", reason=reason, exc_type=ImportError)


def config_of(**reward):
    from omegaconf import OmegaConf

    function = {"path": "pkg://flipfast.trainers.verl", "name": "compute_score"}
    usual = {
        "custom_reward_function": {**function, "reward_kwargs": {"timeout": PATIENCE_S}},
        "reward_manager": {"source": "register", "name": "naive"},
    }
    return OmegaConf.create({"reward": {**usual, **reward}})


def data_of(tokenizer, texts, **columns):
    """verl's batch of one prompt's responses, padded on the right."""
    import torch
    from tensordict import TensorDict
    from verl import DataProto

    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    width = max(map(len, ids))
    pads = [[tokenizer.eos_token_id] * (width - len(row)) for row in ids]
    responses = torch.tensor([row + pad for row, pad in zip(ids, pads, strict=True)])
    mask = torch.tensor([[1] * 4 + [1] * len(row) + [0] * (width - len(row)) for row in ids])
    tensors = {
        "prompts": torch.ones(len(texts), 4, dtype=torch.long),
        "responses": responses,
        "attention_mask": mask,
    }
    columns = {"data_source": ["d"] * len(texts), **columns}
    arrays = {}
    for name, values in columns.items():
        arrays[name] = np.empty(len(values), dtype=object)
        arrays[name][:] = values
    return DataProto(batch=TensorDict(tensors, batch_size=len(texts)), non_tensor_batch=arrays)


def run_single(manager, data):
    """What verl's reward worker does with a batch: each sample by itself, all at a time."""

    async def run():
        manager.loop = asyncio.get_running_loop()
        tasks = [manager.run_single(data[i : i + 1]) for i in range(len(data))]
        return await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)

    return asyncio.run(run())


TEXTS = [RESPONSE, "the river Seine flows through Paris.", "Bananas!"]


@pytest.mark.slow
@pytest.mark.usefixtures("verl")
def test_verls_reward_loop(flip: FlipReward, tokenizer):
    from verl.trainer.ppo.reward import load_reward_manager

    manager = load_reward_manager(config_of(), tokenizer)
    assert manager.is_async_reward_score
    truths = [{"ground_truth": BREAD}, {"ground_truth": RIVER}, {"ground_truth": BREAD}]
    extras = [{"index": i} for i in range(3)]
    data = data_of(tokenizer, TEXTS, reward_model=truths, extra_info=extras)
    found = run_single(manager, data)
    decoded = [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS]
    expected = flip([BREAD, RIVER, BREAD], decoded)
    assert [one["reward_score"] for one in found] == expected
    assert all(set(one["reward_extra_info"]) == EXTRA for one in found)


@pytest.mark.usefixtures("verl")
def test_verls_reward_loop_with_our_manager(flip: FlipReward, tokenizer):
    from verl.trainer.ppo.reward import load_reward_manager

    module = {"path": "pkg://flipfast.trainers.verl_manager"}
    manager = load_reward_manager(
        config_of(
            custom_reward_function={"reward_kwargs": {"on_failure": -1.0}},
            reward_manager={"source": "importlib", "name": "FlipRewardManager", "module": module},
        ),
        tokenizer,
        reward_router_address=None,
        reward_model_tokenizer=None,
    )
    data = data_of(
        tokenizer,
        TEXTS,
        reward_model=[{"ground_truth": "42"}] * 3,
        raw_prompt=[CHAT, [CHAT[1]], [CHAT[0]]],
    )
    found = run_single(manager, data)
    decoded = [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS]
    expected = flip([CHAT, [CHAT[1]], [CHAT[0]]], decoded)
    assert expected[2] is None  # no user turn
    assert [one["reward_score"] for one in found] == [*expected[:2], -1.0]


@pytest.mark.usefixtures("verl")
def test_verls_legacy_batch_manager(flip: FlipReward, tokenizer):
    import torch
    from verl.workers.reward_manager import get_reward_manager_cls

    manager = get_reward_manager_cls("batch")(tokenizer, 0, compute_score_batch, timeout=60)
    truths = [{"ground_truth": BREAD}, {"ground_truth": RIVER}, {"ground_truth": BREAD}]
    data = data_of(tokenizer, TEXTS, reward_model=truths, extra_info=[{}, {}, {}])
    found = manager(data, return_dict=True)
    decoded = [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS]
    expected = flip([BREAD, RIVER, BREAD], decoded)
    assert found["reward_extra_info"]["score"] == expected
    assert torch.equal(found["reward_tensor"].sum(-1), torch.tensor(expected))
