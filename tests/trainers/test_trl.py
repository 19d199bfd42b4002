"""The reward inside TRL's own trainer."""

import asyncio
import inspect
import math
import os
import pickle
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from flipfast import ConfigError, FlipConfig, FlipReward
from flipfast.errors import UnavailableError
from flipfast.scores import ScoredRow, failed_row
from flipfast.scoring import background
from flipfast.scoring.async_scoring import AsyncScorer
from flipfast.serving.async_engine import AsyncFlipEngine
from flipfast.trainers.trl import FlipRewardMixin, TrlReward
from tests.client.stub import held, running_stub
from tests.waiting import PATIENCE_S

METRICS = {"flip/rewards_per_s", "flip/failed_share", "flip/zero_variance_share"}
PROMPTS = ["Name a river.", "Name a river.", "Say hi.", "Say hi."]
COMPLETIONS = ["The Rhine is a river.", "The moon is far.", "Hi! How are you?", "Hi! How are you?"]


@pytest.fixture(scope="module")
def flip():
    with FlipReward(max_new_tokens=24) as reward:
        yield reward


class Logs:
    """What TRL's two helpers get."""

    def __init__(self) -> None:
        self.extra: dict[str, list] = {}
        self.metrics: dict[str, float] = {}

    def call(self, reward: Any, prompts: list, completions: list) -> list[float | None]:
        return reward(
            prompts=prompts,
            completions=completions,
            completion_ids=[[1]] * len(prompts),
            trainer_state=None,
            topic=["x"] * len(prompts),
            log_extra=self.extra.__setitem__,
            log_metric=self.metrics.__setitem__,
        )


def test_rewards_and_logs(flip):
    logs = Logs()
    rewards = logs.call(TrlReward(flip), PROMPTS, COMPLETIONS)
    batch = flip.score(PROMPTS, COMPLETIONS)
    assert rewards == batch.rewards
    assert logs.extra["flip_inferred"] == list(batch.inferred)
    assert logs.extra["flip_zero_variance"] == batch.zero_variance(2)
    assert logs.extra["flip_zero_variance"][2:] == [True, True]
    assert logs.metrics["flip/rewards_per_s"] > 0
    assert logs.metrics["flip/failed_share"] == 0
    assert TrlReward(flip)(PROMPTS, COMPLETIONS) == rewards  # a trainer without the helpers


@pytest.mark.parametrize(
    ("prompts", "completions"),
    [([], []), ([[], []], ["a", "b"]), (PROMPTS, COMPLETIONS)],
    ids=["nothing", "all failed", "all well"],
)
def test_every_call_logs_the_same_keys(flip, prompts, completions):
    logs = Logs()
    rewards = logs.call(TrlReward(flip), prompts, completions)
    assert len(rewards) == len(prompts)
    assert set(logs.extra) == {"flip_inferred", "flip_zero_variance"}
    assert all(len(column) == len(prompts) for column in logs.extra.values())
    assert set(logs.metrics) == METRICS
    assert all(math.isfinite(value) for value in logs.metrics.values())
    if prompts == [[], []]:
        assert rewards == [None, None]
        assert logs.metrics["flip/failed_share"] == logs.metrics["flip/zero_variance_share"] == 1


def test_messages_are_scored_like_texts(flip):
    prompts = [[{"role": "user", "content": text}] for text in PROMPTS]
    completions = [[{"role": "assistant", "content": text}] for text in COMPLETIONS]
    reward = TrlReward(flip)
    assert reward(prompts, completions) == reward(PROMPTS, COMPLETIONS)


def test_all_targets_give_the_same_bits(flip):
    expected = flip.score(PROMPTS, COMPLETIONS).rewards
    engine = AsyncFlipEngine(inverter=flip.inverter, max_new_tokens=24)
    try:
        for target in (engine, flip):
            assert TrlReward(target)(PROMPTS, COMPLETIONS) == expected
            assert asyncio.run(TrlReward(target).flip_reward(PROMPTS, COMPLETIONS)) == expected
    finally:
        engine.shut_down()


class Counted(AsyncScorer):
    """Scores by length; the completion "stuck" never ends, and "lost" cannot be scored."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cancelled: list[str] = []

    async def score_row(self, instruction: str, response: str, *_: Any, **__: Any) -> ScoredRow:
        raise NotImplementedError

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        self.calls.append(completion)
        if completion == "lost":
            raise UnavailableError("no engine")
        try:
            await asyncio.sleep(PATIENCE_S if completion == "stuck" else 0)
        except asyncio.CancelledError:
            self.cancelled.append(completion)
            raise
        return {**failed_row(""), "reward": float(len(completion)), "status": "ok"}


def test_what_was_begun_is_only_collected():
    scorer = Counted()
    reward = TrlReward(scorer, timeout=PATIENCE_S)
    for completion in ("xx", "xx", "xxxx", "stuck"):
        reward.begin("a", completion)
    assert reward(["a", "a", "b", "a"], ["xx", "xx", "xx", "xxx"]) == [2.0, 2.0, 2.0, 3.0]
    # The pairs begun once each, then the one with another prompt and the one not begun.
    assert scorer.calls == ["xx", "xxxx", "stuck", "xx", "xxx"]
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), background._running_loop()).result()
    assert scorer.cancelled == ["stuck"]
    assert reward(["a"], ["xx"]) == [2.0]  # a call's scores are not kept for the next
    assert scorer.calls[5:] == ["xx"]


def test_what_was_begun_may_be_late_or_fail():
    hasty = TrlReward(Counted(), timeout=0.2)
    hasty.begin("a", "stuck")
    assert hasty(["a", "a"], ["stuck", "x"]) == [None, 1.0]
    reward = TrlReward(Counted())
    reward.begin("a", "lost")
    with pytest.raises(UnavailableError, match="no engine"):
        reward(["a"], ["lost"])


def test_a_begun_reward_has_the_same_bits(flip):
    engine = AsyncFlipEngine(inverter=flip.inverter, max_new_tokens=24)
    reward = TrlReward(engine)
    prompts = [[{"role": "user", "content": text}] for text in PROMPTS]
    completions = [[{"role": "assistant", "content": text}] for text in COMPLETIONS]
    try:
        for pair in zip(prompts[:2], completions[:2], strict=True):
            reward.begin(*pair)
        assert reward(prompts, completions) == flip.score(PROMPTS, COMPLETIONS).rewards
    finally:
        engine.shut_down()
    with pytest.raises(ConfigError, match="instead of a FlipReward"):
        TrlReward(flip).begin("a", "b")


@pytest.mark.slow
def test_a_server_and_one_that_is_late():
    pytest.importorskip("httpx", reason="the client needs httpx")
    with running_stub() as stub:
        reward = TrlReward(stub.url, timeout=PATIENCE_S)
        assert reward(["a", "b"], ["x", "xyz"]) == [1.0, 3.0]
        assert asyncio.run(reward.flip_reward(["a"], ["xy"])) == [2.0]
        stub.usual = held
        logs = Logs()
        hasty = TrlReward(stub.url, timeout=0.2)
        assert logs.call(hasty, ["a", "b"], ["x", "y"]) == [None, None]
        assert logs.metrics["flip/failed_share"] == 1


@pytest.mark.slow
def test_the_async_form_is_one_that_trl_finds_and_pickles():
    reward = TrlReward(FlipConfig(max_new_tokens=24)).flip_reward
    assert inspect.iscoroutinefunction(reward)
    assert reward.__name__ == "flip_reward"
    code = """
import asyncio, pickle, sys
reward = pickle.load(sys.stdin.buffer)
print(asyncio.run(reward(prompts=["Name a river."], completions=["The Rhine is a river."],
                         completion_ids=[[1]])))
"""
    child = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(reward),
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    expected = FlipReward(max_new_tokens=24).score(PROMPTS[:1], COMPLETIONS[:1]).rewards
    assert child.stdout.decode().strip() == str(expected)


def make_trainer(
    reward: Any, folder: Path, *, conversational: bool, environment: Any = None, **args: Any
) -> Any:
    """TRL's trainer with a policy of random weights; four prompts, groups of four."""
    trl = pytest.importorskip("trl", reason="needs trl")
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    embedded = files("flipfast") / "assets" / "tiny-inverter"
    size = {"hidden_size": 32, "intermediate_size": 32, "head_dim": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    policy = Qwen3ForCausalLM(Qwen3Config(vocab_size=4096, pad_token_id=0, **size, **heads))
    texts = ["Name a river.", "Say hi.", "What is erosion?", "Sing."]
    prompts = [[{"role": "user", "content": text}] for text in texts] if conversational else texts
    config = trl.GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **args,
    )
    tokenizer = AutoTokenizer.from_pretrained(str(embedded))
    if environment is not None:  # it takes a chat template with tools
        template = files("trl") / "chat_templates" / "qwen3.jinja"
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    return trl.GRPOTrainer(
        policy,
        reward_funcs=reward,
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts, "topic": ["x"] * 4}),
        processing_class=tokenizer,
        environment_factory=environment,
    )


class Watched(TrlReward):
    """Remembers its calls. In the first one the last group fails, in others rewards alternate."""

    def __init__(self, flip: FlipReward) -> None:
        super().__init__(flip)
        self.calls: list[Any] = []

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        rewards = super().__call__(prompts, completions, **columns)
        self.calls.append((prompts, completions, columns))
        return [*rewards[:4], *[None] * 4] if len(self.calls) == 1 else [0.0, 1.0] * 4


@pytest.mark.slow
@pytest.mark.parametrize("conversational", [True, False])
def test_trls_trainer(flip, tmp_path, conversational):
    reward = Watched(flip)
    args = {"max_steps": 2, "learning_rate": 0.1, "log_completions": True}
    trainer = make_trainer(reward, tmp_path, conversational=conversational, **args)
    advantages: list[list[float]] = []
    calculate = trainer._generate_and_score_completions

    def watch(inputs: Any) -> Any:
        outputs = calculate(inputs)
        advantages.append(outputs["advantages"].tolist())
        return outputs

    trainer._generate_and_score_completions = watch
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    first, second = (log for log in trainer.state.log_history if "reward" in log)
    assert first.keys() >= METRICS | {"rewards/flip_reward/mean", "rewards/flip_reward/std"}
    assert second["reward"] == 0.5
    assert advantages[0][4:] == [0.0] * 4  # rows without a reward do not move the policy
    assert advantages[1] == pytest.approx([-0.866, 0.866] * 4, abs=1e-3)
    after = list(trainer.model.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    _, completions, columns = reward.calls[0]
    assert columns["topic"] == ["x"] * 8
    assert isinstance(completions[0], list) == conversational
    check_table(tmp_path, flip, reward.calls)


@pytest.mark.slow
def test_trls_trainer_awaits_the_async_form(flip, tmp_path):
    reward = TrlReward(flip).flip_reward
    trainer = make_trainer(reward, tmp_path, conversational=True, max_steps=1)
    trainer.train()
    logged = next(log for log in trainer.state.log_history if "reward" in log)
    prompts, completions = trainer._logs["prompt"], trainer._logs["completion"]
    rewards = flip(list(prompts), list(completions))
    assert logged["rewards/flip_reward/mean"] == pytest.approx(sum(rewards) / 8)


class Desk(FlipRewardMixin):
    """An environment that a policy answers with a tool; here with a fixed text, unless told not."""

    flip = TrlReward(FlipConfig(max_new_tokens=24))
    answered: ClassVar[list[Any]] = []

    def reset(self, prompt: Any = None, **columns: Any) -> None:
        super().reset(prompt)
        self.answered.append(prompt)
        if "Sing." not in str(prompt):
            self.answer("An earlier answer.")
            self.answer(COMPLETIONS[0])

    def answer(self, text: str) -> str:
        """Give the answer.

        Args:
            text: the answer.
        """
        self._flip_answer(text)
        return "Thank you."


def test_an_environment_is_rewarded_for_its_last_answer(flip):
    desk = Desk()
    assert inspect.iscoroutinefunction(desk.get_reward)
    tools = [name for name, _ in inspect.getmembers(Desk, inspect.isfunction) if name[0] != "_"]
    assert tools == ["answer", "get_reward", "reset"]
    for prompt in (PROMPTS[0], [{"role": "user", "content": PROMPTS[0]}], "Sing.", []):
        desk.reset(prompt=prompt, topic="x")
        expected = [0.0] if prompt == "Sing." else flip([prompt], COMPLETIONS[:1])
        assert [asyncio.run(asyncio.wait_for(desk.get_reward(), PATIENCE_S))] == expected
    assert expected == [None]  # nobody asks


@pytest.mark.slow
def test_trls_trainer_with_an_environment_that_owns_the_reward(flip, tmp_path):
    Desk.answered.clear()
    trainer = make_trainer(None, tmp_path, conversational=True, environment=Desk, max_steps=1)
    trainer.train()
    logged = next(log for log in trainer.state.log_history if "reward" in log)
    prompts = Desk.answered
    rewards = flip(prompts, [COMPLETIONS[0]] * len(prompts))
    alone = [0.0 if "Sing." in str(p) else r for p, r in zip(prompts, rewards, strict=True)]
    assert logged["rewards/Desk/mean"] == pytest.approx(sum(alone) / 8)


@pytest.mark.slow
def test_trls_async_trainer_scores_a_group_with_either_form(flip):
    reason = "needs TRL's asynchronous trainer: pip install trl"
    name = "trl.experimental.async_grpo.async_rollout_worker"
    worker = pytest.importorskip(name, reason=reason, exc_type=ImportError)
    desk = Desk()
    desk.reset(PROMPTS[0])
    rewards = flip(PROMPTS, COMPLETIONS)
    sequence = SimpleNamespace(input_ids=[1], completion_mask=[1], old_log_probs=[0.0])
    n = len(PROMPTS)
    group = worker.RolloutGroup(
        prompts=PROMPTS,
        reward_kwargs={"topic": ["x"] * n},
        completions=COMPLETIONS,
        completions_ids=[[1]] * n,
        completions_sequences=[[sequence]] * n,
        tool_call_counts=[0] * n,
        tool_failure_counts=[0] * n,
        model_version=0,
        group_id=0,
        env_rewards=[(Desk, asyncio.run(desk.get_reward()))] + [(Desk, None)] * (n - 1),
        rollout_rewards=[None] * n,
    )
    reward = TrlReward(flip)
    loop = SimpleNamespace(
        reward_funcs=[reward, reward.flip_reward],
        reward_func_names=["sync", "async", "Desk"],
        _env_reward_types=[Desk],
        _provides_rollout_reward=False,
    )
    pytest.importorskip("accelerate").PartialState(cpu=True)  # its logger wants one
    samples = asyncio.run(worker._AsyncRolloutLoop._score_group(loop, group))
    for form in ("sync", "async"):
        assert [sample.metrics[f"rewards/{form}"] for sample in samples] == rewards
    assert samples[0].metrics["rewards/Desk"] == rewards[0]
    assert math.isnan(samples[1].metrics["rewards/Desk"])  # it does not count
    assert samples[1].metrics["reward"] == 2 * rewards[1]


def check_table(folder: Path, flip: FlipReward, seen: list[Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="TRL's tables are Parquet")
    tables = sorted(folder.rglob("*.parquet"))
    assert len(tables) == 2
    for path, (prompts, completions, _) in zip(tables, seen, strict=True):
        table = parquet.read_table(path).to_pydict()
        batch = flip.score_chats(prompts, completions)
        assert table["flip_inferred"] == list(batch.inferred)
        assert table["flip_zero_variance"] == batch.zero_variance(4)
