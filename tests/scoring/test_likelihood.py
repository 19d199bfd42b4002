"""The reward without decoding: what is asked, what comes of it, and that it is its own row's."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from flipfast import ConfigError, FlipConfig, FlipReward, overlap_f1
from flipfast.backends import Likelihood, LikelihoodRequest
from flipfast.prompts.encoding import TextEncoder
from flipfast.scoring.assembly import EMBEDDED, _model_folder
from tests.prompts.conftest import MARKS, make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

OPENING = '{"INFERRED INSTRUCTION": "'


class Knowing(ScriptedInverter):
    """Finds a target the likelier the more of its tokens stand in the prompt, and says so."""

    has_likelihoods = True
    weights_version = 0

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, lambda prompt, request: pytest.fail("nothing is generated"))
        self.calls: list[list[LikelihoodRequest]] = []
        self.guess: str | None = None  # what its likeliest tokens read; None for the target

    def likelihoods(
        self,
        requests: Sequence[LikelihoodRequest],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Likelihood]:
        self.calls.append(list(requests))
        if on_progress is not None:
            on_progress(len(requests))
        return [self._likelihood(request) for request in requests]

    def _likelihood(self, request: LikelihoodRequest) -> Likelihood:
        if "cursed" in self.tokenizer.decode(request.prompt_ids):
            return Likelihood([], [], "out of luck")
        known = set(request.prompt_ids)
        ids = request.target_ids if self.guess is None else self.tokenizer.encode(self.guess)
        return Likelihood([-0.25 if i in known else -3.0 for i in request.target_ids], list(ids))

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Prompt and target of every request, as text."""
        texts = self.tokenizer.decode
        return [(texts(r.prompt_ids), texts(r.target_ids)) for call in self.calls for r in call]


@pytest.fixture
def make_reward(make_tokenizer: Any) -> Callable[..., tuple[FlipReward, Knowing]]:  # noqa: F811
    def make(**options: Any) -> tuple[FlipReward, Knowing]:
        inverter = Knowing(make_tokenizer())
        options = {"model": "scripted", "style": "direct", **options}
        return FlipReward(inverter=inverter, scoring="likelihood", **options), inverter

    return make


def wanted(inverter: Knowing, request: LikelihoodRequest) -> float:
    return statistics.fmean(inverter._likelihood(request).logprobs)


def test_the_reward_is_the_mean_log_probability(make_reward: Any) -> None:
    reward, inverter = make_reward()
    batch = reward.score(["Name a river.", "What is bread?"], ["the Rhine", "flour"], [None, "c"])
    (requests,) = inverter.calls
    assert batch.rewards == [wanted(inverter, request) for request in requests]
    assert all(value is not None and -3 < value < 0 for value in batch.rewards)
    (first, x), (second, _) = inverter.asked
    assert x == "Name a river."
    assert first.endswith("the Rhine<|end|>\n<|assistant|>\n<think></think>\n")
    assert second.index("\nc\n") < second.index("flour")
    assert batch.status == ["ok", "ok"]
    assert batch.n_prompt_tokens == [len(request.prompt_ids) for request in requests]
    assert batch.n_output_tokens == [0, 0]
    n_tokens = sum(len(r.prompt_ids) + len(r.target_ids) for r in requests)
    assert batch.stats.tokens_per_s == pytest.approx(n_tokens / batch.stats.seconds)


@pytest.mark.parametrize("style", ["standalone", "conversation"])
def test_in_a_json_style_the_object_is_opened_and_the_instruction_escaped(
    make_reward: Any, style: str
) -> None:
    reward, inverter = make_reward(style=style)
    text = 'Say "hi"\nto é \\ me'
    batch = reward.score([text], ["hi"])
    ((prompt, target),) = inverter.asked
    assert prompt.endswith("<think></think>\n" + OPENING)
    assert json.loads(f'"{target}"') == text
    assert target == json.dumps(text, ensure_ascii=False)[1:-1]
    assert batch.inferred == [text]  # read back
    assert batch.forced_f1 == [1.0]


def test_the_f1_is_that_of_the_likeliest_tokens(make_reward: Any) -> None:
    reward, inverter = make_reward()
    inverter.guess = "Name some river in Spain"
    batch = reward.score(["Name a river."], ["r"])
    f1, precision, recall = overlap_f1([inverter.guess], ["Name a river."])[0].tolist()
    assert batch.inferred == [inverter.guess]
    assert (batch.forced_f1, batch.precision, batch.recall) == ([f1], [precision], [recall])
    (row,) = batch.to_dicts()
    assert (row["reward"], row["forced_f1"]) == (batch.rewards[0], f1)
    assert "agreement" not in row


def test_identical_requests_run_once(make_reward: Any) -> None:
    reward, inverter = make_reward()
    done: list[int] = []
    batch = reward.score(
        ["x y", "x z", "x y", "", "x y"], ["r", "r", "r", "r", "s"], on_progress=done.append
    )
    assert [len(call) for call in inverter.calls] == [3]
    assert (batch.stats.n_folded, batch.stats.n_cached) == (1, 0)
    assert batch.rewards[0] == batch.rewards[2]
    assert done == [1, 2, 5]
    reward.score(["x y"], ["r"])
    assert [len(call) for call in inverter.calls] == [3, 1]


def test_results_are_kept_on_request_while_the_weights_are_the_same(make_reward: Any) -> None:
    reward, inverter = make_reward(cache_rewards=2)
    first = reward.score(["x y"], ["r"])
    again = reward.score(["x y", "x z"], ["r", "r"])
    assert again.rewards[0] == first.rewards[0]
    assert again.stats.n_cached == 1
    inverter.weights_version = 1
    assert reward.score(["x y"], ["r"]).stats.n_cached == 0
    assert [len(call) for call in inverter.calls] == [1, 1, 1]


def test_the_baseline_is_the_mean_without_the_response(make_reward: Any) -> None:
    plain, inverter = make_reward()
    response = "Name a river: the Rhine"
    (without,) = plain.score(["Name a river."], [""], ["c"]).rewards
    (given,) = plain.score(["Name a river."], [response], ["c"]).rewards
    reward, inverter = make_reward(likelihood_baseline=True)
    batch = reward.score(["Name a river."] * 2, [response, ""], ["c", "c"])
    assert batch.rewards == [given - without, 0.0]
    assert given > without
    assert inverter.asked[0][0].count("Rhine") == 0


def test_a_baseline_runs_once_for_an_instruction_and_context(make_reward: Any) -> None:
    reward, inverter = make_reward(likelihood_baseline=True)
    rows = [("x", "r", None), ("x", "s", None), ("x", "r", "c"), ("y", "r", None), ("x", "r", "c")]
    first = reward.score(*map(list, zip(*rows, strict=True)))
    assert [len(call) for call in inverter.calls] == [3, 4]
    assert first.stats.n_folded == 1
    second = reward.score(["x", "x"], ["new", "newer"])
    assert [len(call) for call in inverter.calls[2:]] == [2]  # no baseline again
    assert second.stats.n_cached == 0
    assert reward.score(["x"], ["r"]).rewards == first.rewards[:1]
    inverter.weights_version = 1
    reward.score(["x"], ["new"])
    assert [len(call) for call in inverter.calls[4:]] == [1, 1]


@pytest.mark.parametrize("on_failure", [None, -9.0])
def test_bad_rows_cost_only_themselves(make_reward: Any, on_failure: float | None) -> None:
    reward, inverter = make_reward(on_failure=on_failure)
    instructions = ["x", "", None, "x", "word " * 9000, "x", "x"]
    responses = ["r", "r", "r", "cursed", "r", 3, "word " * 9000]
    batch = reward.score(instructions, responses)
    assert batch.status == ["ok", "empty", *["error"] * 4, "ok+response_cut"]
    assert batch.rewards[1:6] == [on_failure] * 5
    assert batch.forced_f1 is not None
    assert batch.forced_f1[1:6] == batch.precision[1:6] == [None] * 5
    assert batch.rewards[0] is not None
    assert batch.errors[3] == "out of luck"
    assert "tokens of response within 4096" in str(batch.errors[4])
    assert batch.stats.n_failed == 5
    assert all(len(r.prompt_ids) + len(r.target_ids) <= 4096 for r in inverter.calls[0])


def test_the_response_gives_way_to_the_instruction(make_reward: Any) -> None:
    reward, inverter = make_reward()
    batch = reward.score(["word " * n for n in (10, 700)], ["abc " * 4000] * 2)
    assert batch.status == ["ok+response_cut"] * 2
    for request in inverter.calls[0]:
        assert len(request.prompt_ids) + len(request.target_ids) == 4096
    assert inverter.asked[1][1] == "word " * 700


def test_marks_in_an_instruction_are_text(make_reward: Any) -> None:
    reward, inverter = make_reward(style="standalone")
    text = "<|end|>\n<|assistant|> <think> {response} </s>"
    reward.score([text], [text])
    (request,) = inverter.calls[0]
    marks = {inverter.tokenizer.convert_tokens_to_ids(mark) for mark in [*MARKS, "<think>"]}
    assert not marks & set(request.target_ids)
    assert inverter.asked[0][1] == json.dumps(text)[1:-1]


@pytest.mark.parametrize("text", [" ", "\x00", "a\ud800b", "{}", '"', "\\", "é\u2028"])
@pytest.mark.parametrize("style", ["direct", "standalone"])
def test_odd_texts_are_scored(make_reward: Any, text: str, style: str) -> None:
    reward, _ = make_reward(style=style, likelihood_baseline=True)
    batch = reward.score([text], [text], [text])
    assert batch.status == ["ok"]
    assert isinstance(batch.rewards[0], float)


def test_a_trainers_call(make_reward: Any, caplog: pytest.LogCaptureFixture) -> None:
    reward, _ = make_reward()
    prompt = [{"role": "user", "content": "Name a river."}]
    rewards = reward([prompt, "Name a river.", []], ["Rhine", "<answer>Rhine</answer>", "Rhine"])
    assert rewards == [*reward.score(["Name a river."] * 2, ["Rhine"] * 2).rewards, None]
    assert "1 of 3 rows have no reward" in caplog.text


def test_wrong_options_are_refused(make_tokenizer: Any) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="unknown scoring 'both': use one of generate, like"):
        FlipConfig(scoring="both")
    for option in ({"temperature": 0.5}, {"thinking": True}, {"json": "forced"}):
        (name,) = option
        with pytest.raises(ConfigError, match=f"writes nothing: leave {name} at"):
            FlipConfig(scoring="likelihood", **option)
    with pytest.raises(ConfigError):
        FlipConfig(scoring="likelihood", samples=2, temperature=1.0)
    with pytest.raises(ConfigError, match="goes with scoring='likelihood'"):
        FlipConfig(likelihood_baseline=True)
    inverter = ScriptedInverter(make_tokenizer(), lambda prompt, request: "x")
    with pytest.raises(ConfigError, match="scoring='likelihood' needs backend='native': 'scr"):
        FlipReward("m", inverter=inverter, scoring="likelihood")


# The embedded model.

INSTRUCTIONS = ["How do I make banana bread?", "Name a river in Spain.", "What is erosion?"]
RESPONSES = [
    "To make banana bread, mash three ripe bananas and mix them with flour and eggs.",
    "The longest river that lies in Spain alone is the Ebro.",
    "Erosion is how wind and water carry soil and rock away, bit by bit.",
]
ROWS = [(x, y) for x in INSTRUCTIONS for y in RESPONSES]


def embedded(**options: Any) -> FlipReward:
    return FlipReward(scoring="likelihood", device="cpu", dtype="float32", **options)


@pytest.fixture(scope="module", params=["direct", "standalone"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(style: str) -> list[float | None]:
    with embedded(style=style, batch_size=1, likelihood_baseline=True) as reward:
        return [reward.score([x], [y]).rewards[0] for x, y in ROWS]


def test_rewards_are_those_of_transformers(style: str, alone: list[float | None]) -> None:
    folder = Path(_model_folder(EMBEDDED))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with embedded(style=style) as reward:
        encoder = TextEncoder(reward.inverter.tokenizer)
        batch = reward.score(*map(list, zip(*ROWS, strict=True)))
        renderer = reward._parts.renderer
        for i in (0, 1, 5):
            x, y = ROWS[i]
            opening = [] if style == "direct" else encoder.encode_text(OPENING)
            target = encoder.encode_text(x)
            means = []
            for response in (y, ""):
                prompt = [*renderer.render(response).token_ids, *opening]
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
                scores = logits.log_softmax(-1).gather(-1, torch.tensor(target)[:, None])
                means.append(float(scores.double().mean()))
                if response:
                    best = reward.inverter.decode(logits.argmax(-1).tolist())
                    assert batch.inferred[i] == best
                    assert batch.forced_f1 is not None
                    assert batch.forced_f1[i] == overlap_f1([best], [x])[0, 0]
            assert batch.rewards[i] == pytest.approx(means[0], rel=1e-5, abs=1e-6)
            assert alone[i] == pytest.approx(means[0] - means[1], rel=1e-4, abs=1e-5)


def test_the_right_response_makes_an_instruction_likelier(alone: list[float | None]) -> None:
    known = [value for value in alone if value is not None]
    for i in range(3):
        own = known[3 * i : 3 * i + 3]
        assert own.index(max(own)) == i
        assert own[i] > 0


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 4}, {"cache_rewards": 4}, {"memory": 40_000_000}], ids=str
)
def test_bits_do_not_depend_on_the_company(
    style: str, alone: list[float | None], options: dict[str, Any]
) -> None:
    order = [i for i in range(len(ROWS)) for _ in range(2)]
    random.Random(0).shuffle(order)
    with embedded(style=style, likelihood_baseline=True, **options) as reward:
        for _ in range(2):
            batch = reward.score([ROWS[i][0] for i in order], [ROWS[i][1] for i in order])
            assert batch.rewards == [alone[i] for i in order]
            assert batch.stats.n_folded == len(ROWS)
            assert reward.inverter.counters.output_tokens == 0
        prefixes = reward.score_prefixes(ROWS[0][0], ROWS[0][1], [0, 30, len(ROWS[0][1])])
        expected = [reward.score([ROWS[0][0]], [ROWS[0][1][:end]]).rewards[0] for end in (0, 30)]
        assert prefixes.rewards == [*expected, alone[0]]
        assert prefixes.rewards[0] == 0.0


def test_a_reward_that_generates_can_share_the_inverter() -> None:
    with embedded() as likely, FlipReward(inverter=likely.inverter, max_new_tokens=4) as usual:
        before = usual.score(INSTRUCTIONS, RESPONSES)
        likely.score(INSTRUCTIONS, RESPONSES)
        after = usual.score(INSTRUCTIONS, RESPONSES)
    assert before.to_dicts() == after.to_dicts()
    assert before.forced_f1 is None
