"""Credit: the differences of beginnings' rewards, by sentences, by given ends, by turns."""

import pytest

from flipfast import FlipReward, InputError
from flipfast.scoring.credit import credit, sentence_ends, turn_credit

RESPONSE = "It is a river. It ends at the sea!\nFish live in it"
INSTRUCTION = "Describe a river."


@pytest.fixture(scope="module", params=["generate", "likelihood"])
def reward(request):
    with FlipReward(scoring=request.param) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("He said \u201cNo.\u201d Then left", ["He said \u201cNo.\u201d ", "Then left"]),
        ("It costs 3.50 at example.com, e.g.", ["It costs 3.50 at example.com, e.g."]),
        ("a\nb\n\nc", ["a\n", "b\n\n", "c"]),
        ("\u4f60\u597d\u3002\u518d\u89c1\uff01", ["\u4f60\u597d\u3002", "\u518d\u89c1\uff01"]),
        ("Wait\u2026 (what?) Yes.\n", ["Wait\u2026 ", "(what?) ", "Yes.\n"]),
    ],
)
def test_sentences(text, parts):
    ends = sentence_ends(text)
    assert [text[a:b] for a, b in zip([0, *ends], ends, strict=False)] == parts


def test_credits_are_differences_and_add_up(reward):
    found = credit(reward, INSTRUCTION, RESPONSE)
    assert [part.text for part in found.parts] == [
        "It is a river. ",
        "It ends at the sea!\n",
        "Fish live in it",
    ]
    beginnings = ["", RESPONSE[:15], RESPONSE[:35], RESPONSE]
    alone = [reward.score([INSTRUCTION], [text]).rewards[0] for text in beginnings]
    assert found.beginnings.rewards == alone
    assert [part.credit for part in found.parts] == [
        alone[1] - alone[0],
        alone[2] - alone[1],
        alone[3] - alone[2],
    ]
    assert any(part.credit for part in found.parts)


def test_given_ends(reward):
    texts = [part.text for part in credit(reward, INSTRUCTION, RESPONSE, [5, 5]).parts]
    assert texts == [RESPONSE[:5], "", RESPONSE[5:]]
    assert [part.text for part in credit(reward, INSTRUCTION, RESPONSE, [0, 50]).parts] == [
        "",
        RESPONSE,
    ]
    with pytest.raises(InputError, match="end 60"):
        credit(reward, INSTRUCTION, RESPONSE, [60])


def test_a_response_without_text_is_one_part(reward):
    (part,) = credit(reward, INSTRUCTION, "").parts
    assert (part.text, part.credit) == ("", 0.0)


def test_turns(reward):
    trace = [
        {"role": "assistant", "content": "<think>first</think>It is a river."},
        {"role": "tool", "content": "The Ebro"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "Go on."},
        {"role": "assistant", "content": "It ends at the sea!"},
    ]
    found = turn_credit(reward, [{"role": "user", "content": INSTRUCTION}], trace)
    assert [part.text for part in found.parts] == ["It is a river.", "", "It ends at the sea!"]
    texts = ["", "It is a river.", "It is a river.\n\nIt ends at the sea!"]
    empty, one, both = reward.score([INSTRUCTION] * 3, texts).rewards
    assert [part.credit for part in found.parts] == [one - empty, 0.0, both - one]


def test_a_trace_without_an_assistant_is_refused(reward):
    with pytest.raises(InputError, match="no assistant turn"):
        turn_credit(reward, INSTRUCTION, [{"role": "tool", "content": "x"}])


def test_what_cannot_be_scored_has_no_credit():
    with FlipReward(min_response_words=3, on_failure=None) as strict:
        found = credit(strict, INSTRUCTION, RESPONSE)
    assert found.beginnings.status[0] == "contentless"
    assert found.parts[0].credit is None
    assert found.parts[1].credit is not None
