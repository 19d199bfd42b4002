"""OpenRLHF: the call of a reward file, by its own executor where it is installed."""

import asyncio
from importlib import resources
from types import SimpleNamespace

import pytest
import torch

from flipfast import FlipReward
from flipfast.trainers import openrlhf
from flipfast.trainers.openrlhf import RewardFunction, reward_func
from tests.trainers.conftest import BREAD, RESPONSE, RIVER
from tests.trainers.fakes import UNPARSED, FixedScorer
from tests.waiting import PATIENCE_S

PROMPT = f"<|im_start|>user\n{BREAD}<|im_end|>\n<|im_start|>assistant\n"


def test_the_call_is_positional_and_gives_tensors(flip: FlipReward):
    queries = [PROMPT + RESPONSE + "<|im_end|>", "Q: The Seine.</s>"]
    found = reward_func(queries, [PROMPT, "Q: "], [BREAD, RIVER])
    batch = flip.score([BREAD, RIVER], [RESPONSE, "The Seine."])
    assert torch.equal(found["rewards"], torch.tensor(batch.rewards))
    assert torch.equal(found["scores"], found["rewards"])
    logs = found["extra_logs"]
    assert torch.equal(logs["flip_precision"], torch.tensor(batch.precision))
    assert torch.equal(logs["flip_failed"], torch.zeros(2))
    assert {tensor.shape for tensor in logs.values()} == {(2,)}


def test_without_a_label_the_prompt_is_the_instruction(flip: FlipReward):
    found = reward_func([BREAD + RESPONSE] * 3, [BREAD] * 3, ["", None, 7], images=None)
    assert found["rewards"].tolist() == torch.tensor(flip([BREAD] * 3, [RESPONSE] * 3)).tolist()


def test_a_query_without_its_prompt_is_a_failure_and_harms_no_other(flip: FlipReward):
    reward = RewardFunction(on_failure=-1.0)
    found = reward([PROMPT + RESPONSE, "another text"], [PROMPT] * 2, [BREAD] * 2)
    assert found["rewards"].tolist() == torch.tensor([*flip([BREAD], [RESPONSE]), -1.0]).tolist()
    assert found["extra_logs"]["flip_failed"].tolist() == [0.0, 1.0]
    assert reward(["x"], ["y"], ["z"])["rewards"].tolist() == [-1.0]


def test_a_failed_inversion():
    found = RewardFunction(FixedScorer(UNPARSED))([PROMPT + "x"], [PROMPT], [BREAD])
    assert found["rewards"].tolist() == [0.0]
    assert found["extra_logs"]["flip_failed"].tolist() == [1.0]


class Llm:
    """Generates one text, as OpenRLHF's vLLM engine does."""

    def __init__(self, tokens):
        self.tokens = tokens

    async def generate(self, prompt_tokens, params, multi_modal_data=None):
        out = SimpleNamespace(token_ids=self.tokens, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[out])


def execute(path, tokenizer, prompt, label):
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    executor = SingleTurnAgentExecutor(str(path))
    params = SimpleNamespace(max_tokens=64, logprobs=None)
    tokens = [*tokenizer.encode(RESPONSE, add_special_tokens=False), tokenizer.eos_token_id]
    call = executor.execute(prompt, label, params, 512, tokenizer, Llm(tokens))
    return asyncio.run(asyncio.wait_for(call, PATIENCE_S))


@pytest.fixture(scope="module")
def tokenizer():
    reason = "needs OpenRLHF's own code: pip install openrlhf"
    pytest.importorskip("openrlhf.utils.agent", reason=reason, exc_type=ImportError)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resources.files("flipfast") / "assets" / "tiny-inverter")


def test_openrlhfs_executor_with_this_file(flip: FlipReward, tokenizer):
    output = execute(openrlhf.__file__, tokenizer, BREAD + "\n", BREAD)
    decoded = tokenizer.decode(tokenizer.encode(RESPONSE))
    expected = torch.tensor(flip([BREAD], [decoded]))
    assert torch.equal(output["reward"], expected)
    assert torch.equal(output["scores"], expected)
    assert output["extra_logs"]["flip_failed"].tolist() == [0.0]
    # What its samples generator makes of it.
    assert torch.tensor([output["reward"]]).tolist() == expected.tolist()


def test_openrlhf_goes_without_a_reward_where_nobody_answers(tokenizer, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from flipfast.trainers.openrlhf import RewardFunction\n"
        "from tests.trainers.fakes import UNPARSED, AwayScorer\n"
        "reward_func = RewardFunction(AwayScorer(UNPARSED))\n"
    )
    assert execute(file, tokenizer, BREAD, BREAD)["reward"] is None
