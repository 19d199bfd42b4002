"""The best response is the one that the rewards name, whoever was not finished."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flipfast import BestOf, FlipReward, InputError, ScoreBatch
from flipfast.backends import Inversion, InversionRequest, SamplingParams
from flipfast.engine.sequence import Sequence as EngineSequence
from flipfast.training.world import World
from tests.prompts.conftest import CHAT, make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

END = 4  # of the tokenizer's marks
INSTRUCTION = "Name two rivers in France"
OPEN_THINK = CHAT + "<think>\n"


class SideBySide(ScriptedInverter):
    """Says its answers token by token, all at a time, as their watchers let it."""

    watches = True
    end_ids = frozenset([END])

    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        whole = super().generate(requests, sampling, on_progress)
        sequences = [EngineSequence([0], sampling, watcher=r.watcher) for r in requests]
        for step in range(sampling.max_new_tokens):
            for sequence, one in zip(sequences, whole, strict=True):
                if sequence.finish_reason is None and one.error is None:
                    sequence.accept([*one.output_ids, END][step], self.end_ids)
        return [
            one if one.error else Inversion(s.output_ids, None, str(s.finish_reason))
            for s, one in zip(sequences, whole, strict=True)
        ]


@pytest.fixture
def make(make_tokenizer: Any) -> Callable[..., tuple[FlipReward, ScriptedInverter]]:  # noqa: F811
    """A function from answers, by a word of the response, to a reward."""

    def made(answers: dict[str, Any], kind: Any = SideBySide, **options: Any) -> Any:
        def reply(prompt: str, _: InversionRequest) -> Any:
            return next(answer for word, answer in answers.items() if word in prompt)

        template = options.pop("chat_template", CHAT)
        inverter = kind(make_tokenizer(chat_template=template), reply)
        options = {"max_new_tokens": 400, "style": "direct", **options}
        return FlipReward(inverter=inverter, **options), inverter

    return made


def as_json(text: str) -> str:
    return json.dumps({"REASONING": "It names some.", "INFERRED INSTRUCTION": text})


def check(best: BestOf, batch: ScoreBatch) -> None:
    """Whether a best-of says what the rewards do, but for those that were pruned."""
    ranked = [(reward, -at) for at, reward in enumerate(batch.rewards) if reward is not None]
    assert best.best == (-max(ranked)[1] if ranked else None)
    pruned = [status.startswith("pruned") for status in best.status]
    assert best.n_pruned == sum(pruned)
    assert bool(best.n_spared_tokens) == any(pruned)
    for at, is_pruned in enumerate(pruned):
        if is_pruned:
            assert best.rewards[at] is None
            assert best.n_output_tokens[at] <= batch.n_output_tokens[at]
        else:
            assert best.rewards[at] == batch.rewards[at]
            assert best.status[at] == batch.status[at]
            assert best.inferred[at] == batch.inferred[at]
            assert best.errors[at] == batch.errors[at]
            assert best.n_output_tokens[at] == batch.n_output_tokens[at]


ANSWERS = {
    "good": INSTRUCTION,
    "fair": "Name three long rivers in France and tell which sea they end in.",
    "poor": "Explain what a sea is, and why all of it is salty and deep and blue.",
    "none": "",
    "error": Inversion.failed("out of luck"),
}


@pytest.mark.parametrize("style", ["direct", "standalone"])
@pytest.mark.parametrize("options", [{}, {"on_failure": 0.0}, {"on_failure": 0.9}])
def test_the_winner_is_the_same(make: Any, style: str, options: dict[str, Any]) -> None:
    say = as_json if style == "standalone" else str
    answers = {word: say(a) if isinstance(a, str) else a for word, a in ANSWERS.items()}
    reward, _ = make(answers, style=style, **options)
    rng = random.Random(4)
    n_pruned = 0
    for _ in range(20):
        words = rng.choices(list(ANSWERS), k=rng.randint(1, 6))
        responses = [f"{word} {rng.randrange(3)}" for word in words]
        best = reward.score_best_of(INSTRUCTION, responses)
        check(best, reward.score([INSTRUCTION] * len(responses), responses))
        n_pruned += best.n_pruned
    assert n_pruned > 10


def test_a_copy_ends_no_other_output(make: Any) -> None:
    reward, _ = make(ANSWERS, copy_guard="discount")
    best = reward.score_best_of(INSTRUCTION, [f"good: {INSTRUCTION}", "fair"])
    assert (best.best, best.rewards[0], best.status) == (1, 0.0, ["ok", "ok"])


def test_a_pruned_response_tells_how_far_it_came(make: Any) -> None:
    reward, inverter = make(ANSWERS, max_new_tokens=300)
    best = reward.score_best_of(INSTRUCTION, ["poor", "good", "fair", "poor"])
    assert best.best == 1
    assert best.rewards == [None, 1.0, None, None]
    assert best.status == ["pruned", "ok", "pruned", "pruned"]
    assert best.inferred[0] == best.inferred[3] == ANSWERS["poor"][: len(best.inferred[0])] != ""
    # The two that are the same are one run.
    assert best.n_spared_tokens == sum(300 - best.n_output_tokens[at] for at in (0, 2))
    assert (best.n_pruned, best.stats.n_folded, len(inverter.requests)) == (3, 1, 3)
    assert (best.stats.n_rewards, best.stats.n_failed) == (4, 0)


def test_the_first_of_equals_wins_even_if_it_comes_last(make: Any) -> None:
    answers = {"long": f"{INSTRUCTION}{' ' * 40}?", "short": INSTRUCTION}
    reward, _ = make(answers)
    assert reward.score_best_of(INSTRUCTION, ["long", "short", "long"]).best == 0
    best = reward.score_best_of(INSTRUCTION, ["short", "long"])
    assert (best.best, best.status) == (0, ["ok", "pruned"])


def test_pruned_results_are_not_kept(make: Any) -> None:
    reward, _ = make(ANSWERS, cache_rewards=9)
    responses = ["good", "fair", "poor"]
    assert reward.score_best_of(INSTRUCTION, responses).n_pruned == 2
    batch = reward.score([INSTRUCTION] * 3, responses)
    assert (batch.stats.n_cached, batch.status) == (1, ["ok"] * 3)
    best = reward.score_best_of(INSTRUCTION, responses)
    assert (best.best, best.rewards, best.stats.n_cached) == (0, batch.rewards, 3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ScriptedInverter, {}),
        (SideBySide, {"samples": 2, "temperature": 1.0}),
        (SideBySide, {"style": "standalone", "parser": "reference"}),
        (SideBySide, {"chat_template": OPEN_THINK}),
    ],
)
def test_where_nothing_can_be_pruned(make: Any, kind: Any, options: dict[str, Any]) -> None:
    reward, _ = make(ANSWERS, kind, **options)
    responses = ["good", "poor", "fair", "none", "error"]
    best = reward.score_best_of(INSTRUCTION, responses)
    assert (best.best, best.n_pruned, best.n_spared_tokens) == (0, 0, 0)
    assert reward._generation.race(INSTRUCTION) is None
    check(best, reward.score([INSTRUCTION] * 5, responses))


def test_a_late_thought_may_be_the_answer_where_the_prompt_began_it(make: Any) -> None:
    answers = {
        "thinker": f"It is all about the sea.</think> {INSTRUCTION}",
        "fair": "Name two rivers.",
    }
    for template, winner in ((OPEN_THINK, 0), (CHAT, 1)):
        reward, _ = make(answers, chat_template=template)
        best = reward.score_best_of(INSTRUCTION, ["thinker", "fair"])
        check(best, reward.score([INSTRUCTION] * 2, ["thinker", "fair"]))
        assert best.best == winner


def test_bad_responses_lose_and_no_more(make: Any) -> None:
    reward, _ = make(ANSWERS)
    best = reward.score_best_of(INSTRUCTION, [None, "fair", "error", 7])
    assert best.best == 1
    assert best.rewards == [None, best.rewards[1], None, None]
    assert best.status == ["contentless", "ok", "error", "error"]
    assert "must be a string, got 7" in str(best.errors[3])
    assert len(best) == 4


def test_nobody_wins_where_all_fail(make: Any) -> None:
    reward, _ = make(ANSWERS)
    best = reward.score_best_of(INSTRUCTION, ["none", "error"])
    assert (best.best, best.rewards, best.status) == (None, [None, None], ["empty", "error"])
    assert reward.score_best_of(INSTRUCTION, []).best is None
    failed, _ = make(ANSWERS, on_failure=0.0)
    assert failed.score_best_of(INSTRUCTION, ["none", "error"]).best == 0
    assert reward.score_best_of("", ["fair", "good"]).best == 0  # nothing to be had


@pytest.mark.parametrize(
    "arguments", [("x", "a string"), (None, ["good"]), ("x", ["good"], 3), ("x", None)]
)
def test_wrong_arguments_are_named(make: Any, arguments: Any) -> None:
    reward, _ = make(ANSWERS)
    with pytest.raises(InputError, match="must be"):
        reward.score_best_of(*arguments)


def test_a_response_that_was_cut_may_be_pruned(make: Any) -> None:
    reward, _ = make(ANSWERS, max_response_tokens=40)
    best = reward.score_best_of(INSTRUCTION, ["good", "poor " * 50])
    assert best.status == ["ok", "pruned+response_cut"]
    assert (best.best, best.n_pruned, best.rewards) == (0, 1, [1.0, None])


def groups() -> list[tuple[str, list[str]]]:
    rng, world = random.Random(12), World(held_out=True)
    made = [list(world.group(rng).samples) for _ in range(2)]
    return [(samples[0].instruction, [s.response for s in samples]) for samples in made]


@pytest.mark.parametrize(
    "options",
    [
        {"style": "direct"},
        {"style": "direct", "drafting": False, "batch_size": 3},
        {"style": "direct", "temperature": 0.7, "max_new_tokens": 48},
        {"style": "standalone", "max_new_tokens": 120},
        {"style": "standalone", "early_stop": False, "max_new_tokens": 120},
        {"style": "standalone", "json": "forced", "max_new_tokens": 120},
    ],
)
def test_the_embedded_model_finds_the_same(options: dict[str, Any]) -> None:
    reward = FlipReward(**options)
    n_pruned = 0
    for instruction, responses in groups():
        best = reward.score_best_of(instruction, responses)
        check(best, reward.score([instruction] * len(responses), responses))
        n_pruned += best.n_pruned
    assert n_pruned > 0


@pytest.mark.slow
def test_real_groups(shared_file: Any) -> None:
    with gzip.open(shared_file("data/workload_groups.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(4)]
    reward = FlipReward(style="direct")
    produced = []
    for row in rows:
        batch = reward.score([row["instruction"]] * len(row["responses"]), row["responses"])
        best = reward.score_best_of(row["instruction"], row["responses"])
        check(best, batch)
        produced.append((sum(best.n_output_tokens), sum(batch.n_output_tokens)))
    fewer, all_of_them = map(sum, zip(*produced, strict=True))
    assert fewer < all_of_them
