"""AsyncFlipEngine: the bits of FlipReward for many callers, and an answer whatever goes wrong."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from flipfast import FlipReward
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import FlipfastError, InputError, QueueFullError, UnavailableError
from flipfast.serving.async_engine import AsyncFlipEngine
from tests.serving.holding import Hold
from tests.waiting import PATIENCE_S, TIMEOUTS_S, until

TEXTS = [
    ("How do I make banana bread?", "Mash three bananas, mix them with flour, bake an hour."),
    ("What is erosion?", "Erosion is the wearing away of soil by wind and water."),
    ("Name three rivers of France.", "The Seine, the Loire and the Rhone."),
]
ROWS = [(x, f"{y} ({n})") for n in range(8) for x, y in TEXTS]


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    with FlipReward() as reward:
        return reward.score(*map(list, zip(*ROWS, strict=True))).to_dicts()


@pytest.fixture(scope="module")
def engine() -> Any:
    engine = AsyncFlipEngine(max_queue=1000)
    yield engine
    engine.shut_down()


def test_rows_batches_and_streams_have_the_bits_of_a_batch(engine: Any, expected: Any) -> None:
    async def main() -> None:
        rows = [engine.score_row(x, y, caller=str(n % 5)) for n, (x, y) in enumerate(ROWS)]
        assert await asyncio.gather(*rows) == expected
        columns = list(map(list, zip(*ROWS, strict=True)))
        assert (await engine.score(*columns)).to_dicts() == expected
        streamed = [pair async for pair in engine.stream(*columns)]
        assert sorted(at for at, _ in streamed) == list(range(len(ROWS)))
        assert all(row == expected[at] for at, row in streamed)
        chat = await engine.score_chat([{"role": "user", "content": ROWS[0][0]}], ROWS[0][1])
        assert chat == expected[0]

    run(main())


def test_prose_is_looked_for_in_every_32_rows(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(engine, "_statuses", [])
    monkeypatch.setattr(engine._prose, "check", lambda statuses: seen.append([*statuses]))
    rows = [("Name a river.", f"The Ebro is river {n}.") for n in range(40)]

    async def main() -> None:
        await asyncio.gather(*(engine.score_row(*row) for row in rows))

    run(main())
    assert [len(statuses) for statuses in seen] == [32]
    assert "ok" in seen[0]


def test_several_event_loops_share_it(engine: Any, expected: Any) -> None:
    found: dict[int, Any] = {}

    def work(first: int) -> None:
        async def main() -> None:
            places = range(first, len(ROWS), 3)
            rows = await asyncio.gather(*(engine.score_row(*ROWS[at]) for at in places))
            found.update(zip(places, rows, strict=True))

        run(main())

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [found[at] for at in range(len(ROWS))] == expected


def test_a_batch_of_none_and_bad_input(engine: Any) -> None:
    async def main() -> None:
        assert len(await engine.score([], [])) == 0
        with pytest.raises(InputError, match="1 instructions, 2 responses"):
            await engine.score(["x"], ["y", "z"])
        batch = await engine.score(["What is erosion?", "x"], ["Wind and water.", 3])
        assert batch.status[1] == "error"
        assert "got 3" in batch.errors[1]
        assert batch.rewards[0] is not None

    run(main())


def test_what_is_cancelled_makes_room(engine: Any, expected: Any) -> None:
    async def main() -> None:
        before = engine.status().counters
        tasks = [asyncio.create_task(engine.score_row(*row)) for row in ROWS * 4]
        await until(lambda: engine.status().counters["steps"] > before["steps"])
        for task in tasks[::2]:
            task.cancel()
        rows = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [(at, row) for at, row in enumerate(rows) if isinstance(row, dict)]
        assert len(kept) >= len(tasks) // 2
        assert all(row == expected[at % len(ROWS)] for at, row in kept)
        await until(lambda: not engine.status().queued + engine.status().running)
        status = engine.status()
        assert status.counters["rewards"] - before["rewards"] <= len(tasks)
        assert engine.inverter._model.engine._scheduler.idle

    run(main())


def test_the_engine_is_idle_soon_after_a_cancel(monkeypatch: Any) -> None:
    async def main() -> None:
        engine = AsyncFlipEngine(style="standalone", drafting=False)  # about 75 steps a row
        hold = Hold(monkeypatch, engine, lambda: engine.status().counters["steps"] == 3)
        task = asyncio.create_task(engine.score_row(*ROWS[0]))
        await until(hold.taken.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.release()
        await until(lambda: not engine.status().running)
        assert engine.status().counters["steps"] < 10
        assert engine.inverter._model.engine._scheduler.idle  # type: ignore[attr-defined]
        await engine.close()

    run(main())


def test_a_deadline_leaves_what_is_done(engine: Any, monkeypatch: Any) -> None:
    async def main() -> None:
        texts = [f"{n} rivers" for n in range(300)]
        for timeout in TIMEOUTS_S:
            before = engine.status().counters["rewards"]
            with monkeypatch.context() as patch:
                hold = Hold(patch, engine, lambda n=before: engine.status().counters["rewards"] > n)
                batch = await engine.score([ROWS[0][0]] * len(texts), texts, timeout=timeout)
                hold.release()
                await until(lambda: not engine.status().queued + engine.status().running)
            late = [error for error in batch.errors if error is not None]
            assert set(late) == {f"not done within {timeout} s"}
            assert [reward is None for reward in batch.rewards].count(True) == len(late)
            if len(late) < len(texts):
                return
        raise AssertionError("no row is ever done in time")

    run(main())


@pytest.mark.slow
def test_callers_take_turns(monkeypatch: Any) -> None:
    async def main() -> None:
        engine = AsyncFlipEngine(batch_size=2)
        hold = Hold(monkeypatch, engine)
        ended: list[str] = []

        async def score(caller: str, n: int) -> None:
            await engine.score_row("What is erosion?", f"Wind and water, {n}.", caller=caller)
            ended.append(caller)

        greedy = [asyncio.create_task(score("greedy", n)) for n in range(60)]
        await asyncio.sleep(0)
        modest = [asyncio.create_task(score("modest", -n)) for n in range(1, 4)]
        await asyncio.sleep(0)
        hold.release()
        await asyncio.gather(*greedy, *modest)
        await engine.close()
        assert max(at for at, caller in enumerate(ended) if caller == "modest") < 30

    run(main())


@pytest.mark.slow
def test_a_full_queue_refuses_and_keeps_what_it_has(monkeypatch: Any) -> None:
    async def main() -> None:
        engine = AsyncFlipEngine(batch_size=1, max_queue=10)
        hold = Hold(monkeypatch, engine)
        tasks = [
            asyncio.create_task(engine.score_row("What is erosion?", f"Wind, {n}."))
            for n in range(50)
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        hold.release()
        rows = await asyncio.gather(*tasks, return_exceptions=True)
        full = [row for row in rows if isinstance(row, QueueFullError)]
        assert full
        assert all(error.retry_after > 0 for error in full)
        assert all(row["error"] is None for row in rows if isinstance(row, dict))
        assert len(full) + sum(isinstance(row, dict) for row in rows) == 50
        await engine.close()

    run(main())


@pytest.mark.slow
def test_sleep_lets_rows_end_and_wake_goes_on(expected: Any) -> None:
    async def main() -> None:
        engine = AsyncFlipEngine(batch_size=4)
        tasks = [asyncio.create_task(engine.score_row(*row)) for row in ROWS[:20]]
        await asyncio.sleep(0)
        asleep = asyncio.create_task(engine.sleep(drop_weights=True))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="asleep"):
            await engine.score_row(*ROWS[0])
        assert await asyncio.gather(*tasks) == expected[:20]
        await asleep
        assert engine.status().state == "asleep"
        await engine.wake()
        assert await engine.score_row(*ROWS[0]) == expected[0]
        await engine.close()
        with pytest.raises(UnavailableError, match="closed"):
            await engine.score_row(*ROWS[0])

    run(main())


@pytest.mark.slow
def test_new_weights_come_between_rows(tmp_path: Path, expected: Any) -> None:
    from safetensors.torch import load_file, save_file

    from flipfast.scoring.assembly import _model_folder

    folder = tmp_path / "other"
    shutil.copytree(_model_folder("embedded"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor * 0.9 for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors")

    async def main() -> None:
        engine = AsyncFlipEngine(batch_size=2, cache_rewards=50)
        first = [asyncio.create_task(engine.score_row(*row)) for row in ROWS[:9]]
        await asyncio.gather(*first)
        new = asyncio.create_task(engine.update_weights(str(folder)))
        await asyncio.sleep(0)
        later = [asyncio.create_task(engine.score_row(*row)) for row in ROWS[:9]]
        rows = await asyncio.gather(*later)
        await new
        with FlipReward(str(folder)) as reward:
            other = reward.score(*map(list, zip(*ROWS[:9], strict=True))).to_dicts()
        assert [task.result() for task in first] == expected[:9]
        assert rows == other != expected[:9]
        with pytest.raises(FlipfastError, match="nowhere"):
            await engine.update_weights("/nowhere")
        assert await engine.score_row(*ROWS[0]) == other[0]
        await engine.close()

    run(main())


def test_an_engine_that_breaks_answers_everyone(monkeypatch: Any) -> None:
    async def main() -> None:
        engine = AsyncFlipEngine(batch_size=2)

        def broken() -> None:
            raise RuntimeError("bits fell out")

        monkeypatch.setattr(engine.inverter, "step", broken)
        rows = await asyncio.gather(
            *(engine.score_row(*row) for row in ROWS), return_exceptions=True
        )
        assert all(isinstance(row, UnavailableError) for row in rows)
        assert "bits fell out" in str(rows[0])
        assert engine.status().state == "failed"
        with pytest.raises(UnavailableError, match="has failed"):
            await engine.score_row(*ROWS[0])
        await engine.close()

    run(main())


def test_conversations_run_beside_rows(engine: Any, expected: Any) -> None:
    async def main() -> None:
        messages = [{"role": "user", "content": "hello"}]
        sampling = SamplingParams(max_new_tokens=5, temperature=1.0)
        found = await asyncio.gather(
            *(engine.complete(messages, sampling, seed=seed) for seed in (1, 2, 1)),
            *(engine.score_row(*row) for row in ROWS),
        )
        assert found[0] == found[2]
        assert found[0].n_output_tokens <= 5
        assert found[3:] == expected
        with pytest.raises(InputError, match="do not fit"):
            await engine.complete(messages, SamplingParams(max_new_tokens=10**6))

    run(main())
