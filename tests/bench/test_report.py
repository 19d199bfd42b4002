"""The report of a run made by hand: all its figures, on one page, whatever is in it."""

import json
import sys
from html.parser import HTMLParser

import pytest

pytest.importorskip("matplotlib")

from bench.report import __main__ as command
from bench.report import tables
from bench.report.page import load_sections, markdown_table, write_report
from bench.report.parts import number
from bench.results import FILE
from tests.bench.runs import CPU, HOSTILE, full_run, profile, row, run, stage

pytestmark = pytest.mark.slow

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """What a page consists of; asserts that its elements are nested."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return "\n".join(self.texts)

    @property
    def cells(self):
        """The texts of tables, lists of values taken apart."""
        return {part for text in self.texts for part in text.split(", ")}


def write(folder, content):
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def page(folder, content):
    html, _ = write_report(write(folder, content), folder)
    return Page(html.read_text())


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return page(tmp_path_factory.mktemp("full"), full_run())


def figures(value):
    """All numbers inside a value."""
    if isinstance(value, dict):
        return [n for inner in value.values() for n in figures(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in figures(inner)]
    return [value] if isinstance(value, (int, float)) else []


def test_the_page_has_all_figures(full):
    for one in full_run()["benchmarks"]:
        info = dict(one["extra_info"])
        stages = info.pop("stages", [])
        for value in figures(info):
            assert number(value) in full.cells, (one["name"], value)
        for each in stages:
            assert each["name"] in full.text
            assert f"{100 * each['share']:.1f} %" in full.text
            assert number(1e3 * each["seconds"]) in full.text
    assert "0.5125" in full.text  # the medians
    assert full.tags.count("svg") == 7  # ratios, two curves, latency, stages, a roofline a device


def test_one_file_without_external_references(full):
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(full.tags)
    for name, value in full.attributes:
        if name in ("href", "xlink:href", "src", "srcset", "action", "data"):
            assert value.startswith("#"), (name, value)
        assert not name.startswith("on"), name
        if name == "style":
            assert "url(http" not in value


def test_hostile_names_stay_text(full):
    assert f"peer[{HOSTILE}]" in full.text
    assert f"vLLM is not installed {HOSTILE}" in full.text


def test_plots_take_the_colour_of_the_page(full):
    colours = [value for name, value in full.attributes if name == "style" and "fill" in value]
    assert any("currentColor" in value for value in colours)
    dark = [value for value in colours if "fill: #000000" in value or "fill: black" in value]
    assert dark == []


def by_key(folder, content):
    path = write(folder, content)
    return {table.key: table for part in load_sections(path)[1] for table in part.tables}


def test_headline_has_rewards_of_flipfast_alone(tmp_path):
    table = by_key(tmp_path, full_run())["headline"]
    assert table.head == [
        *("workload", "model", "style", "benchmark", "device", "rewards/s", "tokens/s")
    ]
    assert table.rows == [
        ["rl-step", "embedded", "direct", "direct[rl-step]", CPU["device"], "43.21", ""],
        ["long", "qwen3-8b", "", "large", "Test GPU", "98.7", "65,432"],
    ]


def test_one_device_is_no_column(tmp_path):
    table = by_key(tmp_path, run(row("rewards", "x", "rl-step", rewards_per_s=1.0)))["headline"]
    assert table.head == ["workload", "model", "style", "benchmark", "rewards/s", "tokens/s"]
    assert table.rows == [["rl-step", "embedded", "", "x", "1", ""]]


def test_ratios_are_summed_up_by_group_and_peer(tmp_path):
    found = by_key(tmp_path, full_run())
    assert ["gemm", "cublas", "0.85", "0.75 to 0.95"] in found["ratios"].rows
    assert ["gemm", "gemm[2]", "cublas", "0.75"] in found["ratios-all"].rows


def test_the_largest_costs_and_what_would_remove_them(tmp_path):
    rows = by_key(tmp_path, full_run())["costs"].rows
    assert [cells[:4] for cells in rows[:3]] == [
        ["rl-step, embedded, cpu", "product 1792 x 320 (gate and up)", "41.0 %", "43.2 %"],
        ["rl-step, embedded, cpu", "attention", "31.0 %", "43.2 %"],
        ["rl-step, embedded, cpu", "step, rest", "17.0 %", ""],
    ]
    assert [cells[1] for cells in rows[3:]] == ["fused_argmax"]  # waiting is no cost of its own
    assert all(cells[4] for cells in rows)


def test_kernels_figures_that_lie_beside_a_run(tmp_path):
    kernels = [
        {"name": "bench_gemm[1]", "group": "gemm", "us": 77.5},
        {"name": "bench_rms_norm[1]", "group": "rms_norm", "us": 88.5},
    ]
    content = {"device": "Test GPU", "commit": "old", "parts": [], "kernels": kernels}
    (tmp_path / "kernels.json").write_text(json.dumps(content))
    found = page(tmp_path, full_run())
    assert "88.5" in found.text
    assert "77.5" not in found.text  # the run's own are newer


@pytest.mark.parametrize(
    "content",
    [
        run(row("text_core", "core", None, pairs_per_s=1.5)),
        run(),
        run(profile("rl-step", "cpu", stage("rest", 1.0))),
        run(row("x", "y", "z", curve=[], p50_ms=1.0)),
        run(row("x", "y", "z", curve=[{"x": None}], p50_ms=None, speed_over_a=None)),
    ],
    ids=["text core", "nothing", "a profile without work", "empty curve", "no values"],
)
def test_kinds_that_are_missing(content, tmp_path):
    found = page(tmp_path, content)
    assert found.tags.count("h2") >= 2
    assert "This run has no benchmark of whole rewards." in found.text


def test_a_quick_run_says_so(tmp_path):
    assert "no figure here stands for anything" in page(tmp_path, run(sizes="quick")).text


def test_markdown_cells_cannot_leave_their_table(tmp_path):
    for table in by_key(tmp_path, full_run()).values():
        lines = markdown_table(table).splitlines()
        assert len(lines) == 2 + len(table.rows)
        for line in lines:
            assert line.replace("\\|", "").count("|") == len(table.head) + 1
            assert "<" not in line


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
    monkeypatch.setattr(command, "device_folder", lambda: "some-device")
    (tmp_path / "raw.json").write_text(json.dumps(run(row("a", "x", None), sizes=sizes)))
    assert command.main([str(tmp_path / "raw.json"), "--store"]) == 0
    assert (tmp_path / f"bench/results/some-device{below}" / FILE).exists()


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
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
    return tables.main([str(readme), f"--results={readme.parent / 'results'}", *options])


def test_tables_are_filled_and_checked(readme, capsys):
    assert fill(readme, "--check") == 1
    assert "README.md: differs" in capsys.readouterr().out
    assert readme.read_text() == MARKED.format("")
    assert fill(readme) == 0
    text = readme.read_text()
    assert (
        "| rl-step | embedded | direct | direct\\[rl-step\\] | Test CPU, AVX512 | 43.21 |  |"
        in text
    )
    assert text.startswith("# Title\n<!-- bench:headline dev -->\n\n|")
    assert text.endswith(
        "\n\n<!-- /bench -->\nafter <!-- bench:ratios other -->\n<!-- /bench -->\n"
    )
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
    assert tables.main(["--check"]) == 0, capsys.readouterr().out
