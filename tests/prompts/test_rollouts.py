"""The response in a decoded rollout."""

import pytest

from flipfast.errors import InputError
from flipfast.prompts.rollouts import split_response, strip_special

PROMPT = "<|im_start|>user\nName a river.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("The Seine.<|im_end|>", "The Seine."),
        ("The Seine.<|im_end|>\n<|endoftext|><|endoftext|>", "The Seine."),
        ("The Seine.</s>", "The Seine."),
        ("The Seine.<end_of_turn>\n<eos>", "The Seine."),
        ("The Seine.<｜end▁of▁sentence｜>", "The Seine."),
        ("The Seine. \n", "The Seine. \n"),
        ("<|eot_id|>", ""),
        ("", ""),
        ("Use <|im_end|> to end a turn.", "Use <|im_end|> to end a turn."),
        ("a <|b c|>", "a <|b c|>"),
        ("x </answer>", "x </answer>"),
    ],
)
def test_special_tokens_at_the_end_go(text, rest):
    assert strip_special(text) == rest


def test_the_response_is_what_follows_the_prompt():
    assert split_response(PROMPT + "The Seine.<|im_end|>", PROMPT) == "The Seine."
    assert split_response("The Seine.", "") == "The Seine."


def test_a_prompt_that_was_cut_from_the_left():
    prompt = "word " * 300 + PROMPT
    assert split_response(prompt[1000:] + "The Seine.", prompt) == "The Seine."
    # A prompt that repeats itself: the longest part of it that the query can begin with.
    prompt = "abcd" * 100
    assert split_response(prompt[200:] + "The Seine.", prompt) == "The Seine."
    # A response that repeats the prompt.
    prompt = "word " * 300 + PROMPT
    assert split_response(prompt[1000:] + PROMPT + "x", prompt) == PROMPT + "x"


@pytest.mark.parametrize(("query", "prompt"), [("another text", PROMPT), (None, PROMPT), ("x", 3)])
def test_a_query_without_its_prompt_is_an_error(query, prompt):
    with pytest.raises(InputError):
        split_response(query, prompt)
