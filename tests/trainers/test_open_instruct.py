"""open-instruct: the recorded call shape; its package is not on the registry."""

import asyncio
import importlib
import pickle
import sys

import pytest

from flipfast import FlipReward
from flipfast.trainers._scorers import TrainerScorer
from tests.trainers import standins
from tests.trainers.conftest import BREAD
from tests.trainers.fakes import UNPARSED, FixedScorer
from tests.waiting import PATIENCE_S

RESPONSE = (
    "<think>bananas</think><answer>To make banana bread, mash bananas and add flour.</answer>"
)


@pytest.fixture
def module(monkeypatch):
    """Our module, on stand-ins where open-instruct is not installed."""
    names = ("VerificationResult", "VerifierConfig", "VerifierFunction")
    shapes = {name: getattr(standins, name) for name in names}
    standins.module(monkeypatch, "open_instruct.ground_truth_utils", **shapes)
    monkeypatch.delitem(sys.modules, "flipfast.trainers.open_instruct", raising=False)
    yield importlib.import_module("flipfast.trainers.open_instruct")
    sys.modules.pop("flipfast.trainers.open_instruct", None)


def verify(verifier, label, query):
    call = verifier.async_call(
        tokenized_prediction=[1], prediction=RESPONSE, label=label, query=query, rollout_state=None
    )
    return asyncio.run(asyncio.wait_for(call, PATIENCE_S))


def test_open_instruct_finds_it_by_its_base_class(module):
    assert standins.VerifierFunction.__subclasses__()[-1] is module.FlipVerifier
    verifier = module.FlipVerifier(module.FlipVerifier.get_config_class()())
    assert (verifier.name, verifier.weight) == ("general-flip", 1.0)


def test_a_query_is_a_conversation(flip: FlipReward, module):
    turns = [
        {"role": "system", "content": "You are an assistant."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": BREAD + "\nUser friendly, please: no nuts."},
    ]
    verifier = module.FlipVerifier()
    for prompt in (turns, turns[3:]):
        query = "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
        result = verify(verifier, "42", query)
        assert result.score == flip([prompt], [RESPONSE])[0]
        assert result.reasoning
    assert verifier([1], RESPONSE, "42", query) == result


def test_the_label_in_its_place(flip: FlipReward, module, monkeypatch):
    expected = flip([BREAD], [RESPONSE])[0]
    assert verify(module.FlipVerifier(), BREAD, None).score == expected
    monkeypatch.setattr(module.FlipVerifier, "reads_label", True)
    assert verify(module.FlipVerifier(), BREAD, "user: another").score == expected


def test_what_was_set_on_the_class_goes_where_the_verifier_goes(module, monkeypatch):
    scorer = TrainerScorer("http://127.0.0.1:1", timeout=7)
    monkeypatch.setattr(module.FlipVerifier, "scorer", scorer)
    sent = pickle.dumps(module.FlipVerifier())
    monkeypatch.undo()
    assert b"http://127.0.0.1:1" in sent


def test_a_failure_has_a_number_and_a_reason(module, monkeypatch):
    scorer = TrainerScorer(FixedScorer(UNPARSED))
    monkeypatch.setattr(module.FlipVerifier, "scorer", scorer)
    result = verify(module.FlipVerifier(), BREAD, None)
    assert (result.score, result.reasoning) == (0.0, "unparsed")
    result = verify(module.FlipVerifier(), ["no text"], None)
    assert result.score == 0.0
