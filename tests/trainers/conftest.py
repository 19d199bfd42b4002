"""Rows as trainers have them, and what FlipReward gives for them."""

from collections.abc import Iterator
from typing import Any

import pytest

from flipfast import FlipReward
from flipfast.trainers import _scorers

BREAD = "How do I make banana bread?"
RIVER = "Name a river in France."
CHAT = [{"role": "system", "content": "You are an assistant."}, {"role": "user", "content": BREAD}]
RESPONSE = "To make banana bread, mash bananas and add flour."
ROWS: list[tuple[Any, Any]] = [  # prompts and completions
    (BREAD, "To make banana bread, mash three ripe bananas and mix them with flour and eggs."),
    (RIVER, "The Seine is a river in France."),
    (
        [
            {"role": "system", "content": "You are a cook."},
            {"role": "user", "content": [{"type": "text", "text": BREAD}]},
        ],
        [{"role": "assistant", "content": "<think>bananas</think>Mash bananas, add flour."}],
    ),
    (RIVER, [{"role": "assistant", "content": None}]),
    ([{"role": "system", "content": "You are a cook."}], "Mash bananas."),  # nobody asks
]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLIPFAST_URL", raising=False)


@pytest.fixture(scope="session")
def flip() -> Iterator[FlipReward]:
    """The oracle: the reward of batches."""
    with FlipReward() as reward:
        yield reward


@pytest.fixture(scope="session", autouse=True)
def close_engines() -> Iterator[None]:
    yield
    for scorer in _scorers._scorers.values():
        if hasattr(scorer, "shut_down"):
            scorer.shut_down()
    _scorers._scorers.clear()
