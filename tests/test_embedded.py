"""The model in the package: size, promised figures, purity, the command line with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flipfast import FlipReward, InputError
from flipfast.backends import Inverter
from flipfast.backends.native import NativeInverter
from flipfast.cli import main
from flipfast.training.evaluate import evaluate_world
from flipfast.training.world import World

pytestmark = pytest.mark.slow

ASSETS = Path(__file__).parents[1] / "flipfast" / "assets"


@pytest.fixture(scope="module")
def reward() -> FlipReward:
    return FlipReward()


def test_it_is_small() -> None:
    weights = ASSETS / "tiny-inverter" / "model.safetensors"
    assert weights.stat().st_size <= 16_000_000
    assert (ASSETS / "tiny-inverter" / "README.md").exists()


def test_it_inverts_held_out_instructions(reward: FlipReward) -> None:
    figures = evaluate_world(reward, n_groups=40, seed=1)
    assert figures["mean_f1"]["good"] >= 0.85
    assert figures["best_of_8"] >= 0.95


def test_neighbours_have_no_say(reward: FlipReward) -> None:
    rng, world = Random(7), World(held_out=True)
    samples = [sample for _ in range(4) for sample in world.group(rng).samples]
    other = FlipReward(inverter=reward.inverter, temperature=0.8, seed=5)
    for sampled in (reward, other):
        whole = sampled.score([s.instruction for s in samples], [s.response for s in samples])
        mixed = rng.sample(range(len(samples)), 11)
        part = sampled.score(
            [samples[i].instruction for i in mixed], [samples[i].response for i in mixed]
        )
        assert part.inferred == [whole.inferred[i] for i in mixed]
        assert part.rewards == [whole.rewards[i] for i in mixed]


def test_beginnings_are_scored_like_texts_of_their_own(reward: FlipReward) -> None:
    sample = World(held_out=True).good(Random(3))
    response = " ".join([sample.response] * 6)
    ends = [0, len(response) // 4, len(response) // 2, len(response) // 2, len(response)]
    alone = [reward.score([sample.instruction], [response[:end]]) for end in ends]
    native = reward.inverter
    assert isinstance(native, NativeInverter)
    native.forget_prefixes()
    before = native.counters
    batch = reward.score_prefixes(sample.instruction, response, ends)
    assert batch.rewards == [part.rewards[0] for part in alone]
    assert batch.inferred == [part.inferred[0] for part in alone]
    assert batch.rewards[-1] > 0
    computed = native.counters.prompt_tokens - native.counters.prefix_tokens
    computed -= before.prompt_tokens - before.prefix_tokens
    assert computed < 0.8 * sum(batch.n_prompt_tokens[i] for i in (0, 1, 2, 4))


@pytest.mark.parametrize("ends", [[3, 2], [-1], [0, 9]])
def test_an_end_outside_is_named(reward: FlipReward, ends: list[int]) -> None:
    with pytest.raises(InputError, match=f"end {ends[-1]} of a beginning must lie in"):
        reward.score_prefixes("x", "a river", ends)


def test_a_seed_changes_the_sample(reward: FlipReward) -> None:
    sample = World(held_out=True).good(Random(8))
    options = {"inverter": reward.inverter, "temperature": 3.0, "max_new_tokens": 8}
    inferred = {
        FlipReward(seed=seed, **options).score([""], [sample.response]).inferred[0]
        for seed in range(4)
    }
    assert len(inferred) > 1


def test_it_reads_the_json_styles(reward: FlipReward) -> None:
    rng, world = Random(9), World(held_out=True)
    samples = [world.good(rng) for _ in range(12)]
    for style in ("standalone", "conversation"):
        batch = FlipReward(inverter=reward.inverter, style=style, max_new_tokens=100).score(
            [s.instruction for s in samples], [s.response for s in samples]
        )
        assert batch.status.count("ok") >= 10


def test_stopped_outputs_give_the_same_rewards(reward: FlipReward) -> None:
    native = reward.inverter
    assert isinstance(native, NativeInverter)
    rng, world = Random(11), World(held_out=True)
    samples = [world.good(rng) for _ in range(12)]
    batches, sampled = [], []
    for early_stop in (False, True):
        scorer = FlipReward(inverter=native, style="conversation", early_stop=early_stop)
        before = native.counters.output_tokens
        batches.append(
            scorer.score([s.instruction for s in samples], [s.response for s in samples])
        )
        sampled.append(native.counters.output_tokens - before)
    assert batches[0].rewards == batches[1].rewards
    assert batches[0].inferred == batches[1].inferred
    assert batches[1].status.count("ok") >= 10
    assert sampled[1] < sampled[0]  # at least the end token is not waited for


@pytest.mark.parametrize("options", [{}, {"max_new_tokens": 40}, {"temperature": 1.5, "seed": 3}])
def test_forced_outputs_are_objects(
    reward: FlipReward, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, world = Random(12), World(held_out=True)
    samples = [world.good(rng) for _ in range(24)]
    outputs: list[str] = []
    monkeypatch.setattr(
        NativeInverter,
        "decode",
        lambda self, ids: outputs.append(Inverter.decode(self, ids)) or outputs[-1],
    )
    scorer = FlipReward(inverter=reward.inverter, style="standalone", json="forced", **options)
    outputs.clear()
    whole = scorer.score([s.instruction for s in samples], [s.response for s in samples])
    assert len(outputs) == len(samples)
    for output in outputs:
        assert list(json.loads(output)) == ["REASONING", "INFERRED INSTRUCTION"]
    assert set(whole.status) <= {"ok", "truncated", "empty"}
    assert "truncated" in whole.status or "max_new_tokens" not in options
    mixed = rng.sample(range(len(samples)), 7)
    part = scorer.score(
        [samples[i].instruction for i in mixed], [samples[i].response for i in mixed]
    )
    assert part.inferred == [whole.inferred[i] for i in mixed]
    assert part.rewards == [whole.rewards[i] for i in mixed]


def test_the_demo_shows_a_table() -> None:
    command = [sys.executable, "-m", "flipfast", "demo", "--model", "embedded"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best") >= 4
    assert done.stdout.count("worst") >= 4
    assert "rewards/s" in done.stdout


def test_scoring_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = (ASSETS / "demo_groups.jsonl").read_text().splitlines()
    assert main(["score", str(ASSETS / "demo_groups.jsonl"), "--out", str(out)]) == 0
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(scored) == len(rows)
    assert all(len(row["rewards"]) == len(row["responses"]) for row in scored)
    best = [max(range(len(row["rewards"])), key=row["rewards"].__getitem__) for row in scored]
    assert sum(index < 2 for index in best) >= len(scored) - 1  # good ones come first in that file


def test_info_names_versions_and_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for word in ("torch", "transformers", "text core", "device: cpu", "flash-attn"):
        assert word in shown


def test_an_unknown_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--model", str(tmp_path / "nowhere")]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "nowhere" in shown
