"""Curves: their points have the declared names, and a wrong result stops the timing."""

from types import SimpleNamespace

import pytest

pytest.importorskip("triton")

from bench import bench_scaling
from bench.scripted import ScriptedModel
from bench.shapes import SHAPES, n_weights
from bench.sizes import FULL, QUICK, Prescribed, Scaling
from tests.engine.toy_models import SMALL, save_random_model


class Benchmark:
    """Stands in for the fixture, and counts the calls that it would time."""

    def __init__(self):
        self.extra_info, self.group, self.n_timed = {}, None, 0

    def pedantic(self, run, *, rounds, setup=lambda: ((), {})):
        for _ in range(rounds):
            args, kwargs = setup()
            self.n_timed += 1
            run(*args, **kwargs)


@pytest.fixture
def benchmark_():
    return Benchmark()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_random_model(tmp_path_factory.mktemp("model"), "Qwen3Config", **SMALL)
    loaded = ScriptedModel(folder, device="cpu", memory=2**26, max_seqs=3)
    yield loaded
    loaded.close()


SCALING = Scaling(
    rounds=2,
    shape="small",
    memory=2**26,
    requests=Prescribed(n=5, n_prompt=70, n_shared=40, n_out=4),
    batches=(1, 4),
    least_rows=3,
    lengths=(16, 64),
    tokens=64,
    models=(),
)
NAMES = {"names": ("rows", "rewards_per_s"), "series": "a series"}


def test_points_are_medians_with_the_declared_names(benchmark_):
    speeds = iter([1.0, 2.0, 30.0, 10.0, 50.0, 40.0, 20.0, 60.0])  # the first two are not timed

    def prepare(x):
        return lambda: {"rewards_per_s": next(speeds), "other": x}

    bench_scaling.sweep(benchmark_, [1, 4], prepare, rounds=3, **NAMES)
    assert benchmark_.extra_info == {
        "curve": [
            {"rows": 1, "rewards_per_s": 30.0, "other": 1},
            {"rows": 4, "rewards_per_s": 40.0, "other": 4},
        ],
        "x_name": "rows",
        "y_name": "rewards_per_s",
        "series": "a series",
    }
    assert benchmark_.group == "rewards_per_s against rows"


def test_a_wrong_result_at_the_last_size_stops_the_timing(benchmark_):
    def prepare(x):
        def run():
            assert x < 16
            return {"rewards_per_s": 1.0}

        return run

    with pytest.raises(AssertionError):
        bench_scaling.sweep(benchmark_, [1, 4, 16], prepare, rounds=1, **NAMES)
    assert (benchmark_.n_timed, benchmark_.extra_info) == (0, {})


@pytest.mark.parametrize("by", ["rows_a_call", "response_tokens"])
def test_a_wrong_output_stops_the_timing(by, benchmark_, model, monkeypatch):
    sizes = SimpleNamespace(scaling={"any": SCALING})
    calls, write = [], bench_scaling.write
    monkeypatch.setattr(
        bench_scaling, "write", lambda model, parts: (calls.append(parts), write(model, parts))[1]
    )
    bench_scaling.bench_prescribed(benchmark_, model, "any", sizes, by)
    info = benchmark_.extra_info
    assert [point[by] for point in info["curve"]] == ([1, 4] if by == "rows_a_call" else [16, 64])
    assert all(point["rewards_per_s"] > 0 and point["pages_mib"] > 0 for point in info["curve"])
    rows = [[len(part.prompts) for part in parts] for parts in calls[:2]]
    assert rows == ([[1, 1, 1], [4]] if by == "rows_a_call" else [[4], [1]])
    assert len(calls[1][0].prompts[0]) == (70 if by == "rows_a_call" else 104)
    fresh = Benchmark()
    monkeypatch.setattr(model, "_next", lambda chunk: [9])
    with pytest.raises(AssertionError):
        bench_scaling.bench_prescribed(fresh, model, "any", sizes, by)
    assert (fresh.n_timed, fresh.extra_info) == (0, {})


def reward(wrong_from):
    """A reward that gives long calls a wrong reward."""
    engine = SimpleNamespace(_loop=SimpleNamespace(drafting=None))
    inverter = SimpleNamespace(forget_prefixes=lambda: None, _model=SimpleNamespace(engine=engine))

    def score(instructions, responses):
        n = len(responses)
        return SimpleNamespace(rewards=[0.5 if n != wrong_from else 0.25] * n)

    return SimpleNamespace(score=score, inverter=inverter)


@pytest.mark.parametrize(("by", "xs"), [("rows_a_call", [1, 4]), ("threads", [1, 2, 3])])
def test_a_reward_that_depends_on_the_batch_stops_the_timing(by, xs, benchmark_, monkeypatch):
    threads, sizes = [], SimpleNamespace(scaling={"cpu": SCALING})
    monkeypatch.setattr(bench_scaling, "set_threads", threads.append)
    monkeypatch.setattr(bench_scaling.os, "sched_getaffinity", lambda _: {0, 1, 2})
    rows = [("a", str(i)) for i in range(20)]
    bench_scaling.bench_rows(benchmark_, reward(wrong_from=0), rows, sizes, by)
    assert [point[by] for point in benchmark_.extra_info["curve"]] == xs
    assert set(threads) >= set(xs) if by == "threads" else set(threads) == {threads[-1]}
    fresh = Benchmark()
    with pytest.raises(AssertionError):
        bench_scaling.bench_rows(fresh, reward(4 if by == "rows_a_call" else 3), rows, sizes, by)
    assert (fresh.n_timed, fresh.extra_info) == (0, {})


def test_shapes_are_there():
    for sizes in (FULL, QUICK):
        names = {name for scaling in sizes.scaling.values() for name in scaling.models}
        assert names - {"embedded"} <= SHAPES.keys()


@pytest.mark.parametrize(("name", "billions"), [("qwen3-0.6b", 0.596), ("llama-3.1-8b", 8.03)])
def test_weights_of_a_shape(name, billions):
    assert n_weights(name) / 1e9 == pytest.approx(billions, rel=1e-3)
