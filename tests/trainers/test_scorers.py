"""Engines and clients for trainers: one for each configuration, on any thread, within a time."""

import asyncio
import multiprocessing
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flipfast import FlipConfig, FlipReward
from flipfast.client import AsyncFlipClient
from flipfast.errors import ConfigError, UnavailableError
from flipfast.trainers._scorers import TrainerScorer, figures, scorer_of
from tests.trainers.conftest import ROWS
from tests.trainers.fakes import UNPARSED, AwayScorer, FixedScorer, StuckScorer, row
from tests.waiting import PATIENCE_S


def test_a_target_is_an_engine_a_server_or_a_scorer(monkeypatch):
    engine = scorer_of()
    assert engine is scorer_of("embedded") is scorer_of(FlipConfig())
    assert engine is not scorer_of(style="direct")
    server = scorer_of("http://127.0.0.1:1")
    assert isinstance(server, AsyncFlipClient)
    assert server is scorer_of("http://127.0.0.1:1")
    assert server is not scorer_of("http://127.0.0.1:1", api_key="k")
    monkeypatch.setenv("FLIPFAST_URL", "http://127.0.0.1:1")
    assert scorer_of() is server
    fake = FixedScorer(UNPARSED)
    assert scorer_of(fake) is fake


def test_wrong_options_say_so():
    with pytest.raises(ConfigError, match="unknown option 'colour'"):
        scorer_of(colour=1)
    with pytest.raises(ConfigError, match="takes no options, got style"):
        scorer_of(FixedScorer(UNPARSED), style="direct")


def test_many_threads_and_loops_get_the_rewards_of_a_batch(flip: FlipReward):
    expected = flip(*zip(*ROWS, strict=True))
    assert expected[-1] is None  # its prompt asks nothing
    assert len(set(expected)) > 2
    scorer = TrainerScorer(on_failure=None)

    def blocking(place: int) -> float | None:
        prompt, completion = ROWS[place]
        return scorer.chats_now([prompt], [completion])[0]["reward"]

    def own_loop(place: int) -> float | None:
        prompt, completion = ROWS[place]
        return asyncio.run(scorer.chats([prompt], [completion]))[0]["reward"]

    places = [*range(len(ROWS))] * 2
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(blocking, places, timeout=PATIENCE_S)] == expected * 2
        assert [*pool.map(own_loop, places, timeout=PATIENCE_S)] == expected * 2
    assert [r["reward"] for r in scorer.chats_now(*zip(*ROWS, strict=True))] == expected


def test_one_engine_is_made_when_many_threads_are_first():
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(scorer_of, seed=11) for _ in range(8)]
        assert len({id(future.result(timeout=PATIENCE_S)) for future in futures}) == 1


def test_an_engine_is_loaded_beside_the_callers_event_loop(monkeypatch):
    threads = []
    monkeypatch.setattr(
        "flipfast.trainers._scorers._make",
        lambda key: threads.append(threading.current_thread()) or FixedScorer(row(0.5)),
    )
    rows = asyncio.run(TrainerScorer(seed=12).chats(["a"], ["b"]))
    assert rows[0]["reward"] == 0.5
    assert threads[0] is not threading.main_thread()
    from flipfast.trainers import _scorers

    del _scorers._scorers[FlipConfig(seed=12)]


def test_a_failed_row_gets_on_failure_and_is_counted():
    fake = FixedScorer(UNPARSED)
    assert TrainerScorer(fake).chats_now(["a"], ["b"])[0]["reward"] == 0.0
    assert TrainerScorer(fake, on_failure=-1.0).chats_now(["a"], ["b"])[0]["reward"] == -1.0
    (failure,) = TrainerScorer(fake, on_failure=None).chats_now(["a"], ["b"])
    assert failure["reward"] is None
    assert figures(failure) == {"flip_failed": 1.0, "flip_precision": 0.0, "flip_recall": 0.0}
    assert figures(row(0.5)) == {"flip_failed": 0.0, "flip_precision": 0.5, "flip_recall": 0.5}


def test_a_stuck_row_ends_in_time_and_harms_no_other(caplog):
    scorer = TrainerScorer(StuckScorer(row(0.5)), timeout=0.2)
    good, stuck = scorer.chats_now(["a", "a"], ["b", "stuck"])
    assert (good["reward"], good["status"]) == (0.5, "ok")
    assert (stuck["reward"], stuck["status"]) == (0.0, "error")
    assert "not done within 0.2 s" in stuck["error"]
    assert "1 of 2 rows have no reward" in caplog.text


def test_no_reward_is_made_up_where_nobody_answers():
    with pytest.raises(UnavailableError, match="nobody is here"):
        TrainerScorer(AwayScorer(UNPARSED)).chats_now(["a"], ["b"])


def test_a_pickle_has_the_target_and_no_engine(flip: FlipReward):
    scorer = TrainerScorer(FlipConfig(), timeout=PATIENCE_S, on_failure=None)
    scorer.chats_now(["a"], ["b"])
    sent = pickle.dumps(scorer)
    assert len(sent) < 2000
    prompts, completions = zip(*ROWS, strict=True)
    rows = pickle.loads(sent).chats_now(prompts, completions)
    assert [r["reward"] for r in rows] == flip(prompts, completions)


def _in_child(scorer: TrainerScorer, answers) -> None:
    from flipfast.trainers import _scorers

    known = len(_scorers._scorers)
    answers.put((known, scorer.chats_now(["a"], ["b"])[0]["reward"]))


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")
def test_a_fork_starts_anew():
    scorer_of()  # the parent has an engine, and below a background loop
    scorer = TrainerScorer(FixedScorer(row(0.5)))
    scorer.chats_now(["a"], ["b"])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(scorer, answers))
    child.start()
    try:
        assert answers.get(timeout=PATIENCE_S) == (0, 0.5)
    finally:
        child.kill()
        child.join()
