"""Rewards under several prompts."""

from __future__ import annotations

import pytest

from flipfast.quality.consistency import compare_wordings
from flipfast.quality.raters import Group

pytest.importorskip("scipy")

GROUPS = [Group("k l m n", ("Ebro", "Tagus", "Douro")), Group("none", ())]
# What the response is taken for, by a prompt that asks for JSON and by one that does not.
WITH_JSON = {"Ebro": "k l m n", "Tagus": "k l", "Douro": "x"}
WITHOUT = {"Ebro": "k l", "Tagus": "k l m n", "Douro": "x"}


def by_style(prompt, request):
    texts = WITH_JSON if "JSON" in prompt else WITHOUT
    return next(text for word, text in texts.items() if word in prompt.partition("[Response]")[2])


def by_response(prompt, request):
    shown = prompt.partition("[Response]")[2] or prompt.partition("[AI Answer]")[2]
    return next(text for word, text in WITH_JSON.items() if word in shown)


def test_any_two_prompts(scripted):
    found = compare_wordings(scripted(by_response), GROUPS)
    assert [run.name for run in found.runs] == ["standalone", "conversation", "direct"]
    assert [(one.first, one.second) for one in found.changes] == [
        ("standalone", "conversation"),
        ("standalone", "direct"),
        ("conversation", "direct"),
    ]
    assert all(run.rewards == [[1, pytest.approx(2 / 3), 0], []] for run in found.runs)
    assert all(one.agreement.spearman == pytest.approx(1) for one in found.changes)
    assert all((one.flips.n_pairs, one.flips.n_flipped) == (3, 0) for one in found.changes)
    assert found.left_out == {}


def test_a_prompt_that_turns_the_best_round(scripted, monkeypatch):
    monkeypatch.setattr("flipfast.quality.consistency.wordings.STYLES", ("standalone", "direct"))
    (found,) = compare_wordings(scripted(by_style, style="direct"), GROUPS).changes
    assert (found.agreement.same_best, found.agreement.kendall) == (0, pytest.approx(1 / 3))
    assert (found.flips.n_pairs, found.flips.n_flipped) == (3, 1)
    assert (found.n_both, found.bit_equal) == (3, pytest.approx(1 / 3))


def test_the_authors_files_are_one_more_wording(scripted, tmp_path):
    (tmp_path / "FLIP_SYSTEM.prompt").write_text("Guess what was asked for.")
    (tmp_path / "FLIP_USER.prompt").write_text("[Response] {response}\nReply in JSON")
    found = compare_wordings(scripted(by_response, prompts_dir=str(tmp_path)), GROUPS)
    assert found.runs[0].name == "prompts_dir"
    assert len(found.runs) == 4
    assert len(found.changes) == 6


def test_a_prompt_without_a_place_for_the_context_is_left_out(scripted, tmp_path):
    (tmp_path / "FLIP_SYSTEM.prompt").write_text("Guess what was asked for.")
    (tmp_path / "FLIP_USER.prompt").write_text("[Response] {response}\nReply in JSON")
    groups = [Group("k l m n", ("Ebro", "Tagus"), context="user: hello")]
    found = compare_wordings(scripted(by_response, prompts_dir=str(tmp_path)), groups)
    assert [run.name for run in found.runs] == ["standalone", "conversation", "direct"]
    assert "{context}" in found.left_out["prompts_dir"]


def test_failures_are_counted(scripted):
    def script(prompt, request):
        return "" if "JSON" not in prompt else by_response(prompt, request)

    found = compare_wordings(scripted(script), GROUPS)
    assert [run.n_failed for run in found.runs] == [0, 0, 3]
    assert found.runs[2].mean_reward is None
    assert found.changes[1].bit_equal is None
    assert found.changes[1].flips.share is None
