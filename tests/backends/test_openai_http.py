"""The backend on a server's address: what is sent, what goes wrong, and equal rewards."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("httpx", reason="needs the extra 'client'")

from flipfast import FlipReward
from flipfast.backends import (
    InversionRequest,
    Inverter,
    SamplingParams,
    _completions,
    load_inverter,
)
from flipfast.errors import ConfigError, FlipfastError, ModelLoadError
from flipfast.scoring.assembly import EMBEDDED, _model_folder
from flipfast.training.world import World
from tests.backends.completions_server import CompletionsServer, completions_server, error

FOLDER = _model_folder(EMBEDDED)
GREEDY = SamplingParams(max_new_tokens=8)
TEXTS = ["name a river", "what is erosion", "how do I bake bread", "write a poem about rain"]


@pytest.fixture(scope="module")
def native() -> Iterator[Inverter]:
    with load_inverter("native", FOLDER, device="cpu", dtype="float32") as inverter:
        yield inverter


@pytest.fixture
def server(native: Inverter) -> Iterator[CompletionsServer]:
    with completions_server(native, FOLDER) as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between tries take no time; they are noted."""
    waits: list[float] = []
    monkeypatch.setattr(_completions, "time", SimpleNamespace(sleep=waits.append))
    return waits


def requests(inverter: Inverter) -> list[InversionRequest]:
    return [InversionRequest(inverter.tokenizer(text).input_ids, seed=2**63) for text in TEXTS]


def rows() -> tuple[list[str], list[str]]:
    rng, world = Random(5), World(held_out=True)
    samples = [sample for _ in range(3) for sample in world.group(rng).samples]
    return [s.instruction for s in samples], [s.response for s in samples]


@pytest.mark.slow
@pytest.mark.parametrize("token_ids", [True, False])
@pytest.mark.parametrize("style", [None, "standalone"])
def test_rewards_are_the_native_ones(
    server: CompletionsServer, native: Inverter, token_ids: bool, style: str | None
) -> None:
    server.gives_token_ids = token_ids
    options: dict[str, Any] = {"style": style, "max_new_tokens": 40}
    expected = FlipReward(inverter=native, **options).score(*rows())
    assert len(set(expected.rewards)) > 2
    with FlipReward(FOLDER, backend=server.address, **options) as reward:
        batch = reward.score(*rows())
    assert batch.rewards == expected.rewards
    assert batch.inferred == expected.inferred
    assert batch.status == expected.status
    assert batch.n_prompt_tokens == expected.n_prompt_tokens
    if token_ids and style is None:  # the native engine stops a JSON style early
        assert batch.n_output_tokens == expected.n_output_tokens


@pytest.mark.slow
def test_a_served_name_with_its_tokenizer_elsewhere(native: Inverter) -> None:
    with completions_server(native, "inverter", {"max_model_len": 300}) as server:
        options = {"backend": f"{server.address}/v1/", "tokenizer": FOLDER}
        with FlipReward("inverter", **options) as reward:
            assert reward.inverter.context_length == 300
            batch = reward.score(*rows())
        with pytest.raises(ModelLoadError, match=r"does not serve 'outverter' but 'inverter'"):
            FlipReward("outverter", **options)
        with pytest.raises(ModelLoadError, match=r"tokenizer='\.\.\.'"):
            FlipReward("inverter", backend=server.address, revision="no such thing")
    limited = FlipReward(inverter=native).score(*rows())
    assert batch.rewards == limited.rewards  # the model's hints came with the tokenizer


@pytest.mark.parametrize(
    ("card", "length"),
    [({}, 1024), ({"max_model_len": 300}, 300), ({"meta": {"n_ctx": 512}}, 512)],
)
def test_the_context_is_the_servers(native: Inverter, card: dict[str, Any], length: int) -> None:
    with (
        completions_server(native, FOLDER, card) as server,
        load_inverter(server.address, FOLDER) as inverter,
    ):
        assert inverter.context_length == length


def test_what_is_sent(server: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with load_inverter(server.address, FOLDER) as inverter:
        server.bodies.clear()
        request = requests(inverter)[0]
        inverter.generate([request], GREEDY)
        inverter.generate([request], SamplingParams(8, temperature=0.5))
    greedy, sampled = server.bodies
    assert greedy == {
        "model": FOLDER, "prompt": list(request.prompt_ids), "max_tokens": 8, "temperature": 0.0,
        "return_token_ids": True, "stop_token_ids": [4],
    }  # fmt: skip
    assert sampled == {
        **greedy, "temperature": 0.5, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "seed": 2,
    }  # fmt: skip
    assert server.keys == {"Bearer secret"}


def test_the_repetition_penalty_of_the_folder_is_sent(native: Inverter, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "m"))
    (folder / "generation_config.json").write_text('{"eos_token_id": 1, "repetition_penalty": 1.5}')
    with completions_server(native, str(folder)) as server:
        load_inverter(server.address, str(folder)).close()
        assert server.bodies[0]["repetition_penalty"] == 1.5


def test_stop_strings_of_the_folder_are_sent_and_left_out(native: Inverter, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "m"))
    (folder / "generation_config.json").write_text('{"eos_token_id": 1, "stop_strings": [" a r"]}')
    with (
        completions_server(native, str(folder)) as server,
        load_inverter(server.address, str(folder)) as inverter,
    ):
        assert server.bodies[0]["stop"] == [" a r"]
        assert server.bodies[0]["stop_token_ids"] == [1, 4]  # the tokenizer's, too
        ids = native.tokenizer("name a river", add_special_tokens=False).input_ids
        choice = {"text": "name", "token_ids": ids, "finish_reason": "stop"}
        server.fault = lambda body: (200, {"choices": [choice]}, {})
        (result,) = inverter.generate(requests(inverter)[:1], GREEDY)
    assert (result.text, result.finish_reason) == ("name", "stop")
    assert native.decode(result.output_ids).startswith("name")
    assert len(result.output_ids) < len(ids)


@pytest.mark.slow
def test_no_more_requests_at_a_time_than_the_batch_size(server: CompletionsServer) -> None:
    with load_inverter(server.address, FOLDER, batch_size=3) as inverter:
        together = threading.Barrier(3, timeout=300)  # none is answered before there are three

        def wait(body: dict[str, Any]) -> None:
            together.wait()

        server.fault = wait
        results = inverter.generate(requests(inverter) * 3, GREEDY)
    assert [result.error for result in results] == [None] * 12
    assert server.most_at_once == 3


@pytest.mark.parametrize("fault", ["drop", error(503, "warming up")])
def test_a_fault_that_passes_is_tried_again(
    server: CompletionsServer, native: Inverter, fault: Any
) -> None:
    with load_inverter(server.address, FOLDER) as inverter:
        tries: dict[int, int] = {}

        def first_two(body: dict[str, Any]) -> Any:
            with server.lock:
                key = body["prompt"][0] + len(body["prompt"]) * 1000
                tries[key] = tries.get(key, 0) + 1
                return fault if tries[key] <= 2 else None

        server.fault = first_two
        assert inverter.generate(requests(inverter), GREEDY) == native.generate(
            requests(inverter), GREEDY
        )


@pytest.mark.slow
def test_retry_after_is_heeded(server: CompletionsServer, no_waiting: list[float]) -> None:
    with load_inverter(server.address, FOLDER) as inverter:
        server.fault = lambda body: error(503, "asleep", {"Retry-After": "7"})
        (result,) = inverter.generate(requests(inverter)[:1], GREEDY)
    assert no_waiting == [7.0] * 4
    assert "503: asleep (tried 5 times)" in str(result.error)


def test_a_server_that_has_gone_is_not_asked_row_by_row(
    server: CompletionsServer, no_waiting: list[float]
) -> None:
    with load_inverter(server.address, FOLDER, batch_size=1) as inverter:
        server.fault = lambda body: "drop"
        results = inverter.generate(requests(inverter), GREEDY)
    assert [result.finish_reason for result in results] == ["error"] * len(TEXTS)
    assert len({result.error for result in results}) == 1
    assert f"no connection to {server.address}" in str(results[0].error)
    assert len(no_waiting) == 4


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (error(400, "too long"), "answered 400: too long"),
        (error(429, "slow down"), "answered 429: slow down"),
        ((500, {"detail": "oops"}, {}), "answered 500: {'detail': 'oops'}"),
        ((200, {"choices": []}, {}), "not the answer of an OpenAI-compatible server"),
        ((200, {"choices": [{"text": "x", "finish_reason": "abort"}]}, {}), "with 'abort'"),
        ((200, {"choices": [{"finish_reason": "stop"}]}, {}), "with 'stop'"),
        ((200, [], {}), "not the answer of an OpenAI-compatible server"),
    ],
)
def test_a_refused_row_fails_alone_and_at_once(
    server: CompletionsServer, native: Inverter, fault: Any, complaint: str
) -> None:
    with load_inverter(server.address, FOLDER) as inverter:
        asked = requests(inverter)
        bad = list(asked[1].prompt_ids)
        server.bodies.clear()
        server.fault = lambda body: fault if body["prompt"] == bad else None
        first, second, *rest = inverter.generate(asked, GREEDY)
    assert [first, *rest] == native.generate([asked[0], *asked[2:]], GREEDY)
    assert second.finish_reason == "error"
    assert complaint in str(second.error)
    assert len(server.bodies) == len(asked)


def test_rewards_of_refused_rows_are_on_failure(server: CompletionsServer) -> None:
    with FlipReward(FOLDER, backend=server.address, on_failure=-1.0) as reward:
        server.fault = lambda body: error(400, "no")
        batch = reward.score(["name a river"], ["The Rhine is one."])
    assert (batch.rewards, batch.status) == ([-1.0], ["error"])
    assert "answered 400: no" in str(batch.errors[0])


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (error(400, "prompt must be a string"), "prompt must be a string"),
        (error(404, "Not Found"), "404"),
        (
            (200, {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 99}}, {}),
            "it counted 99 tokens in a prompt of",
        ),
    ],
)
def test_a_server_that_does_not_take_token_ids_is_found_out(
    server: CompletionsServer, fault: Any, complaint: str
) -> None:
    server.fault = lambda body: fault
    with pytest.raises(ModelLoadError, match="does not take token ids.*use a server") as caught:
        load_inverter(server.address, FOLDER)
    assert complaint in str(caught.value)


def test_no_server_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ModelLoadError, match=f"no connection to {address}"):
            load_inverter(address, FOLDER)


def test_a_folder_without_a_config_says_so(native: Inverter, tmp_path: Path) -> None:
    shutil.copy(Path(FOLDER) / "tokenizer.json", tmp_path)
    with (
        completions_server(native, "m") as server,
        pytest.raises(ModelLoadError, match=r"needs the model's config\.json"),
    ):
        load_inverter(server.address, "m", tokenizer=str(tmp_path))


@pytest.mark.parametrize(
    ("backend", "options", "complaint"),
    [
        ("openai_http", {}, "give the server's address"),
        ("http://host:port", {}, "'http://host:port' is no address"),
        ("http://localhost", {"device": "cuda"}, "device='cuda' is for the server"),
        ("http://localhost", {"dtype": "float16"}, "dtype='float16' is for the server"),
        ("http://localhost", {"memory": 0.5}, "memory=0.5 is for the server"),
        ("http://localhost", {"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_options_that_cannot_be_used(backend: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        FlipReward(FOLDER, backend=backend, **options)


def test_what_needs_the_native_engine_is_refused(server: CompletionsServer) -> None:
    options = ({"json": "forced", "style": "standalone"}, {"scoring": "likelihood"})
    for option in options:
        with pytest.raises(ConfigError, match="needs backend='native': 'openai_http'"):
            FlipReward(FOLDER, backend=server.address, **option)


def test_a_closed_inverter_says_so(server: CompletionsServer) -> None:
    inverter = load_inverter(server.address, FOLDER)
    inverter.close()
    inverter.close()
    with pytest.raises(FlipfastError, match="closed"):
        inverter.generate([InversionRequest([5])], GREEDY)
