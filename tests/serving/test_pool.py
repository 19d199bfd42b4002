"""Engine processes: their rows, their ends, and what they know after being started again."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources

import psutil
import pytest

from flipfast.config import FlipConfig
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ConfigError, ModelLoadError, QueueFullError, UnavailableError
from flipfast.serving import supervisor
from flipfast.serving.pool import EnginePool
from tests.serving import engines
from tests.waiting import PATIENCE_S, until, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch):
    monkeypatch.setattr(supervisor, "_FIRST_DELAY_S", 0.02)


def run(work):
    """Run a coroutine, which leaves no process behind."""
    before = set(children())
    asyncio.run(asyncio.wait_for(work, PATIENCE_S))
    assert set(children()) == before


def children():
    """Ids of the engine processes of this one; other children are left by other tests."""
    return [child.pid for child in psutil.Process().children() if is_engine(child)]


def is_engine(process):
    try:
        return any("flipfast.serving.engine_process" in part for part in process.cmdline())
    except psutil.ZombieProcess:
        return True  # it has ended, and nobody has taken notice
    except psutil.NoSuchProcess:
        return False


@asynccontextmanager
async def started(n_workers=1, factory=engines.ObedientEngine, **options):
    pool = EnginePool(FlipConfig(on_failure=-1.0), n_workers, factory=factory, **options)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def weights_and_process(pool):
    row = await pool.score_row("an instruction", "a response")
    return row["inferred"], int(row["error"])


async def once_ready(pool, n=1):
    await until(lambda: len(pool._processes.ready) == n)


def test_rows_are_shared_and_travel_together():
    async def work():
        async with started(2) as pool:
            batch = await pool.score(["an instruction"] * 100, ["a response"] * 100)
            assert Counter(Counter(batch.errors).values()) == {50: 2}
            assert pool.status().counters == {
                "rewards": 100,
                "failed_rewards": 0,
                "cancelled": 0,
                "pages": 10,
            }
            assert pool.status().state == "ready"

    run(work())


def test_completions_have_their_arguments():
    async def work():
        async with started() as pool:
            messages = [{"role": "user", "content": "Name a river."}]
            found = await pool.complete(messages, SamplingParams(9), seed=4, caller="me")
            assert (found.text, found.n_output_tokens) == (f"{messages} 9 4 me", 2)

    run(work())


def test_what_is_no_text_is_that_rows_error_alone():
    class Text(str):
        """Which the process does not know."""

    async def work():
        async with started() as pool:
            batch = await pool.score([Text("a"), "b", "c"], ["x", None, "y"], [None, None, 5])
            assert batch.status == ["ok", "contentless", "error"]
            assert batch.rewards == [1.0, -1.0, -1.0]
            row = await pool.score_chat([{"role": "system", "content": "s"}], "a response")
            assert (row["status"], row["reward"]) == ("error", -1.0)
            assert "no user turn" in row["error"]
            call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
            row = await pool.score_chat("Name a river", call)
            assert (row["status"], row["reward"]) == ("contentless", -1.0)
            assert "only tool calls" in row["error"]
            assert pool.status().counters["failed_rewards"] == 4

    run(work())


def test_a_cancelled_row_is_cancelled_in_its_process():
    async def work():
        async with started() as pool:
            responses = ["wait", "x", "wait"]
            rows = [asyncio.create_task(pool.score_row("a", text)) for text in responses]
            assert (await rows[1])["status"] == "ok"  # so that the others have begun
            for row in rows[::2]:
                row.cancel()
            await asyncio.wait(rows)
            await weights_and_process(pool)
            status = pool.status()
            assert (status.counters["cancelled"], status.running, status.queued) == (2, 0, 0)

    run(work())


def test_a_full_pool_takes_no_more():
    async def work():
        async with started(max_queue=2) as pool:
            tasks = [asyncio.create_task(pool.score_row("a", "wait")) for _ in range(2)]
            await until(lambda: pool.status().queued == 2)
            with pytest.raises(QueueFullError, match="2 rows") as caught:
                await pool.score_row("a", "x")
            assert caught.value.retry_after > 0
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await weights_and_process(pool)

    run(work())


def test_an_error_of_an_engine_is_that_rows_alone():
    async def work():
        async with started() as pool:
            _, process = await weights_and_process(pool)
            with pytest.raises(QueueFullError, match="it is full") as caught:
                await pool.score_row("a", "refuse")
            assert caught.value.retry_after == 7.0
            assert (await weights_and_process(pool))[1] == process

    run(work())


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("be killed", "SIGKILL"),
        ("segfault", "SIGSEGV"),
        ("exit", "exit code 3"),
        ("raise", "RuntimeError: it is broken"),
    ],
)
def test_a_process_that_ends_is_started_again(end, reason):
    async def work():
        async with started(2) as pool:
            tasks = [asyncio.create_task(pool.score_row("a", "wait")) for _ in range(4)]
            await until(lambda: pool.status().queued + pool.status().running == 4)
            before = set(children())
            await weights_and_process(pool)
            with pytest.raises(UnavailableError, match=reason):
                await pool.score_row("a", end)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            lost = [task for task in tasks if task.done()]
            assert len(lost) == 2
            for task in lost:
                with pytest.raises(UnavailableError, match=reason):
                    task.result()
            assert (await weights_and_process(pool))[1] in before
            await once_ready(pool, 2)
            assert len(before & set(children())) == 1
            batch = await pool.score(["a"] * 2, ["x"] * 2)
            assert batch.status == ["ok"] * 2
            assert pool.status().counters["rewards"] == 4
        for task in set(tasks) - set(lost):
            with pytest.raises(UnavailableError, match="closed"):
                await task

    run(work())


def test_an_engine_that_has_failed_is_replaced():
    async def work():
        async with started() as pool:
            [before] = children()
            with pytest.raises(Exception, match="the engine is broken"):
                await pool.score_row("a", "fail")
            await until(lambda: not psutil.pid_exists(before))
            assert pool.status().state == "starting"
            with pytest.raises(UnavailableError, match="no engine is ready"):
                await pool.score_row("a", "x")
            await once_ready(pool)
            await weights_and_process(pool)

    run(work())


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (engines.wrong_option, ConfigError, "^worker [01] of 2 does not like its option$"),
        (engines.no_model, ModelLoadError, "^there is no such model$"),
        (engines.broken, ModelLoadError, "ZeroDivisionError: by zero"),
        (engines.ends, ModelLoadError, "exit code 7"),
        (engines.hangs, ModelLoadError, "did not start in 0.3 s"),
    ],
)
def test_a_first_start_that_fails_says_why(factory, error, message):
    async def work():
        timeout = 0.3 if factory is engines.hangs else PATIENCE_S
        pool = EnginePool(n_workers=2, factory=factory, start_timeout=timeout)
        with pytest.raises(error, match=message):
            await pool.start()
        assert children() == []
        with pytest.raises(UnavailableError, match="closed"):
            await pool.score_row("a", "x")

    run(work())


def test_a_start_can_be_given_up():
    async def work():
        pool = EnginePool(n_workers=2, factory=engines.hangs)
        start = asyncio.create_task(pool.start())
        await until(lambda: len(children()) == 2)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert children() == []
        await pool.close()

    run(work())


def test_a_pool_can_be_closed_while_it_starts():
    async def work():
        pool = EnginePool(n_workers=2, factory=engines.hangs)
        start = asyncio.create_task(pool.start())
        await until(lambda: len(children()) == 2)
        await pool.close()
        with pytest.raises(ModelLoadError, match="the pool is closed"):
            await start

    run(work())


@pytest.mark.parametrize(
    ("n_workers", "options", "message"),
    [
        (0, {}, "n_workers must be at least 1, not 0"),
        (1, {"max_queue": 0}, "max_queue must be at least 1, not 0"),
        (2, {"config": FlipConfig(device="cuda:1")}, "2 workers cannot share device 'cuda:1'"),
    ],
)
def test_wrong_options(n_workers, options, message):
    with pytest.raises(ConfigError, match=message):
        EnginePool(n_workers=n_workers, **options)


def test_before_its_start_a_pool_scores_nothing():
    async def work():
        pool = EnginePool(factory=engines.ObedientEngine)
        assert pool.status().state == "starting"
        with pytest.raises(UnavailableError, match="no engine is ready"):
            await pool.score_row("a", "x")
        await pool.close()

    run(work())


def test_new_weights_outlive_a_process(tmp_path):
    async def work():
        async with started(2) as pool:
            first, process = await weights_and_process(pool)
            assert first == "first"
            (tmp_path / "second").mkdir()
            await pool.update_weights(str(tmp_path / "second"))
            batch = await pool.score(["a"] * 10, ["x"] * 10)
            assert list(batch.inferred) == ["second"] * 10
            os.kill(process, signal.SIGKILL)
            # Once it is reaped, the pool knows; a process that is ending has no command line.
            await until(lambda: not psutil.pid_exists(process))
            await once_ready(pool, 2)
            batch = await pool.score(["a"] * 10, ["x"] * 10)
            assert list(batch.inferred) == ["second"] * 10
            assert len(set(batch.errors)) == 2

    run(work())


def test_rows_that_come_during_an_update_get_the_new_weights(tmp_path):
    async def work():
        async with started(2) as pool:
            (tmp_path / "second").mkdir()
            (tmp_path / "second" / "wait").touch()
            update = asyncio.create_task(pool.update_weights(str(tmp_path / "second")))
            await until(lambda: not pool._processes.settled.is_set())
            scores = asyncio.create_task(pool.score(["a"] * 4, ["x"] * 4))
            await until(lambda: pool._n_rows == 4)
            (tmp_path / "second" / "wait").unlink()
            assert list((await scores).inferred) == ["second"] * 4
            await update

    run(work())


def test_weights_that_no_process_takes_change_nothing(tmp_path):
    async def work():
        async with started(2) as pool:
            before = set(children())
            (tmp_path / "fail").touch()
            with pytest.raises(ModelLoadError, match=r"is no good$"):
                await pool.update_weights(str(tmp_path))
            assert (await weights_and_process(pool))[0] == "first"
            assert set(children()) == before

    run(work())


def test_a_process_that_does_not_take_the_others_weights_is_replaced(tmp_path):
    async def work():
        async with started(2) as pool:
            before = set(children())
            (tmp_path / "fail once").touch()
            await pool.update_weights(str(tmp_path))
            assert (await weights_and_process(pool))[0] == tmp_path.name
            await once_ready(pool, 2)
            assert len(before & set(children())) == 1
            batch = await pool.score(["a"] * 10, ["x"] * 10)
            assert list(batch.inferred) == [tmp_path.name] * 10

    run(work())


def test_sleep_and_wake():
    async def work():
        async with started(2) as pool:
            await pool.sleep(drop_weights=True)
            await pool.sleep()
            assert pool.status().state == "asleep"
            with pytest.raises(UnavailableError, match="asleep"):
                await pool.score_row("a", "x")
            with pytest.raises(UnavailableError, match="asleep"):
                await pool.update_weights("anywhere")
            await pool.wake()
            await pool.wake()
            await weights_and_process(pool)
            assert pool.status().state == "ready"

    run(work())


def test_a_process_that_ends_asleep_comes_back_awake_with_the_last_weights(
    tmp_path, caplog, monkeypatch
):
    async def work():
        async with started(2) as pool:
            n_waiting = 0
            wait = pool._processes._awake.wait

            async def counted():
                nonlocal n_waiting
                n_waiting += 1
                return await wait()

            monkeypatch.setattr(pool._processes._awake, "wait", counted)
            (tmp_path / "second").mkdir()
            await pool.update_weights(str(tmp_path / "second"))
            await pool.sleep()
            for process in children():
                os.kill(process, signal.SIGKILL)
            await until(lambda: n_waiting == 2)
            assert children() == []
            assert pool.status().state == "asleep"
            assert "cannot be started" not in caplog.text  # nor has it been tried
            await pool.wake()
            await once_ready(pool, 2)
            batch = await pool.score(["a"] * 10, ["x"] * 10)
            assert list(batch.inferred) == ["second"] * 10

    run(work())


def test_a_process_that_starts_holds_no_memory_while_the_others_sleep(tmp_path):
    hang = tmp_path / "hang"

    async def work():
        async with started(2, factory=partial(engines.hangs_if, str(hang))) as pool:
            before = set(children())
            hang.touch()
            os.kill(min(before), signal.SIGKILL)
            await until(lambda: set(children()) - before)
            assert len(pool._processes.ready) == 1
            await pool.sleep()
            assert set(children()) == {max(before)}
            hang.unlink()
            await pool.wake()
            await once_ready(pool, 2)

    run(work())


def test_close_ends_what_is_open_and_later_calls():
    async def work():
        async with started(2) as pool:
            task = asyncio.create_task(pool.score_row("a", "wait"))
            await until(lambda: any(worker.n_open for worker in pool._processes.workers))
            await pool.close()
            assert children() == []
            for call in (task, pool.score_row("a", "x"), pool.sleep()):
                with pytest.raises(UnavailableError, match="the pool is closed"):
                    await call

    run(work())


def test_processes_leave_signals_to_their_parent():
    async def work():
        async with started(2) as pool:
            processes = children()
            for process in processes:
                assert os.getpgid(process) != os.getpgid(0)
                os.kill(process, signal.SIGTERM)
                os.kill(process, signal.SIGINT)
            batch = await pool.score(["a"] * 10, ["x"] * 10)
            assert set(map(int, batch.errors)) == set(processes)

    run(work())


SCRIPT = """
import asyncio, sys
import psutil
from flipfast.serving.pool import EnginePool
from tests.serving import engines
from tests.waiting import until

async def work():
    pool = EnginePool(n_workers=2, factory=engines.{factory})
    start = asyncio.create_task(pool.start())
    children = psutil.Process().children
    await until(lambda: len(children()) == 2 and (start.done() or {hangs}))
    heavy = {{"torch", "transformers", "numpy", "tokenizers"}} & set(sys.modules)
    print(*heavy, *(child.pid for child in children()), flush=True)
    {last}

asyncio.run(work())
"""


@pytest.mark.parametrize("factory", ["ObedientEngine", "hangs"])
@pytest.mark.parametrize("end", ["killed", "done"])
def test_no_process_outlives_its_parent(factory, end):
    last = "return" if end == "done" else "await asyncio.Event().wait()"
    # No pool is closed here, and no script guarded against being run again by a process.
    script = SCRIPT.format(factory=factory, last=last, hangs=factory == "hangs")
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        printed = parent.stdout.readline().split()
        processes = [int(word) for word in printed]  # and nothing heavy before them
        assert len(processes) == 2
        if end == "killed":
            parent.kill()
        parent.wait(PATIENCE_S)
        wait_until(lambda: not any(map(lives, processes)))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def lives(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_rewards_are_those_of_the_engine_in_this_process(tmp_path):
    """With real engines: in the middle of many rows one is killed, later all take new weights."""
    from safetensors.torch import load_file, save_file

    from flipfast import FlipReward

    shutil.copytree(resources.files("flipfast") / "assets" / "tiny-inverter", tmp_path / "new")
    weights = load_file(tmp_path / "new" / "model.safetensors")
    weights["model.norm.weight"] = -weights["model.norm.weight"]
    save_file(weights, tmp_path / "new" / "model.safetensors")
    n = 90
    instructions = [f"Name {i} rivers of Norway." for i in range(n)]
    responses = [f"The rivers are Glomma, {'Tana, ' * (i % 7)}and {i} others." for i in range(n)]
    config = FlipConfig(max_new_tokens=24)
    with FlipReward(config) as reward:
        expected = reward.score(instructions, responses).to_dicts()
        reward.inverter.update_weights(tmp_path / "new")
        expected_of_new = reward.score(instructions, responses).to_dicts()
    assert expected != expected_of_new

    async def work():
        pool = EnginePool(config, 2)
        await pool.start()
        try:
            pairs = list(zip(instructions, responses, strict=True))
            tasks = [asyncio.create_task(pool.score_row(*texts)) for texts in pairs[: n // 2]]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            victim = children()[0]
            os.kill(victim, signal.SIGSTOP)  # so that it leaves some, however quick it is
            later = [asyncio.create_task(pool.score_row(*texts)) for texts in pairs[n // 2 :]]
            await asyncio.wait(later, return_when=asyncio.FIRST_COMPLETED)
            os.kill(victim, signal.SIGKILL)
            tasks += later
            rows = await asyncio.gather(*tasks, return_exceptions=True)
            lost = [isinstance(row, UnavailableError) for row in rows]
            assert 0 < sum(lost) <= n // 2
            pairs = zip(rows, expected, lost, strict=True)
            assert all(row == wanted for row, wanted, was_lost in pairs if not was_lost)

            update = asyncio.create_task(pool.update_weights(str(tmp_path / "new")))
            await asyncio.sleep(0)
            assert (await pool.score(instructions, responses)).to_dicts() == expected_of_new
            await update
            await once_ready(pool, 2)
            batch = await pool.score(instructions, responses)
            assert batch.to_dicts() == expected_of_new
            n_counted = pool.status().counters["rewards"]  # some of the lost may be among them
            assert 3 * n - sum(lost) <= n_counted <= 3 * n
        finally:
            await pool.close()

    run(work())
