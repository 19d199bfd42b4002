"""`flipfast tune`: wrong use, what is asked for, what is written. Nothing is measured here."""

import json
from contextlib import nullcontext
from importlib import resources
from operator import itemgetter
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from flipfast.cli import main
from flipfast.cli import tune as module
from flipfast.errors import ConfigError
from flipfast_kernels import search, tuning
from flipfast_kernels.gemm import LinearConfig
from flipfast_kernels.search import Problem, Workload

EMBEDDED = Path(str(resources.files("flipfast") / "assets" / "tiny-inverter"))
SLOW, FAST = (LinearConfig(64, n, 64, 8, 4, 3) for n in (64, 128))


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A device that is made up, and one shape that is faster in its second configuration."""
    seconds = {SLOW: 2e-6, FAST: 1e-6}
    last = []

    def run(config):
        last[:] = [config]
        return torch.ones(1)

    def problems(shapes, dtype, device, quick):
        asked.append((shapes, dtype, quick))
        work = Workload("1 rows", itemgetter(0), run, torch.ones(1).double(), 0.1)
        bucket = {"n_out": shapes.weights[0][0], "n_in": shapes.weights[0][1], "dtype": "bfloat16"}
        return [Problem("gemm", bucket, [(SLOW, SLOW), (FAST, FAST)], lambda: [work])]

    def timer(device):
        def measured(call):
            call()
            return seconds[last[0]]

        return measured

    asked = []
    monkeypatch.setattr(module, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(module, "_problems", problems)
    monkeypatch.setattr(search, "cuda_timer", timer)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(tuning, "user_folder", lambda: tmp_path / "user")
    monkeypatch.setattr(tuning, "PACKAGED", tmp_path / "package")
    return asked


def entries(path):
    return json.loads(path.read_text())["kernels"]["gemm"]


def test_the_best_is_written_and_other_shapes_are_kept(gpu, tmp_path, capsys):
    path = tmp_path / "user" / "test-gpu.json"
    assert main(["tune", "--shapes", "4096x1024"]) == 0
    assert main(["tune", "--shapes", "1024x1024", "--quick"]) == 0
    assert main(["tune", "--shapes", "4096x1024"]) == 0
    found = entries(path)
    assert [entry["bucket"]["n_out"] for entry in found] == [1024, 4096]
    assert all(entry["few"]["block_n"] == 128 for entry in found)
    assert found[0]["microseconds"] == {"1 rows": 1.0}
    assert found[0]["microseconds_before"] == {"1 rows": 2.0}
    assert [quick for *_, quick in gpu] == [False, True, False]
    shown = capsys.readouterr().out
    assert "2 of 2 pairs measured" in shown
    assert "1 of 1 shapes measured" in shown


def test_where_the_file_goes(gpu, tmp_path):
    assert main(["tune", "--packaged"]) == 0
    assert main(["tune", "--out", str(tmp_path / "mine.json")]) == 0
    assert entries(tmp_path / "package" / "test-gpu.json") == entries(tmp_path / "mine.json")
    assert not (tmp_path / "user").exists()


def test_the_shapes_of_a_model(gpu, tmp_path):
    assert main(["tune", "--model", str(EMBEDDED)]) == 0
    [(shapes, dtype, _)] = gpu
    assert list(shapes.weights) == [(640, 320), (320, 384), (1792, 320), (320, 896)]
    assert shapes.heads[2] == 64
    assert dtype == "bfloat16"


@pytest.mark.parametrize(
    ("dtype", "kernels"), [("bfloat16", ["paged_attention", "gemm"]), ("fp8", ["gemm"])]
)
def test_what_is_measured(dtype, kernels):
    """8-bit floats only in products, and in entries of their own."""
    device, shapes = torch.device("cpu"), module.Shapes([(64, 32)], (2, 1, 16))
    problems = module._problems(shapes, dtype, device, quick=True)
    assert [problem.kernel for problem in problems] == kernels
    wanted = "float8_e4m3fn" if dtype == "fp8" else dtype
    assert {problem.bucket["dtype"] for problem in problems} == {wanted}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shapes", "4096"], "'4096' is no shape of a weight"),
        (["--shapes", "0x5"], "'0x5' is no shape"),
        (["--model", "x", "--shapes", "4x4"], "--model x and --shapes 4x4"),
        (["--out", "x", "--packaged"], "--out x and --packaged"),
        (["--device", "cpu"], "measures on a CUDA device, not on cpu"),
    ],
)
def test_wrong_use(options, message, capsys):
    assert main(["tune", *options]) == 2
    assert message in capsys.readouterr().err


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="nothing to tune"):
        module.tune()
