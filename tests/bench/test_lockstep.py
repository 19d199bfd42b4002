"""Benchmarks made up for two processes that run them in turns."""

import time

import pytest

pytest.importorskip("pytest_benchmark")

from bench import lockstep
from bench.lockstep import Limits, run_in_turns
from bench.sides import Side, _side
from bench.turns import GO_ON, Done, Ready, Turn
from tests.bench import sided

pytestmark = pytest.mark.slow

FEW = Limits(seconds=0.0, least=2, most=10, end=0.0)

GOOD = """
def bench_good(benchmark):
    benchmark.group = "a"
    assert benchmark(sorted, [2, 1], reverse=True) == [2, 1]
    benchmark.extra_info.update(seconds=benchmark.stats.stats.median)
    assert len(benchmark.stats.stats.data) >= 3
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python") / "side"
    folder.mkdir()
    return _side(folder).python


@pytest.fixture
def play(tmp_path, python):
    """Runs a file of benchmarks on both sides, where it starts with SIDE = "old" or "new"."""

    def run(text, *others, limits=FEW):
        sides = []
        for name in ("old", "new"):
            sided.lay_out(tmp_path / name, bench_it=f"SIDE = {name!r}\n{text}")
            sides.append(Side(tmp_path / name, python))
        played = run_in_turns(*sides, ["bench_it.py", *others], limits)
        short = {name.removeprefix("bench_it.py::bench_"): x for name, x in played.problems.items()}
        return [name.removeprefix("bench_it.py::bench_") for name in played.pairs], short, played

    return run


def test_what_goes_well_is_timed(play):
    timed, problems, played = play(GOOD)
    assert (timed, problems) == (["good"], {})
    [pairs] = played.pairs.values()
    assert len(pairs) == 2
    assert all(0 < x < 0.1 for pair in pairs for seconds in pair for x in seconds)


PROBLEMS = """
import pytest

def bench_old_wrong(benchmark):
    assert SIDE == "new", "1 is not 2"
    benchmark(int)

def bench_new_wrong_in_the_end(benchmark):
    benchmark(int)
    assert SIDE == "old"

def bench_old_cannot_set_up(benchmark):
    calls = []
    def set_up():
        calls.append(1)
        assert SIDE == "new" or len(calls) < 2, "second setup"
    benchmark.pedantic(int, setup=set_up)

def bench_new_wrong_in_a_turn(benchmark):
    calls = []
    def call():
        calls.append(1)
        assert SIDE == "old" or len(calls) < 2, "second call"
    benchmark.pedantic(call, setup=lambda: None, rounds=1)

def bench_skipped(benchmark):
    benchmark(int)
    pytest.skip("not today")

def bench_old_skipped(benchmark):
    if SIDE == "old":
        pytest.skip("never")
    benchmark(int)

def bench_without_a_time(benchmark):
    pass

if SIDE == "old":
    def bench_gone(benchmark):
        benchmark(int)
else:
    def bench_added(benchmark):
        benchmark(int)
"""


def test_problems_of_one_leave_the_others_alone(play):
    timed, problems, _ = play(PROBLEMS + GOOD)
    assert timed == ["good"]
    assert problems.pop("new_wrong_in_the_end")[0] == "failed"
    assert {name: kind for name, (kind, _) in problems.items()} == {
        "added": "new",
        "gone": "skipped",
        "old_wrong": "new",
        "new_wrong_in_a_turn": "failed",
        "old_cannot_set_up": "new",
        "skipped": "skipped",
        "old_skipped": "skipped",
        "without_a_time": "skipped",
    }
    assert problems["old_wrong"][1] == "AssertionError: 1 is not 2"
    assert problems["skipped"][1] == "not today"
    assert problems["old_skipped"][1] == "never"
    assert "second call" in problems["new_wrong_in_a_turn"][1]
    assert "second setup" in problems["old_cannot_set_up"][1]


def test_a_file_that_one_side_cannot_import(play):
    text = f"if SIDE == 'old':\n    import nothing_such\n{GOOD}"
    timed, problems, _ = play(text)
    assert (timed, list(problems)) == ([], ["bench_it.py"])
    assert problems["bench_it.py"][0] == "new"
    assert "nothing_such" in problems["bench_it.py"][1]


def test_names_that_nothing_has(play):
    timed, problems, _ = play(GOOD, "bench_it.py::bench_x", "no_file.py")
    assert timed == ["good"]
    assert problems == dict.fromkeys(["x", "no_file.py"], ("failed", "there is no such benchmark"))


DYING = """
import os

def bench_dies(benchmark):
    benchmark(lambda: os._exit(3) if SIDE == WHO else None)
"""


@pytest.mark.parametrize(("who", "kind"), [("old", "new"), ("new", "failed")])
def test_a_process_that_dies_takes_one_benchmark_with_it(play, who, kind):
    first, last = GOOD.replace("_good", "_first"), GOOD
    timed, problems, _ = play(f"WHO = {who!r}\n{first}{DYING}{last}")
    assert timed == ["first", "good"]
    assert problems == {"dies": (kind, "its process has ended with 3")}


HANGING = """
import time

def hang():
    open("hangs", "w").close()
    time.sleep(1000)

def bench_hangs(benchmark):
    benchmark(lambda: hang() if SIDE == "new" else None)
"""


def test_a_process_that_hangs_is_ended(play, tmp_path, monkeypatch):
    """Patience ends when it does, not while pytest starts on a busy machine."""
    plain, hangs = lockstep.Player.receive, tmp_path / "new" / "hangs"

    def receive(player):
        while not player._channel.poll(0.01):
            if player._side.folder.name == "new" and hangs.exists():
                hangs.unlink()
                with monkeypatch.context() as patch:
                    patch.setattr(lockstep, "TIMEOUT_S", 1.0)
                    return plain(player)
        return plain(player)

    monkeypatch.setattr(lockstep.Player, "receive", receive)
    timed, problems, _ = play(HANGING + GOOD)
    assert timed == ["good"]
    assert problems == {"hangs": ("failed", "it has not answered for 1 s")}


def test_pytest_that_does_not_start(play, monkeypatch):
    monkeypatch.setattr(sided, "CONFTEST", "raise ValueError('of the conftest')")
    with pytest.raises(SystemExit, match=r"no benchmark has run(.|\n)*of the conftest"):
        play(GOOD)


class FakePlayer:
    """Answers as a process does, and notes what happens."""

    def __init__(self, name, events, *answers):
        self.name, self.events, self.done = name, events, None
        self.answers = [Ready(5.0, False), *answers]

    def send(self, order):
        self.events.append((self.name, order))

    def receive(self):
        answer = self.answers.pop(0) if self.answers else 1.0
        if isinstance(answer, Done):
            self.done = answer
        return answer


def test_turns_alternate_while_the_other_is_ready():
    events = []
    old, new = FakePlayer("old", events), FakePlayer("new", events)
    pairs = lockstep._time(old, new, Limits(seconds=0.0, least=4, most=10, end=0.0))
    assert pairs == [(1.0, 1.0)] * 4
    set_up = [(name, Turn(1, 1)) for name in ("old", "new")]
    once, again = ([(name, GO_ON) for name in names] for names in (("old", "new"), ("new", "old")))
    assert events == (set_up + once + set_up[::-1] + again) * 2


def test_cheap_calls_are_timed_many_at_once_and_as_many_on_both_sides():
    turn = lockstep._turn([Ready(1e-5, True), Ready(2e-5, True)])
    assert turn == Turn(200, 10)
    assert lockstep._turn([Ready(0.008, True), Ready(0.008, True)]) == Turn(2, 1)
    assert lockstep._turn([Ready(3.0, True), Ready(3.0, True)]) == Turn(1, 1)
    assert lockstep._turn([Ready(1e-5, False), Ready(2e-5, True)]) == Turn(1, 1)
    assert lockstep._turn([Ready(0.0, True), Ready(0.0, True)]).n_calls > 1


def test_enough_turns():
    now = time.monotonic()
    limits = Limits(seconds=100.0, least=4, most=10, end=now + 1000)
    assert not limits.enough(8, now)
    assert limits.enough(10, now)
    assert limits.enough(4, now - 101)
    assert not limits.enough(2, now - 101)
    assert Limits(seconds=100.0, least=4, most=10, end=now).enough(4, now)
