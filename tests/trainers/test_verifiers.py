"""verifiers: a Rubric of its own up to 0.1, a task's scoring from 0.2 on."""

import asyncio
from types import SimpleNamespace

import pytest

from flipfast import FlipReward
from flipfast.errors import InputError, NoRewardError
from flipfast.trainers.verifiers import FlipRewards, flip_trace
from flipfast.trainers.verifiers import flip as flip_one
from flipfast.trainers.verifiers import flip_group as flip_many
from tests.trainers.conftest import BREAD, CHAT, RIVER
from tests.trainers.fakes import UNPARSED, FixedScorer
from tests.waiting import PATIENCE_S

TEXTS = ["To make banana bread, mash bananas and add flour.", "The Seine flows through Paris."]
REPLIES = [[{"role": "assistant", "content": text}] for text in TEXTS]


def run(call):
    return asyncio.run(asyncio.wait_for(call, PATIENCE_S))


def test_a_rollout_and_a_group(flip: FlipReward):
    expected = flip([CHAT, CHAT], REPLIES)
    assert len(set(expected)) == 2
    columns = {"answer": "42", "state": {}, "info": {}}
    assert [run(flip_one(prompt=CHAT, completion=r, **columns)) for r in REPLIES] == expected
    assert run(flip_many(prompts=[CHAT] * 2, completions=REPLIES, answers=["42"] * 2)) == expected


def test_the_instruction_in_a_column(flip: FlipReward):
    rewards = FlipRewards(instruction_key="answer")
    expected = flip([BREAD, RIVER], TEXTS)
    assert run(rewards.flip("templated", TEXTS[0], answer=BREAD)) == expected[0]
    assert run(rewards.flip_group(["x"] * 2, REPLIES, answers=[BREAD, RIVER])) == expected
    with pytest.raises(InputError, match="gave no 'answer', it gave 'info'"):
        run(rewards.flip("x", TEXTS[0], info={}))


def test_a_failure_raises_unless_a_number_is_given():
    fake = FixedScorer(UNPARSED)
    with pytest.raises(NoRewardError, match="status 'unparsed'"):
        run(FlipRewards(fake).flip(BREAD, TEXTS[0]))
    assert run(FlipRewards(fake, on_failure=0.0).flip(BREAD, TEXTS[0])) == 0.0


class Message:
    """A message as verifiers' own types are."""

    def __init__(self, **fields):
        self.fields = fields

    def model_dump(self):
        return self.fields


@pytest.mark.parametrize("messages", [False, True])
def test_a_trace(flip: FlipReward, messages):
    prompt = [Message(role="user", content=BREAD)] if messages else BREAD
    data = SimpleNamespace(prompt=prompt, system_prompt="You are an assistant.", question=RIVER)
    trace = SimpleNamespace(task=SimpleNamespace(data=data), last_reply=TEXTS[0])
    assert [run(flip_trace(trace))] == flip([CHAT], TEXTS[:1])
    data.system_prompt = None
    assert [run(flip_trace(trace))] == flip([BREAD], TEXTS[:1])
    assert [run(FlipRewards(instruction_key="question").flip_trace(trace))] == flip(
        [RIVER], TEXTS[:1]
    )


def test_a_completion_that_is_one_message(flip: FlipReward):
    for message in (REPLIES[0][0], Message(**REPLIES[0][0])):
        assert run(flip_one(prompt=CHAT, completion=message)) == flip([CHAT], TEXTS[:1])[0]
    call = Message(role="assistant", content=None, tool_calls=[{"name": "f", "arguments": "{}"}])
    with pytest.raises(NoRewardError, match="status 'contentless': .*only tool calls"):
        run(flip_one(prompt=CHAT, completion=[call]))


@pytest.mark.parametrize("group", [False, True])
def test_a_rubric(flip: FlipReward, group):
    reason = "needs verifiers up to 0.1, which has rubrics"
    pytest.importorskip("verifiers.rubrics.rubric", reason=reason, exc_type=ImportError)
    import verifiers as vf

    rubric = vf.Rubric(funcs=[flip_many if group else flip_one])
    assert rubric.has_group_rewards is group
    states = [
        vf.State(prompt=CHAT, completion=reply, answer="42", info={}, task="t", trajectory=[])
        for reply in REPLIES
    ]
    run(rubric.score_group(states))
    expected = flip([CHAT, CHAT], REPLIES)
    assert [state["reward"] for state in states] == expected
    name = "flip_group" if group else "flip"
    assert [state["metrics"][name] for state in states] == expected


@pytest.fixture(scope="module")
def vf():
    reason = "needs verifiers from 0.2 on: pip install verifiers"
    return pytest.importorskip("verifiers.v1", reason=reason, exc_type=ImportError)


def rollout(vf, messages, **fields):
    """A task with our reward, and the trace that a rollout leaves for it to score."""
    plugged = {"flip": {"fn": "flipfast.trainers.verifiers:flip_trace", "weight": 2.0}}
    config = vf.TaskConfig(rewards=plugged)
    data = vf.TaskData(prompt=BREAD, system_prompt="You are an assistant.")
    nodes = [
        vf.MessageNode(message=message, parent=place - 1 if place else None, sampled=bool(place))
        for place, message in enumerate(messages)
    ]
    recorded = vf.TraceTask(type="Task", data=data)
    agent = vf.AgentInfo(config=vf.AgentConfig())
    trace = vf.Trace(task=recorded, agent=agent, nodes=nodes, **fields)
    return vf.Task(data, config), trace


ASKED = {"role": "user", "content": BREAD}
CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "name": "f", "arguments": "{}"}],
}


@pytest.mark.parametrize("root", [False, True])
def test_a_task(flip: FlipReward, vf, root):
    reply = {"role": "assistant", "content": f" {TEXTS[1 if root else 0]}\n"}
    task, trace = rollout(vf, [ASKED, reply], root_reply=TEXTS[0] if root else None)
    run(task.score(trace))
    assert trace.rewards["flip"].score == flip([CHAT], TEXTS[:1])[0]
    assert trace.rewards["flip"].weight == 2.0


@pytest.mark.parametrize(
    ("messages", "root", "told"),
    [
        ([ASKED, CALLS], None, "only tool calls"),
        ([ASKED, {"role": "assistant", "content": TEXTS[0]}], "", "no text|None"),
        ([ASKED], None, "no text|None"),
    ],
    ids=["only tool calls", "an empty root reply", "no reply"],
)
def test_a_rollout_without_an_answer_has_no_reward(vf, messages, root, told):
    task, trace = rollout(vf, messages, root_reply=root)
    with pytest.raises(vf.TaskError, match=f"NoRewardError: status 'contentless': .*({told})"):
        run(task.score(trace))
    assert trace.rewards == {"flip": None}


def test_tool_calls_as_an_answer(flip: FlipReward, vf):
    _, trace = rollout(vf, [ASKED, CALLS])
    expected = flip([CHAT], ["f({})"])[0]
    assert run(FlipRewards(tool_calls=True).flip_trace(trace)) == expected
