"""The model of an H200: tokens are conserved, floors are those worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

from bench.gpu.model import (
    IDEAL,
    Assumed,
    device_s,
    floors,
    measured,
    n_launches,
    rewards_per_s,
    step_s,
    tables,
)
from bench.gpu.step_mix import Load, Step, simulate
from bench.shapes import QWEN3

SMALL = Load(40, n_prompt=60, n_shared=32, n_out=(5, 5), max_seqs=8, max_tokens=128)
DECODE = Step(decoding=256, decode_rows=256, decode_keys=256 * 700, logits=256)
MIXED = DECODE._replace(prompt_rows=500, prompt_keys=700, prompt_pairs=200_000)
DRAFTED = DECODE._replace(decode_rows=512, logits=512)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("drafts", [0, 3])
def test_tokens_go_in_and_come_out(groups, drafts):
    steps, n_cached = simulate(SMALL, groups=groups, drafts=drafts, acceptance=0.5)
    assert sum(step.prompt_rows for step in steps) + n_cached == 40 * 60
    assert n_cached == 39 * 32
    assert sum(step.emitted for step in steps) == 40 * 5
    pairs = [step.prompt_pairs for step in steps]
    assert sum(pairs) == 60 * 61 // 2 + 39 * (60 * 61 - 32 * 33) // 2
    decoded = sum(step.decode_rows for step in steps)
    assert any(step.drafted for step in steps) == (drafts > 0)
    if not drafts:
        assert decoded == 40 * 4  # the first token comes out of the prompt
        assert sum(step.logits for step in steps) == 40 * 5
    assert all(step.rows <= 128 and step.decoding <= 8 for step in steps)


def test_sequences_that_join_together_leave_more_steps_that_only_decode():
    load = replace(SMALL, n=160, n_out=(10, 40), max_seqs=64, max_tokens=1024)

    def n_mixed(groups):
        steps, _ = simulate(load, groups=groups)
        return sum(step.decoding > 0 and step.prompt_rows > 0 for step in steps)

    assert n_mixed(True) < n_mixed(False)


@pytest.mark.parametrize(
    ("shape", "prompts_ms", "products_ms", "keys_ms", "rewards"),
    [
        ("qwen3-0.6b", 155, 0.39, 4.7, 503),
        ("qwen3-1.7b", 462, 1.12, 4.7, 295),
        ("qwen3-4b", 1192, 2.61, 6.0, 143),
        ("qwen3-8b", 2244, 4.90, 6.0, 85),
    ],
)
def test_floors_are_those_worked_out_by_hand(shape, prompts_ms, products_ms, keys_ms, rewards):
    """256 sequences of 650 tokens, 160 of them shared, and 70 out."""
    prompts, products, keys = floors(shape)
    assert 1e3 * prompts == pytest.approx(prompts_ms, rel=5e-3)
    assert 1e3 * products == pytest.approx(products_ms, rel=1e-2)
    assert 1e3 * keys == pytest.approx(keys_ms, rel=1e-2)
    assert 256 / (prompts + 70 * (products + keys)) == pytest.approx(rewards, rel=5e-3)


@pytest.mark.parametrize("step", [DECODE, MIXED, DRAFTED])
@pytest.mark.parametrize("shape", QWEN3)
def test_no_step_is_faster_than_its_floor(shape, step):
    floor = device_s(step, shape, IDEAL)
    assert 0 < floor < device_s(step, shape, Assumed()) <= step_s(step, shape, Assumed())
    assert step_s(step, shape, IDEAL) == floor


def test_recorded_steps_launch_nothing_and_drafts_wait_for_the_host():
    a = Assumed(host_launch=1.0, host_step=10.0)
    shape = "qwen3-0.6b"
    assert n_launches(DECODE, shape, a) == 253  # counted under a faked driver
    assert step_s(DECODE, shape, a) == 10.0
    assert step_s(MIXED, shape, a) == 10.0 + 253
    assert step_s(MIXED, shape, replace(a, mixed_launches=2)) == 10.0 + 281
    assert step_s(DRAFTED, shape, a) == 10.0 + 253
    assert step_s(MIXED, shape, replace(a, recorded_rows=756)) == 10.0
    assert step_s(MIXED, shape, replace(a, recorded_rows=755)) == 10.0 + 253
    recorded = replace(a, recorded_drafts=True)
    assert step_s(DRAFTED, shape, recorded) == 10.0 + device_s(DRAFTED, shape, a)


def test_8_bits_halve_products_but_the_heads():
    """And add a launch a layer, for what attention wrote."""
    shape, eight = "qwen3-8b", Assumed(fp8=True)
    assert n_launches(DECODE, shape, eight) == n_launches(DECODE, shape, Assumed()) + 36
    alone = Step(decoding=256, decode_rows=256)
    with_head = alone._replace(logits=256)
    (plain, fast), (plain_head, fast_head) = (
        [device_s(step, shape, replace(IDEAL, fp8=fp8)) for fp8 in (False, True)]
        for step in (alone, with_head)
    )
    assert fast == pytest.approx(plain / 2)
    assert fast_head - fast == pytest.approx(plain_head - plain) != 0


def test_shares_of_products_follow_the_logarithm_of_their_rows():
    a = Assumed(few_rows=0.4, many_rows=0.6)
    shares = [a.product_share(rows) for rows in (1, 256, 512, 8192, 10**5)]
    assert shares == pytest.approx([0.4, 0.4, 0.44, 0.6, 0.6])


def test_rewards_are_requests_over_the_time_of_all_steps():
    mix = simulate(SMALL)
    seconds = math.fsum(step_s(step, "qwen3-4b", IDEAL) for step in mix.steps)
    assert rewards_per_s(mix, 40, "qwen3-4b", IDEAL) == pytest.approx(40 / seconds)


def test_measured_rates_replace_assumed_ones():
    def row(group, name, **figures):
        return {"group": group, "name": f"{group}, {name}", "extra_info": figures}

    rates = {"product_gflop_per_s": 800e3}
    rows = [
        row("device", "device", copy_gb_per_s=4000.0, **rates),
        row("product", "4096 x 1024, 256 rows", tflop_per_s=400.0, share_of_copy=0.1, **rates),
        row("product", "1024 x 2048, 256 rows", tflop_per_s=480.0, share_of_copy=0.1, **rates),
        row("product", "1024 x 2048, 8192 rows", tflop_per_s=600.0, share_of_copy=0.1, **rates),
        row("fp8 product", "1024 x 2048, 8192 rows", tflop_per_s=900.0),
        row("product", "1024 x 2048, 64 rows", tflop_per_s=40.0, share_of_copy=0.75, **rates),
        row("attention", "decode, 256 x 700, 16 heads", share_of_copy=0.6),
        row("attention", "decode, 256 x 2048, 16 heads", share_of_copy=0.9),
    ]
    found, names = measured(rows, Assumed())
    expected = {"bytes_a_s": 4e12, "flops_a_s": 8e14, "few_rows": 0.55}
    expected |= {"weights": 0.75, "decode_tile": 0.6, "many_rows": 0.75, "fp8_speed": 1.5}
    assert {name: getattr(found, name) for name in names} == pytest.approx(expected)
    assert replace(found, **{name: getattr(Assumed(), name) for name in names}) == Assumed()
    assert measured([], Assumed()) == (Assumed(), [])


@pytest.mark.slow
def test_the_documented_tables_are_what_the_model_says():
    text = (Path(__file__).parents[2] / "docs/kernels.md").read_text("utf-8")
    assert tables(Load(), Assumed()) in text
