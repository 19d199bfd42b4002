"""FlipReward around its model: rows, statuses, seeds, trainers' calls."""

from __future__ import annotations

import json
import pickle
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flipfast import ConfigError, FlipConfig, FlipReward, InputError
from flipfast.backends import Inversion
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter


def as_json(text: str) -> str:
    return json.dumps({"REASONING": "r", "INFERRED INSTRUCTION": text})


@pytest.fixture
def make_reward(make_tokenizer: Any) -> Callable[..., tuple[FlipReward, ScriptedInverter]]:  # noqa: F811
    """A function from an answer, or a dict from a word of the prompt to one, to a reward."""

    def make(answer: Any, **options: Any) -> tuple[FlipReward, ScriptedInverter]:
        def reply(prompt: str, request: Any) -> Any:
            if not isinstance(answer, dict):
                return answer
            return next(reply for word, reply in answer.items() if word in prompt)

        inverter = ScriptedInverter(make_tokenizer(), reply)
        options = {"model": "scripted", "max_new_tokens": 64, **options}
        return FlipReward(inverter=inverter, **options), inverter

    return make


def test_rewards_are_the_word_f1_in_input_order(make_reward: Any) -> None:
    answers = {
        "first": as_json("Define 'soil degradation'."),
        "second": as_json("Explain soil degradation, and its causes."),
        "third": as_json("What is soil degradation?"),
    }
    reward, _ = make_reward(answers)
    batch = reward.score(["what is soil degradation?"] * 3, ["second", "third", "first"])
    assert batch.rewards == [0.4, 1.0, 2 * (2 / 3) * 0.5 / (2 / 3 + 0.5)]
    assert batch.status == ["ok"] * 3
    assert batch.inferred[1] == "What is soil degradation?"
    assert len(batch) == 3


def test_counts_and_stats(make_reward: Any) -> None:
    reward, inverter = make_reward(as_json("x"))
    done: list[int] = []
    batch = reward.score(["x", "y"], ["short", "longer " * 9], on_progress=done.append)
    assert batch.n_prompt_tokens == [len(r.prompt_ids) for r in inverter.requests]
    assert batch.n_output_tokens == [len(inverter.tokenizer.encode(as_json("x")))] * 2
    assert done == [2]
    stats = batch.stats
    assert (stats.n_rewards, stats.n_failed) == (2, 0)
    assert stats.rewards_per_s == pytest.approx(2 / stats.seconds)
    n_tokens = sum(batch.n_prompt_tokens) + sum(batch.n_output_tokens)
    assert stats.tokens_per_s == pytest.approx(n_tokens / stats.seconds)


def test_rows_as_dicts(make_reward: Any) -> None:
    reward, _ = make_reward(as_json("x y"))
    (row,) = reward.score(["x"], ["r"]).to_dicts()
    assert row == {
        "reward": 2 / 3,
        "precision": 0.5,
        "recall": 1.0,
        "inferred": "x y",
        "status": "ok",
        "n_prompt_tokens": row["n_prompt_tokens"],
        "n_output_tokens": row["n_output_tokens"],
        "error": None,
    }


@pytest.mark.parametrize("on_failure", [None, 0.0, -1.0])
def test_failures_get_what_on_failure_says(make_reward: Any, on_failure: float | None) -> None:
    answers = {
        "empty": as_json(""),
        "other": '{"score": 1}',
        "broken": Inversion.failed("out of luck"),
        "good": as_json("x"),
    }
    reward, _ = make_reward(answers, on_failure=on_failure)
    batch = reward.score(["x"] * 4, ["empty", "other", "broken", "good"])
    assert batch.rewards == [on_failure] * 3 + [1.0]
    assert batch.status == ["empty", "unparsed", "error", "ok"]
    assert batch.precision == [None, None, None, 1.0]
    assert batch.errors == [None, None, "out of luck", None]
    assert batch.stats.n_failed == 3


def test_the_direct_style_takes_the_output_as_it_is(make_reward: Any) -> None:
    reward, _ = make_reward("Name two rivers.", style="direct")
    assert reward.score(["Name two rivers"], ["r"]).rewards == [1.0]


def test_a_direct_output_that_never_ended_is_truncated(make_reward: Any) -> None:
    cut = Inversion([5, 6], "Name two", "length")
    reward, _ = make_reward(cut, style="direct")
    batch = reward.score(["Name two rivers"], ["r"])
    assert batch.status == ["truncated"]
    assert batch.rewards == [0.8]


def test_the_reference_parser_scores_what_the_published_code_scores(make_reward: Any) -> None:
    pretty = '{\n "REASONING": "r",\n "INFERRED INSTRUCTION": "Name two rivers"\n}'
    reference, _ = make_reward(pretty, parser="reference")
    robust, _ = make_reward(pretty)
    assert robust.score(["Name two rivers"], ["r"]).rewards == [1.0]
    assert 0 < reference.score(["Name two rivers"], ["r"]).rewards[0] < 1


def test_a_cut_response_says_so(make_reward: Any) -> None:
    reward, _ = make_reward(as_json("x"), max_response_tokens=40)
    batch = reward.score(["x", "x"], ["word " * 500, "word"])
    assert batch.status == ["ok+response_cut", "ok"]
    assert batch.rewards == [1.0, 1.0]


def test_bad_rows_cost_only_themselves(make_reward: Any) -> None:
    reward, inverter = make_reward(as_json("x"))
    batch = reward.score(["x", None, "x", "x"], ["r", "r", 3, "r"], [None, None, None, 1.5])
    assert batch.rewards == [1.0, None, None, None]
    assert batch.status == ["ok", "error", "error", "error"]
    assert batch.errors[1] == "the instruction must be a string, got None"
    assert batch.errors[2] == "the response must be a string, got 3"
    assert batch.errors[3] == "the context must be a string or None, got 1.5"
    assert batch.n_prompt_tokens[1:] == [0, 0, 0]
    assert len(inverter.requests) == 1


@pytest.mark.parametrize("text", ["", " ", "\x00", "a\ud800b", "\udfff", "{}", "<|end|>" * 50])
def test_odd_texts_are_scored(make_reward: Any, text: str) -> None:
    reward, _ = make_reward(as_json("x"))
    batch = reward.score([text, "x"], [text, text], [text, None])
    assert batch.rewards == [0.0, 1.0]


@pytest.mark.slow
def test_a_megabyte_is_scored(make_reward: Any) -> None:
    reward, _ = make_reward(as_json("x"))
    batch = reward.score(["x"], ["word \n" * 170_000])
    assert batch.rewards == [1.0]
    assert batch.status == ["ok+response_cut"]


def test_an_empty_batch(make_reward: Any) -> None:
    reward, _ = make_reward(as_json("x"))
    assert reward.score([], []).rewards == []
    assert reward([], []) == []


def test_wrong_columns_are_refused(make_reward: Any) -> None:
    reward, _ = make_reward(as_json("x"))
    with pytest.raises(InputError, match="2 instructions, 1 responses"):
        reward.score(["a", "b"], ["r"])
    with pytest.raises(InputError, match="1 prompts, 0 completions"):
        reward(["a"], [])
    with pytest.raises(InputError, match="instructions must be a list.*'abc'"):
        reward.score("abc", ["a", "b", "c"])
    with pytest.raises(InputError, match="instructions must be a list"):
        reward.score((text for text in "ab"), ["a", "b"])
    with pytest.raises(InputError, match="3 contexts"):
        reward.score(["a"], ["b"], ["c", "c", "c"])


def test_the_context_stands_in_the_prompt(make_reward: Any) -> None:
    reward, inverter = make_reward(as_json("x"))
    reward.score(["x"], ["the response"], ["the context"])
    prompt = inverter.tokenizer.decode(inverter.requests[0].prompt_ids)
    assert prompt.index("the context") < prompt.index("the response")


def test_a_trainers_call_with_messages(make_reward: Any, caplog: pytest.LogCaptureFixture) -> None:
    reward, inverter = make_reward(as_json("And in Spain?"), style="conversation")
    prompts = [
        [
            {"role": "user", "content": "Name a river."},
            {"role": "assistant", "content": "Rhine."},
            {"role": "user", "content": [{"type": "text", "text": "And in Spain?"}]},
        ],
        "And in Spain?",
        [{"role": "assistant", "content": "no user here"}],
    ]
    completions = [[{"role": "assistant", "content": "<think>hm</think>Ebro."}], "Ebro.", "Ebro."]
    rewards = reward(prompts, completions, ground_truth=[1, 2, 3], trainer_state=None)
    assert rewards == [1.0, 1.0, None]
    assert "1 of 3 rows have no reward: prompt: no user turn" in caplog.text
    first, second = (inverter.tokenizer.decode(r.prompt_ids) for r in inverter.requests)
    assert "user: Name a river.\nassistant: Rhine." in first
    assert "hm" not in first.split("[AI Answer]")[1].split("[The")[0]
    assert "Rhine" not in second
    assert reward.__name__ == "flip_reward"


def test_inferring_the_system_prompt(make_reward: Any) -> None:
    reward, inverter = make_reward(as_json("Talk like a pirate"), target="system")
    prompt = [
        {"role": "system", "content": "Talk like a pirate"},
        {"role": "user", "content": "Hello"},
    ]
    assert reward([prompt], ["Ahoy"]) == [1.0]
    assert "[User Prompt]\nHello" in inverter.tokenizer.decode(inverter.requests[0].prompt_ids)


def test_seeds_come_from_the_content(make_reward: Any) -> None:
    reward, inverter = make_reward(as_json("x"))

    def seeds(responses: list[str]) -> list[int]:
        reward.score(["x"] * len(responses), responses)
        return [request.seed for request in inverter.requests]

    alone = seeds(["b"])
    assert seeds(["a", "b", "c"])[1] == alone[0]
    assert len(set(seeds(["a", "b", "c"]))) == 3
    other, other_inverter = make_reward(as_json("x"), seed=1)
    other.score(["x"], ["b"])
    assert other_inverter.requests[0].seed != alone[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"style": "direct"}, 128),
        ({"style": "standalone"}, 512),
        ({"style": "direct", "thinking": True}, 2048),
        ({"max_new_tokens": 7}, 7),
    ],
)
def test_the_longest_output(make_reward: Any, options: dict[str, Any], expected: int) -> None:
    reward, inverter = make_reward("x", **{"max_new_tokens": None, **options})
    reward.score(["x"], ["x"])
    assert inverter.sampling.max_new_tokens == expected


def test_a_models_own_hints_are_defaults(make_reward: Any, tmp_path: Path) -> None:
    hints = {"flipfast": {"style": "direct", "max_response_tokens": 20}}
    (tmp_path / "config.json").write_text(json.dumps(hints))
    hinted, _ = make_reward("x", model=str(tmp_path))
    batch = hinted.score(["x"], ["word " * 50])
    assert (batch.rewards, batch.status) == ([1.0], ["ok+response_cut"])
    named, _ = make_reward("x", model=str(tmp_path), style="standalone", max_response_tokens=900)
    assert named.score(["x"], ["word " * 50]).status == ["prose"]


def test_options_are_checked(make_reward: Any) -> None:
    with pytest.raises(ConfigError, match="unknown option 'modle'.*model, backend"):
        FlipReward(modle="x")
    for options in ({"parser": "json"}, {"max_new_tokens": 0}, {"on_failure": float("nan")}):
        with pytest.raises(ConfigError):
            FlipConfig(**options)
    with pytest.raises(ConfigError, match="unknown prompt style 'rl'"):
        make_reward("x", style="rl")


def test_a_shared_inverter_stays_open_and_is_not_pickled(make_reward: Any) -> None:
    reward, inverter = make_reward("x")
    reward.close()
    assert not inverter.closed
    with pytest.raises(TypeError, match="shared inverter"):
        pickle.dumps(reward)


def test_several_samples_give_their_mean(make_reward: Any) -> None:
    replies = iter([as_json("x y"), as_json("x"), '{"score": 1}', as_json("z")] * 2)
    reward, inverter = make_reward("", samples=4, temperature=1.0, style="standalone")
    inverter._answer = lambda prompt, request: next(replies)
    batch = reward.score(["x", "x"], ["r", "s"])
    assert len({request.seed for request in inverter.requests}) == 8
    expected = [2 / 3, 1.0, 0.0]  # the unparsed one is left out
    assert batch.rewards == [pytest.approx(sum(expected) / 3)] * 2
    assert batch.reward_std == [pytest.approx(statistics.pstdev(expected))] * 2
    assert batch.agreement == [pytest.approx((2 / 3 + 0 + 0) / 3)] * 2
    assert (batch.inferred[0], batch.status[0]) == ("x y", "ok")
    assert batch.stats.n_failed == 0
    (row, _) = batch.to_dicts()
    assert row["reward_std"] == batch.reward_std[0]
    assert row["agreement"] == batch.agreement[0]


def test_failed_samples_count_as_on_failure_says(make_reward: Any) -> None:
    replies = iter([as_json("x"), '{"score": 1}', '{"score": 1}', '{"score": 1}'])
    reward, inverter = make_reward("", samples=2, temperature=1.0, on_failure=0.0)
    inverter._answer = lambda prompt, request: next(replies)
    batch = reward.score(["x", "x"], ["r", "s"])
    assert batch.rewards == [0.5, 0.0]
    assert batch.precision == [1.0, None]
    assert batch.reward_std == [0.5, 0.0]
    assert batch.agreement == [None, None]
    assert batch.stats.n_failed == 1


def test_a_samples_seed_is_its_own(make_reward: Any) -> None:
    one, inverter = make_reward(as_json("x"), temperature=1.0)
    one.score(["x"], ["r"])
    (alone,) = inverter.requests
    many, inverter = make_reward(as_json("x"), temperature=1.0, samples=3)
    many.score(["y", "x"], ["s", "r"])
    assert inverter.requests[3] == alone  # the first of three is the only one of one


def test_samples_need_a_temperature() -> None:
    with pytest.raises(ConfigError, match="samples=4 with temperature=0"):
        FlipConfig(samples=4)


def test_a_progress_bar_on_request(make_reward: Any, capsys: pytest.CaptureFixture[str]) -> None:
    quiet, _ = make_reward(as_json("x"))
    quiet.score(["x"], ["r"])
    assert capsys.readouterr() == ("", "")
    loud, _ = make_reward(as_json("x"), progress=True)
    done: list[int] = []
    loud.score(["x"] * 3, ["r", "s", "t"], on_progress=done.append)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert done == [3]


def test_as_a_context_manager(make_reward: Any) -> None:
    reward, inverter = make_reward(as_json("x"))
    with reward as same:
        assert same is reward
        assert same.inverter is inverter
    assert not inverter.closed  # a shared one is somebody else's to close
    with inverter:
        pass
    assert inverter.closed


def test_a_model_that_answers_in_prose_is_told_of_once(make_reward, caplog):
    reward, _ = make_reward("Name a river.", style="standalone")
    batch = reward.score(["a", "b", "c"], ["x", "y", "z"])
    assert batch.status == ["prose"] * 3
    reward.score(["a"], ["x"])
    (line,) = [record.getMessage() for record in caplog.records]
    assert "3 of 3 outputs of scripted hold no JSON object" in line
    assert "style='direct', or the model 'small'" in line
    caplog.clear()
    silent, _ = make_reward("Name a river.", style="direct")
    assert silent.score(["a"], ["x"]).status == ["ok"]
    assert not caplog.records
