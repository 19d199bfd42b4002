"""Copied runs of words, against substring search, and the mark in their place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.scoring.copying import MARK, copied_share, mask_copies, shortest_copy

FEW = st.lists(st.sampled_from("uvw"), max_size=14)  # few words, so that runs meet by chance


def windows(words, n):
    return [(at, f" {' '.join(words[at : at + n])} ") for at in range(len(words) - n + 1)]


def inside(words, others, n):
    """Places of the words that stand in a run of n that the others have, too."""
    text = f" {' '.join(others)} "
    return {at + k for at, run in windows(words, n) if run in text for k in range(n)}


@given(FEW, FEW)
def test_what_is_copied_is_what_a_search_finds(instruction, response):
    n = shortest_copy(len(instruction))
    text, share = mask_copies(" ".join(instruction), " ".join(response))
    covered = inside(instruction, response, n)
    assert share == copied_share(" ".join(instruction), " ".join(response))
    assert share == (len(covered) / len(instruction) if covered else 0.0)
    gone = inside(response, instruction, n)
    left = [MARK if at in gone else word for at, word in enumerate(response)]
    merged = [word for at, word in enumerate(left) if left[at - 1 : at] != [MARK] or word != MARK]
    assert text == " ".join(merged)


@given(
    st.lists(st.sampled_from(["ΑΣ", "İ", "the", "so\u00adil"]) | st.text()),
    st.text(),
    st.text(),
)
def test_a_whole_instruction_is_found_wherever_it_stands(words, before, behind):
    instruction = " ".join(["Name", *words, "two", "rivers"])
    assert copied_share(instruction, f"{before} {instruction} {behind}") == 1.0


@pytest.mark.parametrize(
    ("n_words", "n"), [(0, 3), (3, 3), (5, 4), (6, 4), (9, 6), (11, 8), (900, 8)]
)
def test_how_long_a_copy_is(n_words, n):
    assert shortest_copy(n_words) == n


@pytest.mark.parametrize(
    ("response", "text", "share"),
    [
        ("Erosion.", "Erosion.", 0.0),
        ("I name two long rivers of Spain!", "I [...] of Spain!", 4 / 5),
        ("**Name** two, long\nrivers: yes.", "**[...]: yes.", 4 / 5),
        ("The name two, long rivers - PLEASE? Ebro", "The [...]? Ebro", 1.0),
        ("name two long rivers name two long rivers", "[...]", 4 / 5),
        ("name two long rivers; name two long rivers", "[...]", 4 / 5),
        ("na\u200bme two\u00ad long ri\u2060vers", "[...]", 4 / 5),
        ("wi\u200bde rivers", "wi\u200bde rivers", 0.0),
        ("", "", 0.0),
    ],
)
def test_what_the_model_gets(response, text, share):
    instruction = "Name two long rivers, please."
    assert mask_copies(instruction, response) == (text, share)
    assert copied_share(instruction, response) == share


@pytest.mark.parametrize("instruction", ["", "the", "Why?", "Define soil."])
def test_a_short_instruction_has_no_copies(instruction):
    assert mask_copies(instruction, f"{instruction} {instruction}")[1] == 0.0


def test_long_texts():
    instruction = " ".join(f"w{i}" for i in range(3000))
    response = f"{instruction} {'w1 w2 ' * 20_000} {instruction}"
    text, share = mask_copies(instruction, response)
    assert share == 1.0
    assert (text.count(MARK), text.count("w1 w2")) == (2, 20_000)
