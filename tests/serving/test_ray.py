"""Pool, Ray Serve and folders on a local Ray: equal to FlipReward, whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import shutil
import socket
import sys
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs ray")
pytest.importorskip("ray.data", reason="needs Ray Data")
pytest.importorskip("ray.serve", reason="needs Ray Serve")
pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("pyarrow", reason="needs pyarrow")

import httpx
import pyarrow
import ray
from pyarrow import parquet
from ray import serve
from ray._private import services

from flipfast import FlipConfig, FlipReward
from flipfast.cli import main
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ConfigError, FlipfastError, InputError, ModelLoadError, UnavailableError
from flipfast.serving.options import ServerOptions
from flipfast.serving.ray import ActorShare, RayPool, deployment, folder, score_folder
from flipfast.serving.ray.parts import Part, cut, find_files
from tests.serving.engines import EchoEngine
from tests.serving.ray_engines import POISON, clumsy_reward, mortal_engine
from tests.serving.ray_light import LightShare, no_engine
from tests.waiting import PATIENCE_S, until, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
_TOKENS = ("--max-new-tokens", "24")
CONFIG = FlipConfig(max_new_tokens=24, memory=64e6)
N = 60
INSTRUCTIONS = [f"Name {i} facts about rivers." for i in range(N)]
RESPONSES = [f"Here are {i} facts: rivers flow into the sea, for {i} reasons." for i in range(N)]


# Ray's own limits, which are seconds, on a machine that has other work.
_PATIENT_RAY = {
    "worker_niceness": 0,  # of 15 by itself: beside busy processes such a worker hardly runs
    "worker_register_timeout_seconds": int(PATIENCE_S),
    "gcs_server_request_timeout_seconds": int(PATIENCE_S),
    "health_check_timeout_ms": int(1000 * PATIENCE_S),
}
_PATIENT_SERVE = ("PROXY_READY_CHECK_TIMEOUT_S", "PROXY_HEALTH_CHECK_TIMEOUT_S")


def _node_once_there(get_node: Any, *which: Any) -> Any:
    """What `ray.init` asks for, again and again for 30 s, until its node is there."""
    found: list[Any] = []

    def there() -> bool:
        try:
            found.append(get_node(*which))
        except RuntimeError:
            return False
        return True

    wait_until(there)
    return found[0]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Actors of this and of no other version of the package."""
    paths = [str(ROOT), str(ROOT / "kernels"), *filter(None, sys.path)]
    with pytest.MonkeyPatch.context() as patch:
        # Ray's processes inherit these. A runtime_env would start workers of its own.
        patch.setenv("PYTHONPATH", ":".join(paths))
        patch.setenv("TOKENIZERS_PARALLELISM", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name in _PATIENT_SERVE:
            patch.setenv(f"RAY_SERVE_{name}", str(PATIENCE_S))
        patch.setattr("ray.serve._private.api.HTTP_PROXY_TIMEOUT", PATIENCE_S)
        patch.setattr(services, "get_node", partial(_node_once_there, services.get_node))
        ray.init(
            address="local",
            num_cpus=4,  # two actors at a time; more where a test is left out that closes some
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            _system_config=_PATIENT_RAY,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def reward() -> FlipReward:
    return FlipReward(CONFIG)


@pytest.fixture(scope="module")
def expected(reward: FlipReward) -> list[dict[str, Any]]:
    return reward.score(INSTRUCTIONS, RESPONSES).to_dicts()


class Background:
    """An event loop that lives as long as the pool of several tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        limited = asyncio.wait_for(work, PATIENCE_S)
        return asyncio.run_coroutine_threadsafe(limited, self.loop).result()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE_S)
        self.loop.close()


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    found = Background()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While there is this file, the response in it waits in its actor."""
    return tmp_path_factory.mktemp("ray") / "hold"


@pytest.fixture(scope="module")
def pool(background: Background, hold: Path) -> Iterator[RayPool]:
    """Two actors; one that has been replaced is waited for."""
    build = partial(mortal_engine, hold=str(hold))
    found = RayPool(CONFIG, n_actors=2, max_in_flight=16, build=build)
    background.run(found.start(2))
    yield found
    background.run(found.close())


def test_rewards_are_those_of_one_engine(
    pool: RayPool, background: Background, expected: list[dict[str, Any]], reward: FlipReward
) -> None:
    batch = background.run(pool.score(INSTRUCTIONS, RESPONSES))
    assert batch.to_dicts() == expected
    prompt = [{"role": "user", "content": INSTRUCTIONS[1]}]
    row = background.run(pool.score_chat(prompt, RESPONSES[1]))
    assert row["reward"] == reward([prompt], [RESPONSES[1]])[0]
    status = pool.status()
    assert (status.state, status.queued, status.running) == ("ready", 0, 0)
    assert status.counters["rewards"] == N + 1
    assert status.counters["steps"] > 0  # of the engines


def test_bad_rows_have_errors_and_others_their_rewards(
    pool: RayPool, background: Background, expected: list[dict[str, Any]]
) -> None:
    bad: list[Any] = [7, threading.Lock()]  # the second one cannot even be sent
    batch = background.run(pool.score(INSTRUCTIONS[:4], [*bad, *RESPONSES[2:4]]))
    assert batch.status[:2] == ["error", "error"]
    assert "string" in batch.errors[0]
    assert "sent" in batch.errors[1]
    assert batch.to_dicts()[2:] == expected[2:4]


def test_a_completion_goes_to_an_actor(pool: RayPool, background: Background) -> None:
    messages = [{"role": "user", "content": RESPONSES[0]}]
    found = background.run(pool.complete(messages, SamplingParams(max_new_tokens=4)))
    assert found.n_output_tokens == 4
    assert found.finish_reason == "length"


def test_cancelled_rows_are_dropped_and_the_pool_goes_on(
    pool: RayPool, background: Background, expected: list[dict[str, Any]]
) -> None:
    batch = background.run(pool.score(INSTRUCTIONS, RESPONSES, timeout=0.001))
    assert "error" in batch.status
    assert pool.status().queued == 0
    assert background.run(pool.score(INSTRUCTIONS, RESPONSES)).to_dicts() == expected


def test_a_killed_actor_costs_nothing_but_time(
    pool: RayPool, background: Background, expected: list[dict[str, Any]], hold: Path
) -> None:
    counted = pool.status().counters["rewards"]
    hold.write_text(RESPONSES[0])  # the first actor has this one when it is killed

    async def let_go() -> None:
        await until(lambda: pool.status().counters["actor_deaths"])
        hold.unlink()

    async def kill_one_in_the_middle() -> list[tuple[int, dict[str, Any]]]:
        rows = []
        letting_go = asyncio.create_task(let_go())
        async for row in pool.stream(INSTRUCTIONS, RESPONSES):
            if not rows:
                victim = pool._dispatcher.members[0]
                ray.kill(victim._actor)
            rows.append(row)
        await letting_go
        return rows

    rows = background.run(kill_one_in_the_middle())
    assert [place for place, _ in sorted(rows)] == list(range(N))  # each one once
    assert [row for _, row in sorted(rows)] == expected
    counters = pool.status().counters
    assert counters["rewards"] == counted + N
    assert counters["actor_deaths"] == 1
    assert counters["resent_rows"] > 0
    background.run(pool.start(2))  # the new one
    assert pool.status().counters["actors"] == 2


def test_a_row_that_ends_every_actor_is_the_only_one_lost(background: Background) -> None:
    responses = [*RESPONSES[:10], "exit", *RESPONSES[11:]]

    async def score() -> list[dict[str, Any]]:
        share = LightShare()
        async with RayPool(CONFIG, n_actors=2, share=share, build=EchoEngine) as pool:
            batch = await pool.score(INSTRUCTIONS, responses)
            assert pool.status().counters["actor_deaths"] == 3
            return batch.to_dicts()

    rows = background.run(score())
    lost = rows.pop(10)
    assert lost["status"] == "error"
    assert "3 actors" in lost["error"]
    texts = [f"{x} {y}" for x, y in zip(INSTRUCTIONS, responses, strict=True) if y != "exit"]
    assert [row["inferred"] for row in rows] == texts


def test_sleeping_waking_and_new_weights(
    pool: RayPool, background: Background, expected: list[dict[str, Any]]
) -> None:
    weights = str(ROOT / "flipfast" / "assets" / "tiny-inverter")
    background.run(pool.start(2))
    background.run(pool.sleep())
    with pytest.raises(UnavailableError, match="asleep"):
        background.run(pool.score_row("x", "y"))
    assert pool.status().state == "asleep"
    background.run(pool.wake())
    with pytest.raises(FlipfastError):
        background.run(pool.update_weights("/no/such/folder"))
    background.run(pool.update_weights(weights))
    assert background.run(pool.score(INSTRUCTIONS, RESPONSES)).to_dicts() == expected
    assert pool.status().counters["actors"] == 2


def test_closing_answers_all(pool: RayPool, background: Background, hold: Path) -> None:
    hold.write_text(RESPONSES[0])

    async def close_in_the_middle() -> Any:
        scoring = asyncio.ensure_future(pool.score(INSTRUCTIONS, RESPONSES))
        await until(lambda: pool.status().running)
        await pool.close()
        return await asyncio.gather(scoring, return_exceptions=True)

    (result,) = background.run(close_in_the_middle())
    assert isinstance(result, UnavailableError)
    with pytest.raises(UnavailableError, match="closed"):
        background.run(pool.score_row("x", "y"))


def test_a_model_that_cannot_be_loaded_says_so(background: Background) -> None:
    broken = RayPool(CONFIG, n_actors=1, share=LightShare(), build=no_engine)
    with pytest.raises(ModelLoadError, match="no such model"):
        background.run(broken.start())
    with pytest.raises(ModelLoadError, match="no such model"):
        background.run(broken.score_row("x", "y"))
    background.run(broken.close())
    with pytest.raises(ConfigError, match="at least one"):
        RayPool(CONFIG, n_actors=0)


# Ray Serve


def ask(url: str, items: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Rows of a server, which may be about to start a replica."""
    rows: list[dict[str, Any]] = []

    def answered() -> bool:
        try:
            reply = post(url, items)
        except httpx.TransportError:
            return False
        if reply.status_code == 200:
            rows.extend(reply.json()["rows"])
        return reply.status_code == 200

    wait_until(answered)
    return rows


def post(url: str, items: list[dict[str, str]]) -> httpx.Response:
    return httpx.post(f"{url}/v1/rewards", json={"items": items}, timeout=PATIENCE_S)


def test_the_application_behind_ray_serve(expected: list[dict[str, Any]]) -> None:
    # Held, but not listened on: Ray's proxy alone can share it.
    with socket.socket() as held, contextlib.ExitStack() as ending:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        ending.callback(serve.shutdown)
        hasty = {"health_check_period_s": 1, "graceful_shutdown_timeout_s": 1}
        serve.run(deployment(CONFIG, num_replicas=1, build=mortal_engine, **hasty))
        url = f"http://127.0.0.1:{port}"
        texts = zip(INSTRUCTIONS[:9], RESPONSES[:9], strict=True)
        items = [{"instruction": one, "response": other} for one, other in texts]
        assert ask(url, items) == expected[:9]
        poisoned = [*items, {"instruction": "x", "response": POISON}]
        assert post(url, poisoned).status_code >= 500
        assert ask(url, items) == expected[:9]  # from another replica
    with pytest.raises(ConfigError, match="admin"):
        deployment(CONFIG, ServerOptions(admin=True))


# Folders


class Mortal:
    """A reward that raises what ends a process where a response asks for that."""

    def __init__(self, reward: FlipReward) -> None:
        self.config, self._reward = reward.config, reward

    def score(self, instructions: Any, responses: Any, contexts: Any) -> Any:
        if POISON in responses:
            raise SystemExit
        return self._reward.score(instructions, responses, contexts)


def write_lines(path: Path, n: int) -> None:
    rows = [{"id": i, "instruction": INSTRUCTIONS[i], "response": RESPONSES[i]} for i in range(n)]
    lines = [json.dumps(row) for row in rows]
    lines[2:2] = ["", "broken", '{"instruction": "x", "responses": ["y", null]}']
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def scored(out: Path, name: str) -> list[dict[str, Any]]:
    parts = sorted((out / name).glob("*"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def by_command(source: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """What `flipfast score` gives without Ray."""
    out = tmp_path / "plain.jsonl"
    assert main(["score", str(source), "--out", str(out), "--overwrite", *_TOKENS]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_an_interrupted_folder_with_a_killed_actor_is_the_same_in_the_end(
    tmp_path: Path, reward: FlipReward
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_lines(source / "a.jsonl", 20)
    write_lines(source / "deep" / "b.jsonl", 20)
    table = pyarrow.table(
        {
            "instruction": INSTRUCTIONS[:9],
            "response": [*RESPONSES[:8], None],
            "context": ["user: hello", *[None] * 8],
        }
    )
    parquet.write_table(table, source / "c.parquet", row_group_size=2)
    how: dict[str, Any] = {"config": CONFIG, "n_actors": 2, "rows_a_part": 5}

    def stop(report: Any, n_parts: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_folder(str(source), str(out), on_part=stop, **{**how, "n_actors": 1})
    everything = ray.cluster_resources()["CPU"]
    wait_until(lambda: ray.available_resources().get("CPU") == everything)  # its actor has ended
    (out / "a.jsonl" / "part-000003.jsonl").unlink(missing_ok=True)  # if it was done by then
    before = {path: path.stat().st_mtime_ns for path in out.rglob("part-*")}
    assert before
    flag = tmp_path / "killed"
    build = partial(clumsy_reward, flag=str(flag), response=RESPONSES[13])
    report = score_folder(str(source), str(out), build=build, **how)
    assert flag.exists()
    assert report.n_parts == 5 + 5 + 2
    assert report.n_kept == len(before)
    assert before.items() <= {p: p.stat().st_mtime_ns for p in out.rglob("part-*")}.items()
    assert not list(out.rglob(".*"))
    for name in ("a.jsonl", "deep/b.jsonl"):
        assert scored(out, name) == by_command(source / name, tmp_path)
    rows = scored(out, "c.parquet")
    assert [row["line"] for row in rows] == list(range(1, 10))
    plain = reward.score(INSTRUCTIONS[:8], RESPONSES[:8], ["user: hello", *[None] * 7])
    assert [row["reward"] for row in rows[:8]] == plain.rewards
    assert (rows[8]["status"], rows[8]["error"]) == ("contentless", "response is None")
    score_refuses_what_changed(source, out, how)


def score_refuses_what_changed(source: Path, out: Path, how: dict[str, Any]) -> None:
    again = score_folder(str(source), str(out), **how)  # starts no actor
    assert again.n_kept == again.n_parts
    other = FlipConfig(max_new_tokens=23)
    with pytest.raises(ConfigError, match=r"max_new_tokens=24, not 23.*--overwrite"):
        score_folder(str(source), str(out), **{**how, "config": other})
    shutil.copy(source / "a.jsonl", source / "new.jsonl")
    with pytest.raises(InputError, match=r"new\.jsonl has changed"):
        score_folder(str(source), str(out), **how)
    (source / "new.jsonl").unlink()
    write_lines(source / "a.jsonl", 21)
    with pytest.raises(InputError, match=r"a\.jsonl has changed"):
        score_folder(str(source), str(out), **how)


def test_a_part_that_ends_its_actors_is_named_and_the_others_are_done(
    tmp_path: Path, reward: FlipReward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray, which runs a part again wherever an actor dies."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    rows = [{"instruction": "x", "response": text} for text in ("a", "b", POISON, "c", "d", "e")]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = folder.PartScorer(lambda _: Mortal(reward), CONFIG, ActorShare(threads=2))
    n_deaths = 0

    def run(parts: list[Part], *_: Any) -> Iterator[folder.PartReport]:
        nonlocal n_deaths
        for part in parts:
            while True:
                try:
                    (report,) = scorer({"part": [json.dumps(asdict(part))]})["report"]
                except SystemExit:
                    n_deaths += 1
                    continue
                yield folder.PartReport(**json.loads(report))
                break

    monkeypatch.setattr(folder, "_run", run)
    for overwrite in (False, False, True):
        with pytest.raises(FlipfastError, match=r"1 of 3 parts are not done.*rows 3 to 4"):
            score_folder(str(source), str(out), CONFIG, rows_a_part=2, overwrite=overwrite)
        found = sorted(path.name for path in out.rglob("part-*"))
        assert found == ["part-000000.jsonl", "part-000002.jsonl"]
    assert n_deaths == 9  # three a run


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    write_lines(source, 8)
    command = ["score", str(source), "--out", str(out), "--ray", "--actors", "1", *_TOKENS]
    assert main(command) == 0
    assert scored(out, "in.jsonl") == by_command(source, tmp_path)
    shown = capsys.readouterr().err
    assert "in.jsonl, line 4: not JSON" in shown
    assert main(command) == 0
    assert "1 of 1 parts were there already" in capsys.readouterr().err
    assert main([*command, "--max-new-tokens", "23"]) == 2
    assert main(["score", str(source), "--ray"]) == 2
    assert main(["score", str(source), "--actors", "1"]) == 2


@pytest.mark.parametrize("rows_a_part", [1, 4, 100])
@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.json"])
def test_parts_of_a_file_of_json_hold_each_row_once(
    tmp_path: Path, name: str, rows_a_part: int
) -> None:
    rows = [json.dumps({"instruction": str(i), "response": "y"}) for i in range(9)]
    text = f"[{','.join(rows)}]" if name == "in.json" else "\n\n".join(rows)
    file = tmp_path / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert name == "in.json" or find_files(str(tmp_path)) == {name: file}
    _, parts = cut("in", file, tmp_path, rows_a_part)
    found = [row for part in parts for row in part.rows(FlipConfig())]
    step = 1 if name == "in.json" else 2
    assert [(row.line, row.instruction) for row in found] == [
        (1 + step * i, str(i)) for i in range(9)
    ]


@pytest.mark.parametrize("rows_a_part", [1, 4, 7, 100])
@pytest.mark.parametrize("group", [1, 3, 100])
def test_parts_of_a_parquet_file_hold_each_row_once(
    tmp_path: Path, rows_a_part: int, group: int
) -> None:
    file = tmp_path / "in.parquet"
    table = pyarrow.table({"instruction": [str(i) for i in range(13)], "response": ["y"] * 13})
    parquet.write_table(table, file, row_group_size=group)
    _, parts = cut("in", file, tmp_path, rows_a_part)
    rows = [row for part in parts for row in part.rows(FlipConfig())]
    assert [(row.line, row.instruction) for row in rows] == [(i + 1, str(i)) for i in range(13)]
