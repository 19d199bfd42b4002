"""Curves: their points have the declared names, and a wrong result stops the timing."""

from types import SimpleNamespace

import pytest

pytest.importorskip("triton")

from bench import bench_purity, bench_scaling, bench_scaling_rows
from bench.curves import Curve
from bench.scripted import Script, ScriptedModel, script_of
from bench.shapes import SHAPES, n_weights
from bench.sizes import FULL, QUICK, Prescribed
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


REQUESTS = Prescribed(n=5, n_prompt=70, n_shared=40, n_out=4)
CURVE = Curve("rows", "rewards_per_s", "a series")


def test_points_are_medians_with_the_declared_names(benchmark_):
    speeds = iter([1.0, 2.0, 30.0, 10.0, 50.0, 40.0, 20.0, 60.0])  # the first two are not timed

    def prepare(x):
        return lambda: {"rewards_per_s": next(speeds), "other": x}

    CURVE.measure(benchmark_, [1, 4], prepare, rounds=3)
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


def test_a_point_without_its_figure_is_refused(benchmark_):
    with pytest.raises(ValueError, match="has no rewards_per_s"):
        CURVE.note(benchmark_, [{"rows": 1, "tokens_per_s": 2.0}])


def test_a_wrong_result_at_the_last_size_stops_the_timing(benchmark_):
    def prepare(x):
        def run():
            assert x < 16
            return {"rewards_per_s": 1.0}

        return run

    with pytest.raises(AssertionError):
        CURVE.measure(benchmark_, [1, 4, 16], prepare, rounds=1)
    assert (benchmark_.n_timed, benchmark_.extra_info) == (0, {})


@pytest.mark.parametrize(
    "bench",
    [
        bench_scaling.bench_batch,
        bench_scaling.bench_length,
        bench_scaling.bench_memory_of_batch,
        bench_scaling.bench_memory_of_length,
    ],
)
def test_a_wrong_output_stops_the_timing(bench, benchmark_, model, monkeypatch):
    scaling = SimpleNamespace(
        requests=REQUESTS,
        rounds=2,
        batches=(1, 4),
        least_rows=3,
        lengths=(16, 64),
        tokens=64,
        memory_batches=(1, 4),
    )
    bench(benchmark_, model, scaling, "small, cpu")
    info = benchmark_.extra_info
    assert all({info["x_name"], info["y_name"]} <= point.keys() for point in info["curve"])
    fresh = Benchmark()
    monkeypatch.setattr(model, "_next", lambda chunk: [9])
    with pytest.raises(AssertionError):
        bench(fresh, model, scaling, "small, cpu")
    assert (fresh.n_timed, fresh.extra_info) == (0, {})


def test_parts_of_a_script():
    script = Script([[1], [2], [3], [4]], [[5], [6], [7], [8]])
    found = bench_scaling.parts(script, 2, 3)
    assert found == [Script([[1], [2]], [[5], [6]]), Script([[3]], [[7]])]


def test_pages_are_counted(model, monkeypatch):
    """Three at a time, 74 tokens each, of which a page of 32 is shared."""
    assert model.page_size == 32
    assert bench_scaling.most_pages(REQUESTS, model) == 1 + 3 * 2
    figures = bench_scaling.hold(model, REQUESTS)
    assert figures["pages"] == 7
    assert figures["pages_mib"] == 7 * model.page_bytes / 2**20
    monkeypatch.setattr(bench_scaling, "most_pages", lambda *args: 6)
    with pytest.raises(AssertionError, match="7 pages were held where 6 are enough"):
        bench_scaling.hold(model, REQUESTS)


def reward(wrong_from):
    """A reward that gives long calls a wrong reward."""
    engine = SimpleNamespace(_drafting=None)
    inverter = SimpleNamespace(forget_prefixes=lambda: None, _model=SimpleNamespace(engine=engine))

    def score(instructions, responses):
        n = len(responses)
        return SimpleNamespace(rewards=[0.5 if n < wrong_from else 0.25] * n)

    return SimpleNamespace(score=score, inverter=inverter)


def rows_bench(bench, benchmark, wrong_from):
    rows = [("a", str(i)) for i in range(20)]
    scaling = SimpleNamespace(batches=(1, 4), least_rows=4, rounds=1)
    more = [[1]] if bench is bench_scaling_rows.bench_threads else []
    bench(benchmark, reward(wrong_from), rows, rows[:1], [0.5] * 20, scaling, *more)


@pytest.mark.parametrize(
    "bench", [bench_scaling_rows.bench_batch, bench_scaling_rows.bench_threads]
)
def test_a_reward_that_depends_on_the_batch_stops_the_timing(bench, benchmark_, monkeypatch):
    monkeypatch.setattr(bench_scaling_rows, "set_threads", lambda n: None)
    rows_bench(bench, benchmark_, wrong_from=5)
    assert benchmark_.extra_info["y_name"] == "rewards_per_s"
    fresh = Benchmark()
    with pytest.raises(AssertionError):
        rows_bench(bench, fresh, wrong_from=4)
    assert (fresh.n_timed, fresh.extra_info) == (0, {})


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6])])
def test_numbers_of_threads_and_devices(n, expected):
    assert bench_scaling_rows.up_to(n) == expected


def test_pairs_change_places_and_give_the_median_ratio(benchmark_):
    order, times = [], {True: iter([2.0, 4.0, 2.0]), False: iter([1.0, 4.0, 4.0])}

    def seconds(pure):
        order.append(pure)
        return next(times[pure])

    bench_purity.compare(benchmark_, seconds, n_rewards=8, n_pairs=3)
    assert order == [True, False, False, True, True, False]
    info = benchmark_.extra_info
    assert (info["ratio_least"], info["ratio"], info["ratio_most"]) == (0.5, 1.0, 2.0)
    assert (info["rewards_per_s"], info["fast_rewards_per_s"]) == (4.0, 2.0)


@pytest.mark.parametrize("phase", bench_purity.PHASES)
def test_a_wrong_output_stops_the_pairs(phase, benchmark_, model, monkeypatch):
    scaling = SimpleNamespace(requests=REQUESTS, pairs=2)
    models = {True: model, False: model}
    bench_purity.bench_phase(benchmark_, ("small", "cpu"), models, scaling, phase)
    assert benchmark_.extra_info["pairs"] == 2
    fresh = Benchmark()
    monkeypatch.setattr(model, "_next", lambda chunk: [9])
    with pytest.raises(AssertionError):
        bench_purity.bench_phase(fresh, ("small", "cpu"), models, scaling, phase)
    assert fresh.n_timed == 0


def test_decode_computes_one_token_of_each_prompt(model):
    asked = bench_purity.requests_of("decode", REQUESTS, model.page_size)
    script = script_of(asked, model)
    model.write(script)
    run = model.write(script, keep_prefixes=True)
    assert run.computed == asked.n * asked.n_out


@pytest.mark.parametrize("sizes", [FULL, QUICK])
def test_models_are_known(sizes):
    names = [name for scaling in sizes.scaling.values() for name in scaling.models]
    names += [name for scaling in sizes.scaling.values() for name in scaling.pure_models]
    assert set(names) - {"embedded"} <= SHAPES.keys()


@pytest.mark.parametrize(("name", "billions"), [("qwen3-0.6b", 0.596), ("llama-3.1-8b", 8.03)])
def test_weights_of_a_shape(name, billions):
    assert n_weights(name) / 1e9 == pytest.approx(billions, rel=1e-3)
