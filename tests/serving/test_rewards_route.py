"""POST /v1/rewards and the trainers' routes."""

import asyncio
import gc
import json
import re

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

from flipfast.serving.app import create_app
from tests.serving.asking import TEXTS, ask, client_of, post
from tests.serving.fake_scorer import FakeScorer
from tests.waiting import PATIENCE_S

SCORES = {"precision": 2 / 3, "recall": 2 / 3, "inferred": "a river", "status": "ok"}
ROW = {"reward": 2 / 3, **SCORES, "n_prompt_tokens": 7, "n_output_tokens": 3, "error": None}


def rows_of(items, **how):
    answer = post("/v1/rewards", {"items": items}, **how)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def error_of(answer, code):
    assert answer.status_code == code, answer.text
    assert set(answer.json()) == {"error"}
    return answer.json()["error"]


def test_rows_come_in_the_order_of_the_items():
    answer = post("/v1/rewards", {"items": [TEXTS, {**TEXTS, "response": "x"}, TEXTS]})
    assert answer.json()["model"] == "fake"
    assert answer.json()["rows"][0] == ROW
    assert [row["reward"] for row in answer.json()["rows"]] == [2 / 3, 0.0, 2 / 3]


def test_texts_and_chats_reach_the_scorer_with_the_caller():
    scorer = FakeScorer()
    chat = [{"role": "user", "content": "hi"}, {"role": "user", "content": "name it"}]
    items = [{**TEXTS, "context": "before"}, {"prompt": chat, "completion": "<answer>Po</answer>"}]
    rows_of(items, scorer=scorer, headers={"X-Flipfast-Caller": "rank 3"})
    rows_of([TEXTS], scorer=scorer)
    assert scorer.calls == [
        ("name a river", "a river", "before", "rank 3"),
        ("name it", "Po", "user: hi", "rank 3"),
        ("name a river", "a river", None, "127.0.0.1"),
    ]


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (7, "must be an object, got 7: an item has"),
        (None, "must be an object, got None: an item has"),
        ([TEXTS], "must be an object, got [{"),
        ({"instruction": "x"}, "no response among the fields ['instruction']: an item has"),
        ({"completion": "x"}, "no instruction among the fields ['completion']: an item has"),
        ({**TEXTS, "contexts": "x"}, "unknown field 'contexts' beside instruction: an item has"),
        ({"prompt": "x", "response": "y"}, "unknown field 'response' beside prompt: an item has"),
        ({"prompt": 7}, "prompt: expected a string or a list of"),
        ({"prompt": "x", "completion": 7}, "completion: expected a string or a list of"),
        ({"instruction": "x", "response": 7}, "must be a string"),
        ({**TEXTS, "response": "nan"}, "reward is nan"),
        ({**TEXTS, "response": "bug"}, "the server failed on this row"),
    ],
)
def test_a_bad_item_is_its_own_rows_error(item, error):
    rows = rows_of([TEXTS, item, TEXTS])
    assert rows[0] == rows[2] == ROW
    assert (rows[1]["reward"], rows[1]["status"]) == (None, "error")
    assert error in rows[1]["error"]


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b", "\x00", "𝔘 ß\u2028", "\\ud800"])
def test_any_text_goes_in_and_out(text):
    scorer = FakeScorer()
    (row,) = rows_of([{"instruction": text, "response": text}], scorer=scorer)
    assert scorer.calls[0][:2] == (text, text)
    assert row["inferred"] == text


@pytest.mark.slow
def test_no_items_and_as_many_as_may_be():
    assert rows_of([]) == []
    assert len(rows_of([TEXTS] * 4096)) == 4096
    error = error_of(post("/v1/rewards", {"items": [TEXTS] * 10_000}), 422)
    assert error["param"] == "items"
    assert "10000 rows are more than the 4096" in error["message"]


@pytest.mark.slow
def test_rows_that_are_late_are_errors_and_the_others_are_not():
    scorer = FakeScorer()
    items = [TEXTS, {**TEXTS, "response": "wait"}]
    body = {"items": items, "timeout": 0.2}
    calls = ("POST", "/v1/rewards", body), ("GET", "/metrics")
    answer, metrics = ask(*calls, scorer=scorer, on_failure=-1.0)
    done, late = answer.json()["rows"]
    assert done == ROW
    assert (late["reward"], late["error"]) == (-1.0, "not done within 0.2 s")
    assert "flipfast_rows_running 0.0" in metrics.text
    (row,) = rows_of([{**TEXTS, "response": "wait"}], timeout=0.1)
    assert row["error"] == "not done within 0.1 s"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("response", "code", "retry_after"), [("full", 429, "3"), ("crash", 503, "3")]
)
def test_a_scorer_that_refuses_gives_a_code_and_no_rows(response, code, retry_after, caplog):
    scorer = FakeScorer()
    late = [{**TEXTS, "response": response, "context": "x" * turns} for turns in range(9)]
    items = [{**TEXTS, "response": "wait"}, *late]
    calls = ("POST", "/v1/rewards", {"items": items}), ("GET", "/metrics")
    gc.collect()  # what other tests left behind is not this one's
    caplog.clear()
    answer, metrics = ask(*calls, scorer=scorer)
    error_of(answer, code)
    assert answer.headers["retry-after"] == retry_after
    assert "flipfast_rows_running 0.0" in metrics.text
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"{", None, "no JSON"),
        (b"", None, "JSON object"),
        (b"[]", None, "JSON object"),
        (b'"\xff"', None, "no JSON"),
        (b"[" * 200_000, None, "no JSON"),
        ({}, "items", "required"),
        ({"items": 7}, "items", "list"),
        ({"items": [], "time": 1}, "time", "not permitted"),
        ({"items": [], "timeout": "1"}, "timeout", "number"),
        ({"items": [], "timeout": 0}, "timeout", "greater than 0"),
        (b'{"items":[],"timeout":NaN}', "timeout", "finite"),
    ],
)
def test_a_wrong_body_names_the_field(body, param, message):
    answer = post("/v1/rewards", body)
    error = error_of(answer, 422)
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("value", "shown"), [(3, "3"), ("x", "'x'"), ([1], "[1]"), (None, "nothing")]
)
def test_a_body_that_is_no_object_is_shown(value, shown):
    answer = post("/v1/rewards", json.dumps(value))
    assert error_of(answer, 422)["message"] == f"the body must be a JSON object, got {shown}"


BODIES = {
    "/v1/rewards": {"items": [], "timeout": 1},
    "/get_reward": {"query": ["ab"], "prompts": ["a"], "labels": [None]},
    "/remote_rm": {"prompt": "a", "response": "b"},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "m",
        "max_tokens": 5,
        "max_completion_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 1,
        "n": 1,
        "stream": False,
        "logprobs": False,
        "stop": [],
        "tools": [],
        "response_format": {"type": "text"},
    },
    "/sleep": {"drop_weights": False},
    "/update_weights": {"folder": "x"},
}


@pytest.mark.parametrize(
    ("path", "field"),
    [(path, field) for path, body in BODIES.items() if path != "/remote_rm" for field in body],
)
def test_a_field_of_a_wrong_type_is_named_with_its_value(path, field):
    error = error_of(post(path, {**BODIES[path], field: {"a": 1}}, admin=True), 422)
    param = "response_format.a.[key]" if field == "response_format" else field
    shown = "'a'" if field == "response_format" else "{'a': 1}"
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: Input should be ")
    assert error["message"].endswith(f", got {shown}")


@pytest.mark.parametrize(
    ("path", "field", "param", "shown"),
    [
        ("/v1/chat/completions", "messages", "messages.0", "3"),
        ("/v1/chat/completions", "stop", "stop", "[3]"),
    ],
)
def test_a_wrong_entry_is_named_with_its_value(path, field, param, shown):
    error = error_of(post(path, {**BODIES[path], field: [3]}), 422)
    assert error["param"] == param
    assert error["message"].endswith(f", got {shown}")


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ({"content": "x"}, "no role among the fields ['content']"),
        ({"role": 3, "content": "x"}, "role is 3"),
        ({"role": "user"}, "no content among the fields ['role']"),
        *(({"role": "user", "content": c}, f"content is {c}") for c in (None, True, 3, {})),
        ({"role": "user", "content": ["x"]}, "content has a part that is no text: 'x'"),
    ],
)
def test_a_wrong_chat_message_is_named_with_its_place(message, wrong):
    messages = [{"role": "user", "content": "hi"}, message]
    error = error_of(post("/v1/chat/completions", {"messages": messages}), 422)
    assert error["param"] == "messages"
    assert error["message"].startswith(f"message 1: {wrong}")


def test_a_long_name_and_a_long_value_are_shortened():
    for body in ({"items": [], "x" * 10_000: 1}, {"items": "x" * 10_000}):
        assert len(error_of(post("/v1/rewards", body), 422)["message"]) < 300


def test_a_body_that_is_not_called_json_is_refused():
    (answer,) = ask(("POST", "/v1/rewards"), headers={"Content-Type": "text/plain"})
    error_of(answer, 422)


def test_openrlhf():
    scorer = FakeScorer()
    body = {
        "query": ["<u>name a river<a>a river<|im_end|>", "name it<a>none", "other"],
        "prompts": ["<u>name a river<a>", "name it<a>", "x"],
        "labels": ["name a river", " ", None],
    }
    reply = post("/get_reward", body, scorer=scorer).json()
    assert reply["rewards"] == reply["scores"] == [2 / 3, 0.0, 0.0]
    shares = [2 / 3, 0.0, 0.0]
    logs = {"flip_precision": shares, "flip_recall": shares, "flip_failed": [0.0, 0.0, 1.0]}
    assert reply["extra_logs"] == logs
    assert [call[:2] for call in scorer.calls] == [
        ("name a river", "a river"),
        ("name it<a>", "none"),
    ]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"query": "x"}, "query"),
        ({"prompts": []}, "prompts"),
        ({"labels": [1, 2]}, "labels"),
        ({"query": None}, "query"),
    ],
)
def test_openrlhf_with_a_wrong_field(change, param):
    body = {"query": ["ab"], "prompts": ["a"], "labels": [None], **change}
    assert error_of(post("/get_reward", body), 422)["param"] == param


def test_slime():
    body = {"prompt": "name a river", "response": "a river</s>", "label": "", "more": 1}
    assert post("/remote_rm", body).json() == 2 / 3
    assert post("/remote_rm", {**body, "label": "river"}).json() == 1.0
    chat = [{"role": "user", "content": "river"}]
    assert post("/remote_rm", {**body, "prompt": chat}).json() == 1.0
    assert error_of(post("/remote_rm", {"more": 1}), 422)["param"] == "prompt"


WRONG = [None, 7, 1e308, True, [], [3], ["a"], {}, {"role": "user"}, [{"role": "user"}]]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_bad_row_for_a_trainer_is_a_failure_of_its_own(wrong):
    good = {"query": "name it<a>it", "prompts": "name it<a>", "labels": "name it"}
    rows = [good, {**good, "query": wrong}, {**good, "prompts": wrong}, good]
    body = {name: [row[name] for row in rows] for name in good}
    reply = post("/get_reward", body)
    assert reply.status_code == 200
    assert reply.json()["rewards"] == [0.5, 0.0, 0.0, 0.5]
    assert reply.json()["extra_logs"]["flip_failed"] == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("wrong", [*WRONG, "no such field"], ids=repr)
@pytest.mark.parametrize("field", ["prompt", "response"])
def test_slime_never_gets_an_error_for_a_bad_sample(field, wrong):
    body = {"prompt": "name it", "response": "it", "label": None, field: wrong}
    if wrong == "no such field":
        del body[field]
    answer, metrics = ask(("POST", "/remote_rm", body), ("GET", "/metrics"))
    assert (answer.status_code, answer.json()) == (200, 0.0)
    assert 'status="ok"' not in metrics.text
    assert re.search(r'status="(error|contentless)"} 1.0', metrics.text)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff it", "\x00", "x" * 1_000_000], ids="abcd")
def test_any_text_of_a_trainer_has_a_number(text):
    sample = {"prompt": "name it " + text, "response": text, "label": text}
    assert 0 <= post("/remote_rm", sample).json() <= 1
    rows = {"query": [text + text, "it"], "prompts": [text, ""], "labels": [text, "it"]}
    assert post("/get_reward", rows).json()["rewards"][1] == 1.0


@pytest.mark.parametrize(("on_failure", "number"), [(None, 0.0), (-0.5, -0.5), (0.0, 0.0)])
def test_a_trainer_gets_a_number_for_a_failed_row(on_failure, number):
    body = {"prompt": "x", "response": "bug", "label": None}
    assert post("/remote_rm", body, on_failure=on_failure).json() == number
    body = {"query": ["xbug"], "prompts": ["x"]}
    reply = post("/get_reward", body, on_failure=on_failure).json()
    assert (reply["rewards"], reply["extra_logs"]["flip_failed"]) == ([number], [1.0])


def test_a_trainer_gets_no_number_for_a_late_row():
    body = {"prompt": "x", "response": "wait", "label": None}
    assert error_of(post("/remote_rm", body, timeout=0.1), 504)["type"] == "timeout_error"


def test_requests_do_not_wait_for_each_other():
    async def main():
        scorer = FakeScorer()
        async with client_of(create_app(scorer)) as client:
            body = {"items": [{**TEXTS, "response": "wait"}]}
            slow = asyncio.create_task(client.post("/v1/rewards", json=body))
            quick = await client.post("/v1/rewards", json={"items": [TEXTS]})
            assert quick.json()["rows"] == [ROW]
            assert not slow.done()
            scorer.go.set()
            assert json.loads((await slow).content)["rows"][0]["status"] == "ok"

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
