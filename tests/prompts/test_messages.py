"""Messages in the forms of several frameworks: roles, parts, tool calls, and what has no text."""

import pytest

from flipfast.errors import ContentlessError, InputError
from flipfast.prompts.conversation import (
    chat_texts,
    completion_text,
    final_reply,
    split_messages,
    split_system,
)
from flipfast.prompts.messages import Turn, read_turns

CALL = {"name": "look_up", "arguments": '{"river": "Ebro"}'}
OPENAI_CALL = {"id": "1", "type": "function", "function": CALL}
CALLED = 'look_up({"river": "Ebro"})'
ASKED = {"role": "user", "content": "How long is the Ebro?"}
CALLING = {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}
RETURNED = {"role": "tool", "content": "930"}
ANSWER = {"role": "assistant", "content": "930 km."}


def test_roles_of_sharegpt():
    conversation = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Name a river."},
        {"from": "gpt", "value": "The Ebro."},
        {"from": "human", "value": "Its length?"},
        {"from": "gpt", "value": "930 km."},
    ]
    context = "system: Be brief.\nuser: Name a river.\nassistant: The Ebro."
    assert split_messages(conversation) == ("Its length?", context)
    assert final_reply(conversation) == "930 km."
    found = chat_texts(conversation[:4], conversation[4], "instruction")
    assert found == ("Its length?", "930 km.", context)
    # A table with both forms has null for what a row does not use.
    wide = {"role": None, "content": None, "from": "gpt", "value": "930 km."}
    assert completion_text([wide]) == completion_text(wide) == "930 km."


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "x"}], "a"),
        (
            [
                {"type": "output_text", "text": "a", "annotations": []},
                {"type": "text", "text": "b"},
            ],
            "ab",
        ),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        (
            [
                {"type": "image", "text": None},
                {"type": "audio", "text": ""},
                {"type": "text", "text": "a"},
            ],
            "a",
        ),
        ([{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": ""}], ""),
    ],
)
def test_parts_with_a_text(parts, text):
    for role in ("user", "assistant"):
        assert read_turns([{"role": role, "content": parts}]) == [Turn(role, text)]
    assert completion_text({"role": "assistant", "content": parts}) == text


@pytest.mark.parametrize("kind", ["output-text", "reasoning_text", "summary"])
def test_an_unknown_part_with_a_text_is_an_error(kind):
    message = {"role": "user", "content": [{"type": kind, "text": "a"}]}
    expected = f"message 0: content has the part .*{kind}.*: texts are in parts of type text, input"
    with pytest.raises(InputError, match=expected):
        split_messages([message])


def test_items_of_the_responses_api():
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Length?"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "1", **CALL},
        {"type": "function_call_output", "call_id": "1", "output": "930"},
        {"type": "reasoning", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "930 km."}],
        },
        {"role": "user", "content": "And the Po?"},
    ]
    context = "user: Length?\nassistant: \ntool: 930\nassistant: 930 km."
    assert split_messages(items) == ("And the Po?", context)
    assert split_messages(items, tool_calls=True)[1] == context.replace(": \n", f": {CALLED}\n")
    assert completion_text(items[1:6]) == "930 km."
    for end, reason in ((2, "'reasoning'"), (3, "only tool calls"), (4, "'tool'")):
        with pytest.raises(ContentlessError, match=reason):
            final_reply(items[:end])
    assert completion_text(items[1:4], tool_calls=True) == CALLED


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (None, "there is no text in None"),
        ([], r"there is no text in \[\]"),
        ({"role": "assistant", "content": None}, "it has no text: content is None"),
        ({"from": "gpt", "value": None}, "it has no text: value is None"),
        ([ASKED, {"role": "assistant"}], r"no text: no content among the fields \['role'\]"),
        ({"role": "assistant", "content": []}, r"no text: content is \[\]"),
        ({"role": "assistant", "content": [{"type": "image"}]}, "no text: content is .*image"),
        ({"role": "assistant", "content": "", "reasoning_content": "Hm"}, "beside its reasoning_c"),
        ({"role": "assistant", "content": "\n\n", "reasoning": "Hm"}, "empty beside its reasoning"),
        ({"role": "assistant", "content": None, "thinking": "Hm"}, "empty beside its thinking"),
        ([CALLING], "only tool calls, which count as text with the option tool_calls"),
        ([{**CALLING, "content": ""}], "only tool calls"),
        ([{"role": "assistant", "content": None, "function_call": CALL}], "only tool calls"),
        ([{"from": "function_call", "value": CALLED}], "only tool calls"),
        ([{**CALLING, "content": "Let me see."}, RETURNED], "ends in a turn of the role 'tool'"),
        ([ANSWER, {"from": "observation", "value": "930"}], "of the role 'observation'"),
    ],
)
def test_what_has_no_text(completion, reason):
    with pytest.raises(ContentlessError, match=reason):
        completion_text(completion)
    with pytest.raises(ContentlessError, match=f"^completion: .*{reason}"):
        chat_texts("How long?", completion, "instruction")


@pytest.mark.parametrize("completion", ["", {"role": "assistant", "content": ""}])
def test_an_empty_text_is_a_text(completion):
    assert completion_text(completion) == ""


def test_an_answer_after_tools_needs_no_option():
    messages = [CALLING, RETURNED, ANSWER]
    assert completion_text(messages) == completion_text(messages, tool_calls=True) == "930 km."


@pytest.mark.parametrize(
    "calls",
    [
        {"tool_calls": [OPENAI_CALL]},
        {"tool_calls": [CALL]},
        {"tool_calls": [CALLED]},
        {"function_call": CALL},
        {"tool_calls": [{"name": "look_up", "arguments": {"river": "Ebro"}}]},
    ],
)
def test_tool_calls_as_text(calls):
    message = {"role": "assistant", "content": None, **calls}
    assert completion_text(message, tool_calls=True) == CALLED
    assert completion_text([message, RETURNED], tool_calls=True) == CALLED
    spoken = {**message, "content": "Let me see."}
    assert completion_text(spoken, tool_calls=True) == f"Let me see.\n{CALLED}"
    assert completion_text(spoken) == "Let me see."
    assert chat_texts("x", message, "instruction", True) == ("x", CALLED, None)


def test_a_tool_call_without_a_name_is_an_error_where_it_counts():
    message = {"role": "assistant", "content": "Hm", "tool_calls": [{"id": "1"}]}
    assert completion_text(message) == "Hm"
    with pytest.raises(InputError, match="a tool call is {'id': '1'}"):
        completion_text(message, tool_calls=True)


@pytest.mark.parametrize("content", [None, [], [{"type": "image"}]])
def test_an_instruction_without_a_text_is_an_error(content):
    with pytest.raises(InputError, match="the user turn: it has no text"):
        split_messages([{"role": "user", "content": content}])
    with pytest.raises(InputError, match="the system turn: it has no text"):
        split_system([{"role": "system", "content": content}, ASKED])


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([{"from": 5, "value": "x"}], "message 0: from is 5: use a string"),
        ([{"from": "gpt", "value": 5}], "message 0: value is 5: use text"),
        ([{"type": "item_reference", "id": "1"}], "message 0: no role among the fields"),
        ([ANSWER, ASKED], r"roles \['assistant', 'user'\]: the last must be the assistant's"),
        ([], "the last must be the assistant's"),
    ],
)
def test_wrong_shapes(messages, error):
    with pytest.raises(InputError, match=error):
        final_reply(messages)
