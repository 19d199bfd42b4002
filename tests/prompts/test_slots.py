"""Prompts with several texts in them, and how texts share a prompt's room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.errors import ConfigError
from flipfast.prompts.chat import ChatTemplate
from flipfast.prompts.fitting import fair_shares
from flipfast.prompts.slots import SlotPrompt

DATE = "2024-07-26"
USER = "Task {{kept}}\n[A]\n{response_a}\n[B]\n{response_b}\nVerdict:"
SLOTS = ("response_a", "response_b")


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture
def prompt(tokenizer):
    return SlotPrompt(
        ChatTemplate(tokenizer, date=DATE), "Be fair.", USER, SLOTS, max_prompt_tokens=400
    )


def test_the_texts_stand_in_their_places(prompt, tokenizer):
    found = prompt.render({"response_a": "first text", "response_b": "second text"})
    text = tokenizer.decode(found.token_ids)
    assert "Task {kept}\n[A]\nfirst text\n[B]\nsecond text\nVerdict:" in text
    assert not found.cut


def test_slots_in_a_text_are_no_slots(prompt, tokenizer):
    texts = {"response_a": "{response_b} FLIPFASTxRESPONSExBxSLOT", "response_b": "{x"}
    text = tokenizer.decode(prompt.render(texts).token_ids)
    assert "[A]\n{response_b} FLIPFASTxRESPONSExBxSLOT\n[B]\n{x\n" in text


def test_long_texts_are_cut_to_the_longest_prompt(prompt):
    found = prompt.render({"response_a": "word " * 900, "response_b": "short"})
    assert found.cut
    assert len(found.token_ids) == 400


def test_no_room(tokenizer):
    with pytest.raises(ConfigError, match="leaves room for"):
        SlotPrompt(ChatTemplate(tokenizer, date=DATE), None, USER, SLOTS, max_prompt_tokens=40)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(0, 300))
def test_shares_are_fair(lengths, room):
    shares = fair_shares(lengths, room)
    assert sum(shares) == min(sum(lengths), room)
    cut = [share for share, length in zip(shares, lengths, strict=True) if share < length]
    if cut:  # no one who is cut has less than an uncut one, nor than another, but for the rounding
        assert min(cut) >= max(shares) - 1


def test_start_and_end_are_the_template_around_the_texts(tokenizer):
    for template in (tokenizer.chat_template, None):
        tokenizer.chat_template = template
        prompt = SlotPrompt(
            ChatTemplate(tokenizer, date=DATE), "Be fair.", USER, SLOTS, max_prompt_tokens=400
        )
        ids = prompt.render({"response_a": "first", "response_b": "second"}).token_ids
        assert ids[: len(prompt.start)] == prompt.start
        assert ids[-len(prompt.end) :] == prompt.end
        assert tokenizer.decode(prompt.start).endswith("Task {kept}\n[A]\n")
        assert tokenizer.decode(prompt.end).startswith("\nVerdict:")
