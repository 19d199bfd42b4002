"""Rewards from tokens on the device are those from texts, bit for bit; nothing is detokenized."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

pytest.importorskip("triton")

from flipfast import FlipReward
from flipfast.backends import Inversion, InversionRequest, SamplingParams
from flipfast.backends.native import NativeInverter
from flipfast.cli.demo import read_groups
from flipfast.engine import loading
from flipfast.engine.keep import FusedKeep
from flipfast.engine.ops.triton_ops import TritonOps
from tests.engine.toy_models import SMALL, save_random_model
from tests.kernels.conftest import _one_chain_of_products  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

pytestmark = pytest.mark.slow

HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INSTRUCTIONS = [
    "Write a poem about the sea.",
    "Write a poem about the sea.",
    "What is soil degradation, and why does it matter?",
    "Erkläre die Photosynthese in einem Satz.",
    "List 3 colours: red, the green, a blue",
    "",
]
RESPONSES = [f"r{i}" for i in range(len(INSTRUCTIONS))]  # equal ones would share a run
PLAIN = [
    "Write a short poem about the sea",
    "write a poem about THE sea!",
    "  What's soil-degradation and why does it matter, the a an\n",
    "Erkläre die Photosynthese",
    "Instruction: list 3 colours",
    "   ",
]
JSON = [
    '{"REASONING": "It rhymes.", "INFERRED INSTRUCTION": "Write a poem about the sea."}',
    '{"INFERRED INSTRUCTION": "Write a poem about the sea"}',
    '{"REASONING": "Soil.", "INFERRED INSTRUCTION": "What is \\"soil\\" degradation?"}',
    '{"REASONING": "a <b>", "INFERRED INSTRUCTION": "Erkläre"}',
    '```json\n{"REASONING": "r", "INFERRED INSTRUCTION": "List 3 colours"}\n```',
    '{"REASONING": "cut off, "INFERRED INSTRUCTION": "List 3',
]


class OnDevice(NativeInverter):
    """A native inverter whose outputs are scripted: what FlipReward sees of one on a GPU."""

    drafts = False

    def __init__(self, tokenizer: Any, answers: dict[str, str], reason: str = "stop") -> None:
        self.tokenizer = tokenizer
        self.context_length = 4096
        self.vocab_size = len(tokenizer) + 7
        self.decoded = 0
        self._answers, self._reason = list(answers), reason

    @property
    def token_device(self) -> torch.device:
        return HERE

    @property
    def weights_version(self) -> int:
        return 0

    def generate_into(
        self,
        tokens: torch.Tensor,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        out = []
        for row, answer in zip(tokens, self._answers, strict=True):
            ids = self.tokenizer.encode(answer, add_special_tokens=False)
            row.copy_(torch.full_like(row, -(2**31)))  # behind the output lies anything
            row[: len(ids)] = torch.tensor(ids, device=HERE)
            out.append(Inversion(ids, None, self._reason))
        return out

    def decode(self, output_ids: Sequence[int]) -> str:
        self.decoded += 1
        return super().decode(output_ids)

    def keep_prefix(self, token_ids: Sequence[int]) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    folder = str(resources.files("flipfast") / "assets" / "tiny-inverter")
    return AutoTokenizer.from_pretrained(folder)


def on_host(tokenizer: Any, answers: list[str], reason: str, **options: Any) -> Any:
    given = iter(answers)

    def answer(prompt: str, request: InversionRequest) -> Inversion:
        text = next(given)
        return Inversion(tokenizer.encode(text, add_special_tokens=False), text, reason)

    reward = FlipReward(inverter=ScriptedInverter(tokenizer, answer), **options)
    return reward.score(INSTRUCTIONS, RESPONSES)


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize(
    ("answers", "options", "undecided"),
    [
        (PLAIN, {"style": "direct"}, 2),
        (JSON, {"style": "standalone"}, 2),
        (JSON, {"style": "conversation", "parser": "reference"}, 3),
    ],
)
def test_equal_to_the_rewards_of_the_texts(
    tokenizer: Any, answers: list[str], options: dict[str, Any], undecided: int, reason: str
) -> None:
    options = {"on_failure": -1.0, **options}
    inverter = OnDevice(tokenizer, answers, reason)
    reward = FlipReward(inverter=inverter, **options)
    batch = reward.score(INSTRUCTIONS, RESPONSES)
    expected = on_host(tokenizer, answers, reason, **options)
    assert inverter.decoded == undecided  # only those whose text is needed
    for column in ("rewards", "precision", "recall", "status", "n_output_tokens", "errors"):
        assert getattr(batch, column) == getattr(expected, column), column
    assert inverter.decoded == undecided
    assert batch.inferred[1] == expected.inferred[1]
    assert inverter.decoded == undecided + 1
    assert batch.inferred == expected.inferred


def test_a_failed_row_keeps_its_error(tokenizer: Any) -> None:
    class Failing(OnDevice):
        def generate_into(self, *args: Any) -> list[Inversion]:
            return [Inversion.failed("out of luck"), *super().generate_into(*args)[1:]]

    reward = FlipReward(inverter=Failing(tokenizer, PLAIN), style="direct")
    batch = reward.score(INSTRUCTIONS, RESPONSES)
    assert batch.status[:2] == ["error", "ok"]
    assert batch.errors[0] == "out of luck"
    assert batch.inferred[0] == ""


def test_forced_outputs_are_scored_on_the_host(tokenizer: Any) -> None:
    class Forced(OnDevice):
        end_ids = frozenset()

    reward = FlipReward(inverter=Forced(tokenizer, JSON), style="standalone", json="forced")
    assert reward._parts.scorer is None  # not all of their tokens are on the device


def test_a_tokenizer_that_is_not_understood_is_decoded(
    tokenizer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flipfast.metrics.token_bytes.token_bytes",
        lambda *_: [b"x"] * (len(tokenizer) + 7),
    )
    with caplog.at_level(logging.WARNING):
        reward = FlipReward(inverter=OnDevice(tokenizer, PLAIN), style="direct")
    assert reward._parts.scorer is None
    assert len(caplog.records) == 1
    assert "rewards are scored from decoded texts" in caplog.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    shape = {**SMALL, "vocab_size": 4096, "num_hidden_layers": 1, "hidden_size": 32}
    folder = save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", **shape)
    tokenizer.save_pretrained(folder)
    return folder


def test_from_prefill_to_reward(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine, the kernels and the scoring together, against decoded texts."""
    options: dict[str, Any] = {"style": "direct", "max_new_tokens": 4, "device": HERE.type}
    responses = ["The Nile.", "A text", "Die Spree"]
    with FlipReward(str(folder), backend="transformers", dtype="float32", **options) as reward:
        said = reward.score([""] * 3, responses).inferred
        instructions = [f"{said[0]} and more", "the a an", f"Please, {said[2]}!"]
        expected = reward.score(instructions, responses)
    assert expected.rewards[0] > 0 < expected.rewards[2]
    monkeypatch.setattr(loading, "_ops", lambda device, _: TritonOps(device, torch.float32))
    monkeypatch.setattr(loading, "_keep", lambda device: FusedKeep())
    with FlipReward(str(folder), attention="triton_paged", memory=2**27, **options) as reward:
        assert reward._parts.scorer is not None
        batch = reward.score(instructions, responses)
        assert batch.rewards == expected.rewards
        assert batch.status == expected.status
        assert batch.n_output_tokens == expected.n_output_tokens
        assert batch.inferred == expected.inferred
        assert reward(instructions, responses) == expected.rewards


def test_equal_requests_share_a_run_and_not_a_score(tokenizer: Any) -> None:
    inverter = OnDevice(tokenizer, ["Name a river", "Name the sea"])
    reward = FlipReward(inverter=inverter, style="direct")
    batch = reward.score(["a river", "name", "river sea", "x"], ["r", "s", "s", "r"])
    assert batch.rewards == [2 * 1 * 0.5 / 1.5, 2 * 0.5 * 1 / 1.5, 0.5, 0.0]
    assert (batch.stats.n_folded, inverter.decoded) == (2, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_embedded_model_on_a_gpu(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    rows = read_groups(None, "instruction")
    instructions = [row.instruction for row in rows for _ in row.responses]
    responses = [response for row in rows for response in row.responses]
    with FlipReward(device="cuda", temperature=temperature) as on_device:
        assert on_device._parts.scorer is not None
        batch = on_device.score(instructions, responses)
        monkeypatch.setattr("flipfast.scoring.assembly._scorer", lambda *_: None)
        on_host = FlipReward(on_device.config, inverter=on_device.inverter)
        expected = on_host.score(instructions, responses)
    for column in ("rewards", "precision", "recall", "status", "inferred", "n_output_tokens"):
        assert getattr(batch, column) == getattr(expected, column), column


def test_samples_agree_only_when_asked(tokenizer: Any) -> None:
    inverter = OnDevice(tokenizer, ["Name a river", "Name the river now", "Name", "the river"])
    reward = FlipReward(inverter=inverter, style="direct", samples=2, temperature=1.0)
    batch = reward.score(["river", "name"], ["r", "s"])
    assert batch.rewards == [(2 / 3 + 0.5) / 2, 0.5]
    assert inverter.decoded == 0
    assert batch.agreement == [0.8, 0.0]
    assert inverter.decoded == 4
