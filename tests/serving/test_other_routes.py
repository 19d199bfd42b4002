"""OpenAI's calls, the admin's, the state, metrics, logs, and the OpenAPI page."""

import io
import json
import logging

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

from prometheus_client.parser import text_string_to_metric_families

from flipfast.engine.sampling import SamplingParams
from flipfast.serving.app import PATHS, create_app
from flipfast.serving.logs import JsonFormatter
from flipfast.serving.options import ServerOptions
from flipfast.serving.routes.admin import ADMIN_PATHS
from tests.serving.asking import TEXTS, ask, post, running
from tests.serving.fake_scorer import COUNTERS, FakeScorer

CHAT = "/v1/chat/completions"
SECRET = {"instruction": "a secret word", "response": "bug"}


def messages(content):
    return {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": content}]}


@pytest.mark.slow
def test_the_openai_client():
    openai = pytest.importorskip("openai", reason="a client that others wrote")
    scorer = FakeScorer()
    with running(create_app(scorer, ServerOptions(api_key="k3y", timeout=0.3))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="k3y", max_retries=0)
        assert [model.id for model in client.models.list()] == ["fake"]
        reply = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            max_completion_tokens=9,
            temperature=0.5,
            top_p=0.9,
            seed=4,
            extra_body={"top_k": 3},
        )
        assert reply.choices[0].message.content == "HI"
        assert reply.choices[0].finish_reason == "stop"
        assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (5, 8)
        assert scorer.calls[0][:3] == (
            [{"role": "user", "content": "hi"}],
            SamplingParams(9, 0.5, 0.9, 3),
            4,
        )
        with pytest.raises(openai.UnprocessableEntityError, match="stream"):
            client.chat.completions.create(model="x", stream=True, **messages("hi"))
        with pytest.raises(openai.APIStatusError, match="not done within"):
            client.chat.completions.create(model="x", **messages("wait"))
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="other").models.list()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"tools": [{}]}, "tools"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_is_not_served_is_refused(change, param):
    answer = post(CHAT, {**messages("hi"), **change})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"].startswith(param.split(".")[0])


def test_admin_routes_are_there_only_where_asked_for():
    for path in ADMIN_PATHS:
        assert post(path, {}).status_code == 404


def test_sleep_wake_and_new_weights(tmp_path):
    scorer = FakeScorer()
    (tmp_path / "model.safetensors").touch()
    answers = ask(
        ("POST", "/sleep"),
        ("POST", "/v1/rewards", {"items": [TEXTS]}),
        ("POST", "/update_weights", {"folder": str(tmp_path)}),
        ("POST", "/wake"),
        ("POST", "/v1/rewards", {"items": [TEXTS]}),
        ("POST", "/sleep", {"drop_weights": True}),
        scorer=scorer,
        admin=True,
    )
    assert [answer.status_code for answer in answers] == [200, 503, 200, 200, 200, 200]
    states = [answers[at].json()["state"] for at in (0, 3, 5)]
    assert states == ["asleep", "ready", "asleep, without weights"]
    assert str(tmp_path) in scorer.calls


@pytest.mark.parametrize("name", ["none", "a\x00b", "x" * 5000, "\ud800", "file.bin"])
def test_weights_come_from_a_folder_with_safetensors(tmp_path, name):
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / "file.bin").touch()
    for folder in (str(tmp_path / name), str(tmp_path), ""):
        answer = post("/update_weights", {"folder": folder}, admin=True)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "folder")


def test_no_page_in_a_browser_puts_the_engine_to_sleep():
    codes = [
        post("/sleep", {}, admin=True, headers={"Origin": origin}).status_code
        for origin in ("http://test", "http://evil.example", "null")
    ]
    assert codes == [200, 403, 403]


def test_metrics_as_prometheus_reads_them():
    body = {"items": [TEXTS, {**TEXTS, "response": 7}]}
    scorer = FakeScorer()
    scorer.queued = 3
    *_, answer = ask(
        ("POST", "/v1/rewards", body),
        ("POST", "/v1/rewards", {}),
        ("GET", "/no/such/path"),
        ("GET", "/metrics"),
        scorer=scorer,
    )
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    for name, total in COUNTERS.items():
        kind = "gauge" if name == "pages" else "counter"
        assert families[f"flipfast_engine_{name}"].type == kind
        suffix = "" if kind == "gauge" else "_total"
        assert found[(f"flipfast_engine_{name}{suffix}",)] == total
    route = ("route", "/v1/rewards")
    assert found[("flipfast_requests_total", ("code", "200"), route)] == 1
    assert found[("flipfast_requests_total", ("code", "422"), route)] == 1
    assert found[("flipfast_requests_total", ("code", "404"), ("route", "other"))] == 1
    assert found[("flipfast_request_seconds_count", route)] == 2
    assert found[("flipfast_request_rows_sum", route)] == 2
    assert found[("flipfast_rewards_total", ("status", "ok"))] == 1
    assert found[("flipfast_rewards_total", ("status", "error"))] == 1
    assert found[("flipfast_rows_waiting",)] == 3
    assert found[("flipfast_ready",)] == 1


@pytest.fixture
def log_lines():
    """The lines that are logged, as objects."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("flipfast.serving")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_line_a_request_and_no_texts(log_lines):
    post("/v1/rewards", {"items": [SECRET]}, headers={"X-Flipfast-Caller": "rank 3"})
    post("/v1/rewards", {"items": [SECRET], "timeout": "a secret word"})
    failure, line, refused = log_lines()
    assert line.items() >= {"route": "/v1/rewards", "code": 200, "rows": 1}.items()
    assert line["caller"] == "rank 3"
    assert line["seconds"] > 0
    assert refused["code"] == 422
    assert (failure["level"], failure["error"]) == ("error", "KeyError")
    assert "score_row" in failure["traceback"]
    assert "secret" not in json.dumps(log_lines())


def test_texts_where_they_are_asked_for(log_lines):
    post("/v1/rewards", {"items": [SECRET]}, log_texts=True)
    post(CHAT, messages("hi"), log_texts=True)
    failure, line, chat = log_lines()
    assert "a secret of the prompt" in failure["error_message"]
    assert line["texts"] == [SECRET]
    assert chat["texts"] == messages("hi")["messages"]


def test_an_unexpected_error_is_one_answer_with_500(log_lines, monkeypatch):
    monkeypatch.setattr(FakeScorer, "complete", lambda *_, **__: 1 / 0)
    answer = post(CHAT, messages("a secret word"))
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert [line["level"] for line in log_lines()] == ["error", "info"]


def test_the_openapi_page_describes_every_route_and_field():
    (answer,) = ask(("GET", "/openapi.json"), admin=True)
    page = answer.json()
    assert set(page["paths"]) == PATHS
    models = page["components"]["schemas"]
    fields = models["TextItem"]["properties"] | models["Row"]["properties"]
    assert all("description" in field for field in fields.values())
    kinds = models["RewardsRequest"]["properties"]["items"]["items"]["anyOf"]
    assert [kind["$ref"].rpartition("/")[2] for kind in kinds] == ["TextItem", "ChatItem"]
    assert "HTTPValidationError" not in answer.text  # FastAPI's own shape of an error


def test_the_docs_page():
    (answer,) = ask(("GET", "/docs"))
    assert answer.status_code == 200
