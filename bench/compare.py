"""Did a change make anything slower? `make bench-compare`, or `python -m bench.compare`.

Machines drift, so that two processes of pytest, one with an older commit's packages and one with
the working tree's, check the same benchmarks and then time them in lock-step: old, new, new, old,
some 50 milliseconds a turn. What looks slower runs again in two fresh processes, as memory falls
differently in each. The exit code is 1 where it looks slower again, or a benchmark of the working
tree failed; 2 where nothing could be compared.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from pytest_benchmark.stats import Stats

ROOT = Path(__file__).resolve().parents[1]
STYLES = ("standalone", "direct", "likelihood")
COMPARED = (  # files, or pytest's ids
    *(f"bench/bench_text_core.py::bench_{x}" for x in ("words[core]", "f1[threads=1]")),
    *(f"bench/bench_reward.py::bench_rl_step[cpu-{x}]" for x in STYLES),
    *(f"bench/bench_host.py::bench_step[{x}]" for x in ("decode", "mixed")),
)
SECONDS, FEWEST, MOST = 20.0, 8, 80  # of a benchmark; rounds of old, new, new, old
SMALLEST, LOUD = 0.07, 0.1  # a change that is told; noise that hides what a user would notice
TURN_S, BATCH_S = 0.05, 0.0001  # the fastest batch counts: short ones find quiet moments


class Comparison(NamedTuple):
    """Seconds of a call; the new ones over the old; by what share that may be off; a verdict."""

    old_s: float
    new_s: float
    ratio: float
    noise: float
    verdict: str


def decide(rounds: Sequence[Sequence[tuple[float, float]]]) -> Comparison:
    """Compare by the clock on the wall, or by that of the cores where only this one can tell."""
    wall, cpu = (_decide([[x[i] for x in one] for one in rounds]) for i in (0, 1))
    return cpu if wall.verdict.startswith("too") and cpu.noise < wall.noise else wall


def _decide(rounds: Sequence[Sequence[float]]) -> Comparison:
    """Compare seconds of old, new, new, old, whose ratio owes nothing to a steady drift; the
    median's interval is that of the sign test, which asks of noise to be as likely up as down.
    """
    ratios = sorted(math.sqrt(b * c / (a * d)) for a, b, c, d in rounds)
    at = max(0, math.floor((len(ratios) - 2.5 * math.sqrt(len(ratios))) / 2))  # deviations
    low, ratio, high = ratios[at], median(ratios), ratios[-1 - at]
    noise = max(ratio / low, high / ratio) - 1
    slower, faster = low > 1 and ratio > 1 + SMALLEST, high < 1 and 1 / ratio > 1 + SMALLEST
    usual = "too noisy to tell" if noise > LOUD else "same"
    verdict = "SLOWER" if slower else "faster" if faster else usual
    times = (median(one[i] for one in rounds for i in side) for side in ((0, 3), (1, 2)))
    return Comparison(*times, ratio, noise, verdict)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare")
    parser.add_argument("benchmarks", nargs="*", default=COMPARED, help="files or pytest ids")
    parser.add_argument("--base", help="older commit; default: the last that differs")
    options = parser.parse_args(argv)
    base = options.base or ("HEAD" if git("status", "--porcelain") else "HEAD~1")
    with tempfile.TemporaryDirectory(prefix="flipfast-compare-") as folder:
        python = lay_out(base, Path(folder) / "old")
        found, problems = run(python, options.benchmarks)
        suspects = [name for name, one in found.items() if one.verdict == "SLOWER"]
        again, more = run(python, suspects)
        found, problems = {**found, **again}, {**problems, **more}
    print(f"{'old ms':>10} {'new ms':>10} {'ratio':>6} {'noise':>6}  verdict")
    for name, (old, new, ratio, noise, verdict) in found.items():
        print(f"{1e3 * old:10.4g} {1e3 * new:10.4g} {ratio:6.3f} {noise:6.1%}  {verdict}: {name}")
    print(*(f"{name}: {why}" for name, why in problems.items()), sep="\n")
    bad = any(one.verdict == "SLOWER" for one in found.values())
    bad |= any(why.startswith("failed") for why in problems.values())
    return 1 if bad else 0 if found else 2


def git(*arguments: str) -> str:
    """What a git command prints; SystemExit with its message where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)} has failed")
    return done.stdout.strip()


def lay_out(base: str, folder: Path) -> Path:
    """Lay a commit's packages out with the working tree's benchmarks; the Python that runs them."""
    git("archive", "-o", f"{folder}.tar", base)
    shutil.unpack_archive(f"{folder}.tar", folder, filter="data")
    modules = [Path(find_spec(f"flipfast.{name}").origin) for name in ("_core", "_cpu")]
    if git("diff", "--name-only", base, "--", "csrc", "CMakeLists.txt", "pyproject.toml"):
        print("building the older revision's C++ modules", flush=True)
        built = folder.with_name("built")
        install = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", f"--target={built}"]
        subprocess.run([sys.executable, "-m", *install, str(folder)], check=True)
        modules = [built / "flipfast" / module.name for module in modules]
    for module in modules:
        shutil.copy2(module, folder / "flipfast")
    for name in ("bench", "tests"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    # An environment with this one's packages behind the folder's own, and without their .pth
    # files: that of an editable install would lead back here.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder.with_name("env")])
    [site] = folder.with_name("env").glob("lib/python*/site-packages")
    inherited = [path for path in sys.path if path.endswith("-packages")]
    (site / "old.pth").write_text("\n".join([str(folder), f"{folder}/kernels", *inherited]))
    return folder.with_name("env") / "bin" / "python"


class Player:
    """A revision's process, which runs benchmarks; `last` is the last message from it."""

    def __init__(self, python: Path, folder: Path, names: Sequence[str]) -> None:
        self.last: tuple[Any, ...] = ()
        self.channel, theirs = Pipe()
        plugin = ["-p", "no:cacheprovider", "-p", "bench.compare", f"--turns={theirs.fileno()}"]
        command = [python, "-m", "pytest", "-q", "--quick", *plugin, *names]
        env = {"FLIPFAST_SHARED": str(ROOT.parent / "shared"), **os.environ}
        env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": ""}
        options = {"cwd": folder, "env": env, "pass_fds": [theirs.fileno()], "stdout": 2}
        with theirs:
            self.process = subprocess.Popen(command, **options)

    def ask(self, *orders: Any) -> str:
        """Give an order, if there is one, and wait for the answer; "end" where nobody is there."""
        try:
            for order in orders:
                self.channel.send(order)
            self.last = self.channel.recv()
        except (EOFError, OSError):
            self.last = ("end", False)
        return str(self.last[0])


def run(python: Path, names: Sequence[str]) -> tuple[dict[str, Comparison], dict[str, str]]:
    """Compare files or ids, the old ones with a Python of `lay_out`; comparisons and problems."""
    found, problems = {}, {}
    for file in dict.fromkeys(name.partition("::")[0] for name in names):
        asked = [name for name in names if name.partition("::")[0] == file]
        old = Player(python, python.parents[2] / "old", asked)
        new = Player(Path(sys.executable), ROOT, asked)
        while (rounds := play(old, new)) is not None:
            name, outcome, line = new.last[1:]
            if rounds and old.last[1:3] == new.last[1:3] == (name, "passed"):
                found[name] = decide(rounds)
            else:
                kind = "failed" if outcome == "failed" else "not compared"
                problems[name] = f"{kind}: {line or old.last[3] or 'it times nothing'}"
        for player, kind in ((old, "not compared: the older revision"), (new, "failed: pytest")):
            if player.last == ("end", False):
                problems[f"{file}, all or what was left"] = f"{kind} ended; see above"
            player.channel.close()
            player.process.wait()
    return found, problems


def play(old: Player, new: Player) -> list[list[float]] | None:
    """Time the next benchmark, if both sides get as far as that; None where there is no next."""
    rounds: list[list[float]] = []
    if old.ask() == new.ask() == "ready":
        end, call_s = time.monotonic() + SECONDS, max(1e-7, min(old.last[1], new.last[1]))
        n_calls = max(1, round(BATCH_S / call_s))
        order = (max(1, round(TURN_S / call_s / n_calls)), n_calls)
        while len(rounds) < FEWEST or (len(rounds) < MOST and time.monotonic() < end):
            turns = [(player.ask(order), player.last[1]) for player in (old, new, new, old)]
            if any(kind != "took" for kind, _ in turns):
                break
            rounds.append([seconds for _, seconds in turns])
    for player in (old, new):
        while player.last[0] in ("ready", "took"):
            player.ask(None)
    return None if "end" in (old.last[0], new.last[0]) else rounds


class Turns:
    """The processes' plugin, and their `benchmark`, which times a function when it is told to."""

    def __init__(self, channel: Connection) -> None:
        self._channel, self._outcome = channel, ("passed", "")

    @pytest.fixture
    def benchmark(self) -> Turns:
        self.group, self.extra_info, self.stats = "", {}, SimpleNamespace(stats=Stats())
        return self

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        return self.pedantic(target, args, kwargs)

    def pedantic(self, call: Any, args: Any = (), kwargs: Any = None, setup: Any = None, **_: Any):
        def turn(n_batches: int, n_calls: int) -> tuple[Any, Any]:
            given, walls, cpus = (setup and setup()) or (args, kwargs or {}), [], []
            gc.collect() if n_batches == 1 else None
            for _ in range(n_batches):
                cpu, wall = process_time(), perf_counter()
                for _ in range(n_calls):
                    result = call(*given[0], **given[1])
                walls.append((perf_counter() - wall) / n_calls)
                cpus.append((process_time() - cpu) / n_calls)
            self.stats.stats.update(min(walls))
            return (min(walls), min(cpus)), result

        (call_s, _), result = turn(1, 1)
        self._channel.send(("ready", max(call_s, TURN_S) if setup else turn(1, 1)[0][0]))
        while order := self._channel.recv():
            seconds, result = turn(*order)
            self._channel.send(("took", seconds))
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed and self._outcome[0] != "failed":
            self._outcome = (report.outcome, report.longreprtext.strip().split("\n")[-1])

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._channel.send(("done", nodeid, *self._outcome))
        self._outcome = ("passed", "")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._channel.send(("end", exitstatus in (0, 1)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--turns", type=int, required=True, metavar="FD", help="of a connection")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Turns(Connection(config.getoption("--turns"))))


if __name__ == "__main__":
    sys.exit(main())
