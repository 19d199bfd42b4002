"""The report of a run made by hand: its tables and pictures, whatever is in it."""

import json
import sys
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from bench.report import __main__ as command
from bench.report import tables as marked
from bench.report.page import markdown_table, number, points_of, roofs_of, tables, write_report
from bench.results import FILE

HOSTILE = '<script src="http://example.org/x.js">&"\'|`$'
CPU = {"device": "Test CPU, AVX512", "threads": 2, "commit": "abc123", "torch": "2.13.0"}
CUDA = {**CPU, "device": "Test GPU"}


def row(suite, name, group, **info):
    """A benchmark on the CPU; `info` goes over its conditions."""
    return {
        "fullname": f"bench/bench_{suite}.py::bench_{name}",
        "name": f"bench_{name}",
        "group": group,
        "extra_info": {**CPU, **info},
        "stats": {"min": 0.25, "median": 0.5125, "data": [0.25, 0.775]},
    }


def run(*rows, skipped=(), sizes="full"):
    return {
        "benchmarks": list(rows),
        "skipped": list(skipped),
        "version": "5.3.1",
        "machine_info": {"sizes": sizes},
    }


def full_run():
    """One benchmark at least of every kind of figure, one of them with a hostile name."""
    points = [{"batch": b, "rewards_per_s": 7.5 * b, "more": 1.0} for b in (1, 8, 64)]
    curve = {"curve": points, "x_name": "batch", "y_name": "rewards_per_s"}
    large = {"shape": "qwen3-8b", "rewards_per_s": 98.7, "tokens_per_s": 65432.1}
    roof = {"copy_gb_per_s": 12.25, "product_gflop_per_s": 345.5, "dtype": "float32"}
    hostile = {"flipfast_speedup": 45.25, "settings": {"a": HOSTILE}}
    stream = {"p50_ms": 12.5, "p90_ms": 34.5, "p99_ms": 56.75, "rate": 8.125}
    return run(
        row("text_core", "core[threads=1]", None, pairs_per_s=309876),
        row("rewards", "direct[rl-step]", "rl-step", style="direct", rewards_per_s=43.21),
        row("rewards", "large", "long, qwen3-8b", **CUDA, **large),
        row("peers", "generate", "rl-step", peer="transformers", rewards_per_s=12.34),
        row("kernels_gpu", "gemm[1]", "gemm", **CUDA, **roof, tflop_per_s=12.5, gb_per_s=3210.5),
        row("kernels_gpu", "gemm[2]", "gemm", **CUDA, speed_over_cublas=0.75, us=3.5),
        row("kernels_gpu", "gemm[3]", "gemm", **CUDA, speed_over_cublas=0.95, us=4.5),
        row("text_core", f"peer[{HOSTILE}]", HOSTILE, **hostile),
        row("cpu_ops", "product", "product", gflop_per_s=123.5, gb_per_s=1.5),
        row("scaling", "batch", "any", series="tiny", **curve),
        row("scaling", "batch_2", "any", series=HOSTILE, **curve),
        row("workloads", "stream[0.5]", "stream", **stream),
        row("host", "step[mixed]", "host", host_ms=2.125, median_host_ms=2.25),
        skipped=[{"name": "bench_vllm[1]", "reason": f"not installed {HOSTILE}"}] * 2,
    )


def write(folder, content):
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
def test_what_is_written(tmp_path):
    report, *pictures = write_report(write(tmp_path, full_run()), tmp_path)
    text = report.read_text()
    for figure in ("43.21", "65,432", "45.25", "0.75 to 0.95", "56.75", "2.125"):
        assert figure in text
    assert len(pictures) == 2  # a curve, a roofline
    assert all(name in pictures[0].read_text() for name in ("tiny", "script", "rewards/s"))
    for path in pictures:
        assert f"]({path.name})" in text
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    before = [path.read_bytes() for path in pictures]
    assert [path.read_bytes() for path in write_report(tmp_path / FILE, tmp_path)[1:]] == before


def test_headline_has_rewards_of_flipfast_alone():
    table = tables(full_run())["headline"]
    assert table.head == [
        *("workload", "model", "style", "benchmark", "device", "rewards/s", "tokens/s")
    ]
    assert table.rows == [
        ["rl-step", "embedded", "direct", "direct[rl-step]", CPU["device"], "43.21", ""],
        ["long", "qwen3-8b", "", "large", "Test GPU", "98.7", "65,432"],
    ]
    table = tables(run(row("rewards", "x", "rl-step", rewards_per_s=1.0)))["headline"]
    assert table.rows == [["rl-step", "embedded", "", "x", "1", ""]]


def test_figures_of_a_cuda_device():
    shape = {"shape": "qwen3-8b", "load": "wave", "rewards_per_s": 45.5, "tokens_per_s": 3e4}
    engine = {**CUDA, **shape, "steps": 1200, "mixed_steps": 7, "share_of_floor": 0.5}
    peers = {"cublas_us": 2.5, "speed_over_cublas": 0.625}
    kernel = {**CUDA, "us": 4.0, "share_of_copy": 0.75, "tflop_per_s": 400.5, **peers}
    found = tables(
        run(
            row("gpu", "a", "wave, qwen3-8b", **engine, deterministic=True),
            row("gpu", "b", "wave, qwen3-8b", **engine, deterministic=False),
            row("gpu", "product", "product", **kernel),
        )
    )
    rest = ["45.5", "30,000", "0.5", "7 of 1,200"]
    assert found["engine"].rows == [
        ["qwen3-8b", "wave", "batch-invariant", *rest],
        ["qwen3-8b", "wave", "fast", *rest],
    ]
    assert found["kernels"].rows == [["product", "4", "400.5", "0.75", "cublas 0.625"]]
    assert "headline" not in found


def test_ratios_conditions_and_what_did_not_run():
    found = tables(full_run())
    assert ["gemm", "cublas", "0.85", "0.75 to 0.95"] in found["ratios"].rows
    assert ["device", "Test CPU, AVX512 (9 benchmarks); Test GPU (4 benchmarks)"] in (
        found["conditions"].rows
    )
    assert found["did not run"].rows == [[f"not installed {HOSTILE}", "2"]]


def test_the_roofline():
    assert roofs_of(full_run()) == {"Test GPU": {"float32": (12.25e9, 345.5e9)}}
    [(intensity, flops_a_s)] = points_of(full_run(), "Test GPU")["gemm"]
    assert (intensity, flops_a_s) == pytest.approx((12500 / 3210.5, 12.5e12))


@pytest.mark.parametrize(
    "content",
    [
        run(row("text_core", "core", None, pairs_per_s=1.5)),
        run(),
        run(row("x", "y", "z", curve=[])),
    ],
    ids=["text core", "nothing", "empty curve"],
)
def test_kinds_that_are_missing(content, tmp_path):
    [report] = write_report(write(tmp_path, content), tmp_path)
    assert report.read_text().count("## ") == 1


def test_a_quick_run_says_so(tmp_path):
    [report] = write_report(write(tmp_path, run(sizes="quick")), tmp_path)
    assert "no figure here stands for anything" in report.read_text()


def test_cells_cannot_leave_their_table():
    for table in tables(full_run()).values():
        lines = markdown_table(table).splitlines()
        assert len(lines) == 2 + len(table.rows)
        for line in lines:
            assert line.replace("\\|", "").count("|") == len(table.head) + 1
            assert "<" not in line


def test_numbers_to_read():
    assert [*map(number, (1234567, 1234.5, 0.123456, None, "x"))] == [
        *("1,234,567", "1,234", "0.1235", "", "x")
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"benchmarks": 1}', "{"])
def test_no_run(text, tmp_path, capsys):
    (tmp_path / "x.json").write_text(text)
    assert command.main([str(tmp_path / "x.json"), "--page"]) == 2
    assert "x.json is no run of benchmarks" in capsys.readouterr().err


def test_a_run_is_stored_and_added_to(tmp_path):
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    first.write_text(json.dumps(run(row("a", "x", None, n=1), row("b", "y", None, n=2))))
    second.write_text(json.dumps(run(row("b", "y", None, n=3))))
    folder = tmp_path / "results"
    for path in (first, second):
        assert command.main([str(path), "--store", "--add", f"--out={folder}"]) == 0
    rows = json.loads((folder / FILE).read_text())["benchmarks"]
    assert [one["extra_info"]["n"] for one in rows] == [1, 3]
    assert "data" not in rows[0]["stats"]
    assert command.main([str(second), "--store", f"--out={folder}"]) == 0
    assert len(json.loads((folder / FILE).read_text())["benchmarks"]) == 1


@pytest.mark.parametrize(("sizes", "below"), [("full", ""), ("quick", "/quick")])
def test_a_quick_run_takes_no_other_runs_place(sizes, below, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "device_folder", lambda _: "some-device")
    (tmp_path / "raw.json").write_text(json.dumps(run(row("a", "x", None), sizes=sizes)))
    assert command.main([str(tmp_path / "raw.json"), "--store"]) == 0
    assert (tmp_path / f"bench/results/some-device{below}" / FILE).exists()


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    path = write(tmp_path, full_run())
    assert command.main([str(path), "--page"]) == 2
    assert "pip install 'flipfast[plot]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


MARKED = """# Title
<!-- bench:headline dev -->
{}<!-- /bench -->
after <!-- bench:ratios other -->
<!-- /bench -->
"""


@pytest.fixture
def readme(tmp_path):
    write(tmp_path / "results" / "dev", full_run())
    path = tmp_path / "README.md"
    path.write_text(MARKED.format(""))
    return path


def fill(readme, *options):
    return marked.main([str(readme), f"--results={readme.parent / 'results'}", *options])


def test_tables_are_filled_and_checked(readme, capsys):
    assert fill(readme, "--check") == 1
    assert "README.md: differs" in capsys.readouterr().out
    assert readme.read_text() == MARKED.format("")
    assert fill(readme) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n<!-- bench:headline dev -->\n\n|")
    assert "| Test CPU, AVX512 | 43.21 |  |" in text
    assert text.endswith("<!-- /bench -->\nafter <!-- bench:ratios other -->\n<!-- /bench -->\n")
    assert fill(readme, "--check") == 0
    readme.write_text(text.replace("43.21", "143.21"))
    assert fill(readme, "--check") == 1


def test_figures_without_a_stored_run_do_not_stay(readme):
    (readme.parent / "results" / "dev" / FILE).unlink()
    readme.write_text(MARKED.format("\n| 1 |\n\n"))
    assert fill(readme, "--check") == 1
    assert fill(readme) == 0
    assert readme.read_text() == MARKED.format("")


def test_a_table_that_a_run_has_not(readme, capsys):
    readme.write_text(MARKED.format("").replace("headline", "headlines"))
    with pytest.raises(SystemExit):
        fill(readme)
    assert "has no table 'headlines': it has conditions, headline" in capsys.readouterr().err


def test_readme_and_docs_agree_with_the_stored_runs(capsys):
    assert marked.main(["--check"]) == 0, capsys.readouterr().out
