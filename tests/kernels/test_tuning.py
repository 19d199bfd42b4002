"""Tuned configurations: which file and which entry serve, and how the best is found."""

import json
import logging
import re
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from operator import itemgetter

import pytest
import torch

pytest.importorskip("triton")

from bench.gpu.place import FULL
from flipfast.engine.step_shapes import lengths
from flipfast_kernels import attention_tiles, gemm, paged_attention, tuning
from flipfast_kernels.attention_tiles import AttentionConfig, attention_configs
from flipfast_kernels.fp8_rows import FP8
from flipfast_kernels.gemm import LinearConfig, linear_configs
from flipfast_kernels.problems import attention_problem, linear_problem
from flipfast_kernels.search import Problem, Workload, cuda_timer, measure, search

CUDA = torch.device("cuda", 0)
FEW = LinearConfig(64, 256, 64, 8, 4, 4)
MANY = LinearConfig(128, 256, 64, 8, 8, 3)


def entry(few=FEW, many=MANY, **bucket):
    bucket = {"n_out": 1024, "n_in": 2048, "dtype": "bfloat16"} | bucket
    return {"bucket": bucket, "few": asdict(few), "many": asdict(many)}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Folders of the user and of the package, on a device called "Test GPU"."""
    user, packaged = tmp_path / "user", tmp_path / "packaged"
    monkeypatch.setattr(tuning, "user_folder", lambda: user)
    monkeypatch.setattr(tuning, "PACKAGED", packaged)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    for module in (gemm, attention_tiles):
        monkeypatch.setattr(module, "device_facts", lambda device: (90, 132))
    forget()
    yield user / "test-gpu.json", packaged / "test-gpu.json"
    tuning.use(None)
    forget()


def forget():
    tuning.entries.cache_clear()
    gemm.configs_for.cache_clear()
    attention_tiles.configs_for.cache_clear()


def put(path, **kernels):
    tuning.write(path, "Test GPU", kernels, "2026-01-31")


def test_what_was_written_is_read(files):
    user, _ = files
    put(user, gemm=[entry()])
    content = json.loads(user.read_text())
    assert content["device"] == "Test GPU"
    assert content["date"] == "2026-01-31"
    assert tuning.read(user) == content["kernels"]
    assert gemm.configs_for(1024, 2048, torch.bfloat16, CUDA) == (FEW, MANY)
    assert list(user.parent.iterdir()) == [user]


def test_the_users_file_goes_before_the_packages(files):
    user, packaged = files
    put(packaged, gemm=[entry(), entry(n_in=8192)])
    assert gemm.configs_for(1024, 2048, torch.bfloat16, CUDA) == (FEW, MANY)
    forget()
    low = replace(FEW, num_stages=3)
    put(user, gemm=[entry(few=low)])
    assert gemm.configs_for(1024, 2048, torch.bfloat16, CUDA) == (low, MANY)
    assert gemm.configs_for(1024, 8192, torch.bfloat16, CUDA) == (FEW, MANY)  # nearer there


def test_a_chosen_file_stands_alone(files, tmp_path):
    user, _ = files
    put(user, gemm=[entry()])
    tuning.use(tmp_path / "none.json")
    usual = linear_configs(1024, 2048, torch.bfloat16, 90)
    assert gemm.configs_for(1024, 2048, torch.bfloat16, CUDA) == usual


@pytest.mark.parametrize(
    ("bucket", "expected"),
    [
        ({"n": 1024, "kind": "a"}, 0.0),
        ({"n": 4096, "kind": "a"}, 2.0),
        ({"n": 512, "kind": "a"}, 1.0),
        ({"n": 1024, "kind": "b"}, float("inf")),
        ({"n": 1024}, float("inf")),
        ({"n": "1024", "kind": "a"}, float("inf")),
    ],
)
def test_distances(bucket, expected):
    assert tuning.distance({"n": 1024, "kind": "a"}, bucket) == expected


def test_only_a_near_entry_of_the_same_dtype_serves(files):
    put(files[0], gemm=[entry()])
    assert gemm.configs_for(2048, 4096, torch.bfloat16, CUDA) == (FEW, MANY)
    for n_out, n_in, dtype in ((2048, 4097, torch.bfloat16), (1024, 2048, torch.float16)):
        usual = linear_configs(n_out, n_in, dtype, 90)
        assert gemm.configs_for(n_out, n_in, dtype, CUDA) == usual != (FEW, MANY)


def test_attention_takes_entries_of_its_own_block_alone(files):
    few, many = attention_configs(128, torch.bfloat16, 90)
    pair = replace(few, num_stages=3), replace(many, num_stages=3)
    found = {"few": asdict(pair[0]), "many": asdict(pair[1])}
    put(files[0], paged_attention=[{"bucket": {"block_d": 128, "dtype": "bfloat16"}} | found])
    assert attention_tiles.configs_for(128, torch.bfloat16, CUDA) == pair
    assert attention_tiles.configs_for(96, torch.bfloat16, CUDA) == pair
    usual = attention_configs(64, torch.bfloat16, 90)
    assert attention_tiles.configs_for(64, torch.bfloat16, CUDA) == usual


def test_off_cuda_nothing_is_tuned(files):
    put(files[0], gemm=[entry()])
    usual = linear_configs(1024, 2048, torch.bfloat16, 90)
    assert gemm.configs_for(1024, 2048, torch.bfloat16, torch.device("cpu")) == usual


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 0}, "its format is 0"),
        ({"triton": "1.0.0"}, "triton 1.0"),
        ({"kernels": {"gemm": [{"bucket": {}}]}}, r"fields \['bucket'\]"),
        ({"kernels": {"gemm": [entry(n_in=0)]}}, "has the bucket"),
        ({"kernels": {"gemm": [entry(n_in=1.5)]}}, "has the bucket"),
        ({"kernels": [1]}, "AttributeError"),
        (None, "JSONDecodeError"),
    ],
)
def test_a_file_that_cannot_serve_is_ignored_with_one_line(files, change, reason, caplog):
    user, _ = files
    put(user, gemm=[entry()])
    content = json.loads(user.read_text())
    user.write_text("{" if change is None else json.dumps(content | change))
    usual = linear_configs(1024, 2048, torch.bfloat16, 90)
    with caplog.at_level(logging.WARNING):
        assert gemm.configs_for(1024, 2048, torch.bfloat16, CUDA) == usual
        gemm.configs_for(2048, 2048, torch.bfloat16, CUDA)
    assert len(caplog.messages) == 1
    assert re.search(reason, caplog.messages[0])


@pytest.mark.parametrize(
    ("few", "many"),
    [
        (replace(FEW, block_k=128), MANY),
        (replace(FEW, block_m=48), MANY),
        (replace(FEW, num_stages=0), MANY),
        (FEW, replace(MANY, group_m=1.5)),
    ],
)
def test_pairs_that_would_give_two_kinds_of_bits_are_ignored(files, few, many, caplog):
    put(files[0], gemm=[entry(few, many)])
    usual = linear_configs(1024, 2048, torch.bfloat16, 90)
    assert gemm.configs_for(1024, 2048, torch.bfloat16, CUDA) == usual
    assert "the tuned entry of gemm" in caplog.text


def test_tiles_differ_only_where_their_instructions_do_not():
    low, tall = attention_configs(128, torch.bfloat16, 90)
    attention_tiles.check_attention_configs(low, tall, 90)
    gemm.check_linear_configs(FEW, MANY, 80)
    for capability in (80, 100):
        with pytest.raises(ValueError, match="differ in rows"):
            attention_tiles.check_attention_configs(low, tall, capability)
    gemm.check_linear_configs(replace(FEW, block_n=32), MANY, 90)
    for other in (MANY, replace(FEW, block_n=32)):
        with pytest.raises(ValueError, match="differ in tiles"):
            gemm.check_linear_configs(FEW, other, 100)
    with pytest.raises(ValueError, match="split"):
        attention_tiles.check_attention_configs(
            low, AttentionConfig(128, low.block_n, 512, 8, 5), 90
        )


@dataclass(frozen=True)
class Config:
    """Seconds that its calls take, and by how much their results are off."""

    seconds: float
    off: float = 0.0
    fails: bool = False


def toy(pairs, now=None):
    """Two workloads whose "time" stands in the configuration; `now` is moved by them."""

    def run(config):
        if config.fails:
            raise MemoryError("too much shared memory")
        toy.last = config
        if now is not None:
            now[0] += config.seconds
        return torch.tensor([1.0, 2.0 + config.off])

    expected = torch.tensor([1.0, 2.0]).double()
    works = [
        Workload(name, itemgetter(i), run, expected, 0.1) for i, name in enumerate(("few", "many"))
    ]
    return Problem("toy", {"n": 1}, pairs, lambda: works)


def timer(call):
    call()
    return toy.last.seconds


def test_the_best_pair_is_found_and_wrong_ones_are_refused():
    usual, faster, slower = Config(2.0), Config(1.0), Config(4.0)
    wrong, other_bits, failing = (
        Config(0.1, off=1.0),
        Config(0.1, off=1e-3),
        Config(0.1, fails=True),
    )
    nan = Config(0.1, off=float("nan"))
    pairs = [(usual, usual), (wrong, wrong), (usual, other_bits), (failing, usual)]
    pairs += [(nan, nan), (slower, faster), (faster, faster), (other_bits, other_bits)]
    result = measure(toy(pairs[:-1]), timer, until=float("inf"))
    assert result.pair == (faster, faster)
    assert result.n_measured == 3
    assert [why.split()[0] for why in result.refused.values()] == [
        "few", "few", "MemoryError:", "few",
    ]  # fmt: skip
    assert "other bits" in result.refused[usual, other_bits]
    assert "is off by 0.5" in result.refused[wrong, wrong]
    assert result.usual == {"few": 2e6, "many": 2e6}
    assert result.best == {"few": 1e6, "many": 1e6}
    # Results that are a little off, but alike in both, are as good as any.
    assert measure(toy(pairs), timer, until=float("inf")).pair == (other_bits, other_bits)


def test_what_stands_in_several_pairs_is_timed_once():
    a, b, c = Config(1.0), Config(2.0), Config(3.0)
    timed = []

    def counting(call):
        timed.append(timer(call))
        return timed[-1]

    result = measure(toy([(a, b), (a, c), (b, c)]), counting, until=float("inf"))
    assert result.pair == (a, b)
    assert timed == [1.0, 2.0, 3.0, 2.0]  # b is for many rows in one pair, for few in another


def test_a_usual_pair_that_is_wrong_is_an_error():
    with pytest.raises(RuntimeError, match="toy .* is off by 0.5"):
        measure(toy([(Config(1.0, off=1.0),) * 2]), timer, until=float("inf"))


def test_the_search_keeps_to_its_time():
    now = [0.0]
    pairs = [(Config(1.0 + i),) * 2 for i in range(50)]
    problems = [toy(pairs, now) for _ in range(3)]
    results = list(search(problems, timer, seconds=40.0, clock=lambda: now[0]))
    assert [len(results), results[0].n_measured < 5] == [3, True]
    late = list(search(problems, timer, seconds=3.0, clock=lambda: now[0]))
    assert len(late) == 1  # the usual pair of the first took all of it
    assert late[0].n_measured == 1


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_candidates_are_pairs_of_the_same_bits(dtype, capability, quick, device, monkeypatch):
    monkeypatch.setattr("flipfast_kernels.problems.device_facts", lambda _: (capability, 132))
    for problem, check in (
        (linear_problem(1024, 1024, dtype, device, quick=quick), gemm.check_linear_configs),
        (
            attention_problem(128, dtype, device, quick=quick),
            attention_tiles.check_attention_configs,
        ),
    ):
        assert len(set(problem.pairs)) == len(problem.pairs) > 1
        for few, many in problem.pairs:
            check(few, many, capability)
    for each in (dtype, FP8):
        problem = linear_problem(1024, 1024, each, device, quick=quick)
        assert problem.pairs[0] == linear_configs(1024, 1024, each, capability)
    assert {config.block_k for pair in problem.pairs for config in pair} == {128}


@pytest.mark.parametrize(("n_out", "waves"), [(1024, 1), (16384, 2)])
def test_a_product_is_timed_with_the_configuration_that_a_step_takes(n_out, waves, device):
    problem = linear_problem(n_out, 16, torch.bfloat16, device, rows=(64, 256))
    few, many = problem.pairs[0]
    works = problem.make()
    assert [work.name for work in works] == ["64 rows", "256 rows"]
    assert works[0].pick((few, many)) == few
    assert works[1].pick((few, many)) == (few if waves == 1 else many)


def test_the_sizes_of_full_steps_are_tuned(device):
    attention = attention_problem(16, torch.float32, device, n_heads=2, n_kv_heads=1)
    assert [work.name for work in attention.make()] == ["decode 256 x 700", "prefill 12 x 650"]
    names = [work.name for work in linear_problem(32, 16, torch.float32, device).make()]
    assert {"256 rows", "8192 rows"} <= set(names)


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_attention_is_timed_with_the_kernel_that_graphs_record(head_dim, capability):
    """Which depends on the length: decode steps are recorded for fewer lengths than there are."""
    recorded = lengths(40960)
    few, _ = attention_configs(head_dim, torch.bfloat16, capability)
    for n_seqs, length in ((256, 700), *FULL.decode):
        room = recorded[bisect_left(recorded, length)]
        modes = {paged_attention._mode(-(-n // few.split), n_seqs * 8, 132) for n in (length, room)}
        assert len(modes) == 1, (length, room)


def test_the_kernels_problems_can_be_measured(device):
    """In the interpreter with a made-up timer: the second pair of each is the faster one."""
    problems = [
        linear_problem(48, 32, torch.float32, device, rows=(1, 70)),
        linear_problem(48, 32, FP8, device, rows=(1, 70)),
        attention_problem(
            16, torch.float32, device, n_heads=2, n_kv_heads=1, decode=(2, 20), prefill=(1, 20)
        ),
    ]
    for problem in problems:
        short = replace(problem, pairs=problem.pairs[:2])
        n_timed = []

        def fake(call, n_timed=n_timed):
            n_timed.append(call)
            return 1.0 / len(n_timed)

        result = measure(short, fake, until=float("inf"))
        assert result.pair == problem.pairs[1]
        assert result.refused == {}
        assert result.entry()["bucket"] == problem.bucket
        assert len(n_timed) == 4


@pytest.mark.gpu
def test_a_device_can_be_measured(device):
    problem = linear_problem(1024, 1024, torch.bfloat16, device, quick=True)
    result = measure(replace(problem, pairs=problem.pairs[:3]), cuda_timer(device), until=1e30)
    assert 1 <= result.n_measured <= 3
    assert all(1 < value < 1e4 for value in result.best.values())
