"""Peers: results before figures, and a reason for each that cannot run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.bench_gguf import ENGINES as GGUF_ENGINES
from bench.bench_peers import CPU_PEERS, GPU_PEERS, equal_rows
from bench.peers.base import Job, PeerUnavailable, shared_length, until_end
from bench.peers.interleaved import Interleaved
from bench.peers.process import OURS, PEERS, PeerProcess, Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
JOB = Job("nowhere", "cpu", 2, 8, 4, (), 1)

# Stands in for a package that a peer needs.
PACKAGE = """
import sys
raise {error}
"""

BENCHMARK = """
import pytest
from bench.bench_peers import measure
from bench.peers.interleaved import Interleaved
from bench.peers.process import Run


def bench_wrong(benchmark):
    ours, theirs = Run([[1, 2]], 1.0, 1, 2), Run([[1, 3]], 2.0, 1, 2)
    pair = Interleaved({"flipfast": lambda: ours}, lambda: theirs)
    measure(benchmark, "wrong", pair, "float32", 1)


def bench_equal(benchmark):
    ours, theirs = Run([[1, 2]], 1.0, 1, 2), Run([[1, 2]], 2.0, 1, 2)
    pair = Interleaved({"flipfast": lambda: ours}, lambda: theirs)
    measure(benchmark, "equal", pair, "float32", 1)


def bench_absent(benchmark):
    pytest.skip("absent: it is not installed")
"""


def run(outputs, seconds=1.0):
    return Run(outputs, seconds, 1, sum(map(len, outputs)))


def test_equal_outputs_are_counted():
    ours = [[1, 2, 3]] * 10
    assert equal_rows(ours, ours, "float32") == 1.0
    assert equal_rows(ours, [*ours[1:], [1, 2, 9]], "float32") == 0.9


def test_other_outputs_are_refused():
    ours = [[1, 2, 3]] * 10
    with pytest.raises(AssertionError, match=r"80% of the rows agree, 90% must.*row 0"):
        equal_rows(ours, [[1, 2, 4], [1, 2], *ours[2:]], "float32")
    with pytest.raises(AssertionError, match="9 outputs for 10 prompts"):
        equal_rows(ours, ours[1:], "float32")


def test_first_tokens_decide_in_bfloat16():
    assert equal_rows([[1, 2], [3, 4]], [[1, 9], [3, 9]], "bfloat16") == 1.0
    with pytest.raises(AssertionError, match="0% of the rows agree"):
        equal_rows([[1, 2], [3, 4]], [[2, 2], [2, 4]], "bfloat16")


def test_each_run_of_a_peer_is_compared_with_ours_before_and_after():
    ours, theirs = iter([1.0, 3.0, 5.0]), iter([4.0, 16.0])
    pair = Interleaved({OURS: lambda: run([[1]], next(ours))}, lambda: run([[1]], next(theirs)))
    for _ in range(2):
        pair.run_ours()
        pair.run_theirs()
    pair.run_ours()
    assert pair.speed(OURS) == (4.0 / 2.0 + 16.0 / 4.0) / 2


def test_several_of_ours_stand_around_a_run_as_in_a_mirror():
    order = []

    def one(name):
        return lambda: order.append(name) or run([[1]])

    pair = Interleaved({"a": one("a"), "b": one("b")}, one("peer"))
    pair.run_ours()
    pair.run_theirs()
    pair.run_ours()
    assert order == ["a", "b", "peer", "b", "a"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ModuleNotFoundError('no', name='inner')", "inner is not installed"),
        ("OSError('no such library')", "OSError: no such library"),
        ("SystemExit(3)", "died with exit code 3 before it could load"),
    ],
)
def test_a_peer_that_cannot_be_loaded_says_why(tmp_path, error, reason):
    (tmp_path / "ctranslate2.py").write_text(PACKAGE.format(error=error))
    with pytest.raises(PeerUnavailable, match=reason):
        PeerProcess("ctranslate2", JOB, paths=[str(tmp_path)])


def test_a_peer_that_takes_too_long_is_stopped(tmp_path):
    (tmp_path / "ctranslate2.py").write_text("import time\ntime.sleep(600)")
    with pytest.raises(PeerUnavailable, match="its time was over before it could load"):
        PeerProcess("ctranslate2", JOB, paths=[str(tmp_path)], limit_s=2.0)


def test_every_peer_is_a_class():
    for module, kind, _ in PEERS.values():
        text = (ROOT / f"bench/peers/{module}.py").read_text("utf-8")
        assert f"class {kind}:" in text, kind
    assert {OURS, *CPU_PEERS, *GPU_PEERS, *GGUF_ENGINES} == PEERS.keys()


def test_other_results_stop_the_timing_and_reasons_are_stored(tmp_path):
    stored = tmp_path / "stored.json"
    (tmp_path / "bench_planted.py").write_text(BENCHMARK)
    (tmp_path / "conftest.py").write_text("from bench.conftest import *\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."]
    command += [f"--confcutdir={tmp_path}", "-c", str(ROOT / "pyproject.toml")]
    command += [f"--benchmark-json={stored}", str(tmp_path / "bench_planted.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    content = json.loads(stored.read_text("utf-8"))
    assert [row["name"] for row in content["benchmarks"]] == ["bench_equal"]
    assert content["benchmarks"][0]["extra_info"]["speed_over_equal"] == 2.0
    assert content["skipped"] == [{"name": "bench_absent", "reason": "absent: it is not installed"}]


def test_ends_and_shared_beginnings():
    assert until_end([5, 6, 4, 7], (4,)) == [5, 6]
    assert until_end([5, 6], ()) == [5, 6]
    assert shared_length([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_length([[1, 2], [1, 2]]) == 1
    assert shared_length([[1], [2]]) == 0
