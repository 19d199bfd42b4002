"""The CPU kernels against float64 references, at every level of instructions that this CPU has."""

import os

import pytest
import torch
from torch.nn import functional

import flipfast._cpu as _cpu
from flipfast.engine.ops import cpu
from flipfast.engine.ops.base import RopeTable
from flipfast.engine.ops.cpu import CpuOps, best_weight_dtype, instruction_set
from flipfast.engine.ops.cpu_linear import CpuLinear
from flipfast.errors import ConfigError
from tests.engine.ops.products import numbers, run

F32, BF16 = torch.float32, torch.bfloat16
SHAPES = [(1, 1), (5, 3), (17, 33), (33, 31), (32, 64), (96, 300), (131, 257), (200, 1030)]
ROWS = [0, 1, 2, 3, 7, 13, 15, 29, 130]


@pytest.fixture
def ops():
    made = CpuOps(F32, threads=2)
    yield made
    _cpu.set_threads(torch.get_num_threads())


def product(weight, bias=None, storage=F32, compute=F32):
    linear = CpuLinear(*weight.shape, bias=bias is not None, storage=storage, compute=compute)
    linear.load_rows(weight, 0)
    if bias is not None:
        linear.load_bias(bias, 0)
    return linear


def assert_close(result, expected, x, weight, terms):
    """Within the rounding of a sum of `terms` float32 numbers of the operands' size."""
    size = x.double().abs() @ weight.double().abs().T + 1.0
    assert ((result.double() - expected).abs() <= size * terms * 2**-24 + 1e-30).all()


class TestProduct:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("storage", [F32, BF16], ids=str)
    def test_equals_the_float64_product(self, isa, ops, shape, storage):
        weight, bias = numbers(*shape).to(storage).float(), numbers(shape[0], seed=1)
        linear = product(weight, bias, storage)
        for n in ROWS:
            x = numbers(n, shape[1], seed=n)
            expected = x.double() @ weight.double().T + bias.double()
            assert_close(run(linear, x), expected, x, weight, shape[1] + 1)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_bfloat16_rounds_operands_and_sums_in_float32(self, isa, ops, shape):
        weight = numbers(*shape)
        linear = product(weight, None, BF16, BF16)
        x = numbers(45, shape[1], seed=2)
        rounded = x.bfloat16().float(), weight.bfloat16().float()
        expected = rounded[0].double() @ rounded[1].double().T
        assert_close(run(linear, x), expected, *rounded, shape[1] + 2)

    @pytest.mark.parametrize("compute", [F32, BF16], ids=str)
    def test_storage_of_bfloat16_numbers_does_not_matter(self, isa, ops, compute):
        weight = numbers(100, 333).bfloat16().float()
        x = numbers(40, 333, seed=1)
        if compute is BF16:
            x = x.bfloat16().float()
            if isa == "amx":
                pytest.skip("tiles sum pairs: other bits than the float32 product")
        plain = run(product(weight), x)
        assert torch.equal(run(product(weight, None, BF16, compute), x), plain)
        assert torch.equal(run(product(weight, None, BF16, compute), x[3:4]), plain[3:4])

    @pytest.mark.parametrize(("storage", "compute"), [(F32, F32), (BF16, F32), (BF16, BF16)])
    @pytest.mark.parametrize("shape", [(1, 1), (70, 33), (300, 1100)], ids=str)
    def test_a_row_has_the_same_bits_in_every_batch(self, isa, ops, shape, storage, compute):
        linear = product(numbers(*shape), numbers(shape[0]), storage, compute)
        x = numbers(130, shape[1], seed=3)
        alone = torch.cat([run(linear, x[i : i + 1]) for i in range(len(x))])
        for n in (2, 3, 4, 5, 8, 14, 15, 16, 17, 31, 33, 64, 100, 130):
            assert torch.equal(run(linear, x[:n]), alone[:n])
            assert torch.equal(run(linear, x[-n:]), alone[-n:])
        others = numbers(130, shape[1], seed=4) * 1e4
        others[77] = x[77]
        assert torch.equal(run(linear, others)[77], alone[77])
        assert torch.equal(run(linear, x.repeat(9, 1))[-130:], alone)

    @pytest.mark.parametrize("compute", [F32, BF16], ids=str)
    def test_threads_do_not_matter(self, isa, ops, compute):
        linear = product(numbers(500, 300), None, BF16 if compute is BF16 else F32, compute)
        x = numbers(60, 300)
        results = []
        for n in (1, 2, 3):
            _cpu.set_threads(n)
            assert _cpu.threads() == n
            results.append(run(linear, x))
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])

    def test_strides(self, isa, ops):
        weight, wide = numbers(40, 50), numbers(20, 90)
        linear = product(numbers(40, 100)[:, ::2])
        linear.load_rows(weight.T.contiguous().T, 0)
        out = torch.full((20, 64), float("nan"))
        linear(wide[:, 7:57], out[:, 3:43])
        assert torch.equal(out[:, 3:43], run(product(weight), wide[:, 7:57].contiguous()))
        assert out[:, :3].isnan().all()
        assert out[:, 43:].isnan().all()

    def test_rows_are_loaded_in_parts_and_over_again(self, isa, ops):
        weight, bias = numbers(100, 40), numbers(100)
        linear = product(numbers(100, 40, seed=1), numbers(100, seed=1))
        for first, last in ((0, 7), (7, 45), (45, 100)):
            linear.load_rows(weight[first:last], first)
            linear.load_bias(bias[first:last], first)
        x = numbers(9, 40, seed=2)
        assert torch.equal(run(linear, x), run(product(weight, bias), x))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, F32])
    def test_nothing_is_lost_by_loading_a_wider_dtype_later(self, ops, dtype):
        linear = ops.linear(64, 48, bias=False, source_dtype=BF16)
        first = numbers(32, 48).bfloat16()
        second = numbers(32, 48, seed=1).to(dtype)
        linear.load_rows(first, 0)
        small = linear.nbytes
        linear.load_rows(second, 32)
        assert linear.nbytes > small
        x = numbers(5, 48, seed=2)
        whole = torch.cat([first.float(), second.float()])
        assert torch.equal(run(linear, x), run(product(whole), x))

    def test_bfloat16_numbers_in_float32_stay_small(self, ops):
        linear = ops.linear(64, 64, bias=False, source_dtype=BF16)
        linear.load_rows(numbers(64, 64).bfloat16().float(), 0)
        assert linear.nbytes == 64 * 64 * 2

    def test_unloaded_weights_are_zero(self, isa, ops):
        linear = ops.linear(9, 8, bias=True, source_dtype=F32)
        assert torch.equal(run(linear, numbers(3, 8)), torch.zeros(3, 9))

    def test_wrong_arguments_are_named(self, ops):
        linear = product(numbers(8, 4))
        x, out = torch.zeros(2, 4), torch.zeros(2, 8)
        with pytest.raises(ValueError, match=r"\(2, 5\)"):
            linear(torch.zeros(2, 5), out)
        with pytest.raises(ValueError, match="float64"):
            linear(x.double(), out)
        with pytest.raises(ValueError, match="3 rows where 2"):
            linear(x, torch.zeros(3, 8))
        with pytest.raises(ValueError, match="stride 1, not 2"):
            linear(torch.zeros(2, 8)[:, ::2], out)
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            linear.load_rows(torch.zeros(2, 3), 0)
        with pytest.raises(IndexError, match="rows 7 and 1 more"):
            linear.load_rows(torch.zeros(2, 4), 7)
        with pytest.raises(ValueError, match="without a bias"):
            linear.load_bias(torch.zeros(8), 0)
        with pytest.raises(ValueError, match=r"\(0, 4\)"):
            CpuLinear(0, 4, bias=False, storage=F32, compute=F32)

    def test_a_forked_process_has_threads_of_its_own(self, ops):
        linear, x = product(numbers(400, 300)), numbers(64, 300)
        expected = run(linear, x)
        child = os.fork()
        if child == 0:
            same = torch.equal(run(linear, x), expected)
            tasks = "/proc/self/task"  # Linux lists a process's threads there
            alone = os.path.isdir(tasks) and len(os.listdir(tasks)) < 2
            os._exit(0 if same and not alone else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert torch.equal(run(linear, x), expected)


class TestRowOperations:
    @pytest.mark.parametrize("d", [1, 8, 15, 64, 100, 1024])
    @pytest.mark.parametrize("n", [0, 1, 5, 70])
    def test_rms_norm(self, isa, ops, n, d):
        x, weight = numbers(n, d + 3)[:, 2:-1], numbers(d, seed=1)
        out = torch.full((n, d), float("nan"))
        expected = functional.rms_norm(x.double(), (d,), weight.double(), 1e-6)
        assert ops.rms_norm(x, weight, 1e-6, out) is out
        torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-7)
        if n:
            single = ops.rms_norm(x[n - 1 :], weight, 1e-6, torch.empty(1, d))
            assert torch.equal(single[0], out[n - 1])

    @pytest.mark.parametrize("d", [7, 320])
    def test_add_rms_norm_in_place(self, isa, ops, d):
        x, residual, weight = numbers(40, d), numbers(40, d, seed=1), numbers(d, seed=2)
        total = x + residual
        expected = ops.rms_norm(total, weight, 1e-5, torch.empty(40, d))
        assert ops.add_rms_norm(x, residual, weight, 1e-5, x) is x
        assert torch.equal(residual, total)
        assert torch.equal(x, expected)

    def test_add(self, isa, ops):
        x, residual = numbers(33, 45), numbers(33, 45, seed=1)
        total = x + residual
        assert ops.add(x, residual) is residual
        assert torch.equal(residual, total)

    @pytest.mark.parametrize("heads", [1, 3])
    @pytest.mark.parametrize(("head_dim", "rotary"), [(16, 16), (64, 64), (80, 32), (128, 128)])
    @pytest.mark.parametrize("norm", [None, "head", "full"])
    def test_norm_rope(self, isa, ops, heads, head_dim, rotary, norm):
        n = 21
        base = numbers(n, 2 * heads * head_dim + 5)
        x = base[:, 5 : 5 + heads * head_dim].unflatten(1, (heads, head_dim))
        positions = torch.randint(0, 50, (n,), generator=torch.Generator().manual_seed(0))
        angles = numbers(50, rotary // 2, seed=1)
        rope = RopeTable(angles.cos(), angles.sin())
        weight = None if norm is None else numbers(head_dim * (heads if norm == "full" else 1))
        expected = x.double()
        if norm == "head":
            expected = functional.rms_norm(expected, (head_dim,), weight.double(), 1e-6)
        elif norm == "full":
            flat = expected.flatten(1)
            flat = functional.rms_norm(flat, flat.shape[1:], weight.double(), 1e-6)
            expected = flat.unflatten(1, (heads, head_dim))
        first, second, rest = expected.tensor_split((rotary // 2, rotary), dim=2)
        cos, sin = (table.double()[positions][:, None] for table in (rope.cos, rope.sin))
        rotated = first * cos - second * sin, second * cos + first * sin
        expected = torch.cat([*rotated, rest], dim=2)
        before = base.clone()
        ops.norm_rope(x, positions, rope, weight, 1e-6)
        torch.testing.assert_close(x.double(), expected, rtol=2e-6, atol=2e-6)
        base[:, 5 : 5 + heads * head_dim] = before[:, 5 : 5 + heads * head_dim]
        assert torch.equal(base, before)
        ops.norm_rope(x[4:5], positions[4:5], rope, weight, 1e-6)
        torch.testing.assert_close(x[4].double(), expected[4], rtol=2e-6, atol=2e-6)

    def test_no_rope_leaves_positions_out(self, ops):
        x = numbers(3, 2, 8)
        before = x.clone()
        ops.norm_rope(x, torch.full((3,), 10**9), None, None, 1e-6)
        assert torch.equal(x, before)

    @pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
    @pytest.mark.parametrize("d", [1, 16, 30, 896])
    def test_gated(self, isa, ops, activation, d):
        gate_up = numbers(50, 2 * d) * 8
        gate, up = gate_up.double().chunk(2, dim=1)
        act = functional.silu(gate) if activation == "silu" else None
        expected = (functional.gelu(gate, approximate="tanh") if act is None else act) * up
        out = torch.full((50, d), float("nan"))
        assert ops.gated(gate_up, activation, out) is out
        torch.testing.assert_close(out.double(), expected, rtol=3e-6, atol=1e-8)
        alone = ops.gated(gate_up[9:10], activation, torch.empty(1, d))
        assert torch.equal(alone[0], out[9])

    def test_gates_of_any_size(self, isa, ops):
        gate = torch.tensor([[-1e30, -200.0, -89.0, -0.0, 1e-30, 89.0, 200.0, 1e30]])
        out = ops.gated(torch.cat([gate, torch.ones(1, 8)], 1), "silu", torch.empty(1, 8))
        expected = functional.silu(gate.double())
        torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-30)
        gate = torch.full((1, 8), float("nan"))
        assert ops.gated(torch.cat([gate, gate], 1), "silu", out).isnan().all()

    @pytest.mark.parametrize("dtype", [F32, BF16])
    def test_embed(self, isa, ops, dtype):
        table = numbers(30, 40).to(dtype)[:, 3:-4]
        ids = torch.tensor([0, 29, 7, 7])
        out = torch.full((4, 33), float("nan"))
        assert ops.embed(ids, table, 0.5, out) is out
        assert torch.equal(out, table[ids].float() * 0.5)
        with pytest.raises(ValueError, match="30 is not within 0 to 29"):
            ops.embed(torch.tensor([30]), table, 1.0, out[:1])

    @pytest.mark.parametrize("n", [1, 5, 16, 33, 1000])
    def test_argmax_takes_the_first_maximum(self, isa, ops, n):
        logits = torch.randint(-3, 4, (60, n), generator=torch.Generator().manual_seed(n)).float()
        expected = [row.index(max(row)) for row in logits.tolist()]
        assert ops.argmax(logits).tolist() == expected

    def test_argmax_of_broken_rows(self, isa, ops):
        inf, nan = float("inf"), float("nan")
        logits = numbers(6, 37)
        logits[0, 36] = nan
        logits[1, 0] = inf
        logits[2] = -inf
        logits[3, 5:] = -inf
        logits[4] = nan
        result = ops.argmax(logits).tolist()
        assert result == [-1, -1, -1, int(logits[3].argmax()), -1, int(logits[5].argmax())]

    @pytest.mark.parametrize("n", [1, 2, 16, 33, 1023, 1025, 40000])
    @pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
    def test_log_prob(self, isa, ops, n, scale):
        logits = numbers(40, n, seed=n) * scale
        targets = torch.randint(0, n, (40,), generator=torch.Generator().manual_seed(n))
        best = ops.argmax(logits)
        targets[:9] = best[:9]
        found = ops.log_prob(logits, best, targets)
        expected = logits.double().log_softmax(1).gather(1, targets[:, None])[:, 0]
        # The best token's own term is left out of the sum, so that even e**-20 is precise.
        torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-12)
        alone = [
            ops.log_prob(logits[i : i + 1], best[i : i + 1], targets[i : i + 1]) for i in range(40)
        ]
        assert torch.equal(torch.cat(alone), found)

    def test_log_prob_of_broken_rows(self, isa, ops):
        inf, nan = float("inf"), float("nan")
        logits = numbers(4, 37)
        logits[0, 36] = nan
        logits[1, 0] = inf
        logits[2, 5:] = -inf
        logits[3, 5:] = -inf
        targets = torch.tensor([3, 3, 3, 9])
        found = ops.log_prob(logits, ops.argmax(logits), targets)
        assert found[:2].isnan().all()
        torch.testing.assert_close(
            found[2].double(), logits[2].double().log_softmax(0)[3], rtol=2e-6, atol=1e-12
        )
        assert found[3] == -inf
        with pytest.raises(ValueError, match="target 37 is not within 0 to 36"):
            ops.log_prob(logits, ops.argmax(logits), targets + 28)

    def test_wrong_arguments_are_named(self, ops):
        x, weight = torch.zeros(2, 8), torch.ones(8)
        with pytest.raises(ValueError, match=r"weight must be \(8,\)"):
            ops.rms_norm(x, weight.double(), 1e-6, x)
        with pytest.raises(ValueError, match="tanh"):
            ops.gated(x, "tanh", torch.zeros(2, 4))
        rope = RopeTable(torch.zeros(4, 4), torch.zeros(4, 4))
        heads = torch.zeros(1, 1, 8)
        with pytest.raises(ValueError, match="position 4 is not within 0 to 3"):
            ops.norm_rope(heads, torch.tensor([4]), rope, None, 1e-6)
        wide = RopeTable(torch.zeros(4, 5), torch.zeros(4, 5))
        with pytest.raises(ValueError, match="at most 4"):
            ops.norm_rope(heads, torch.tensor([1]), wide, None, 1e-6)


class TestChoices:
    def test_float16_is_refused_with_advice(self):
        with pytest.raises(ConfigError, match=r"float16: use float32"):
            CpuOps(torch.float16)

    def test_threads_below_one_are_refused(self):
        with pytest.raises(ConfigError, match="not 0"):
            CpuOps(F32, threads=0)

    def test_unknown_instructions_are_refused_with_the_choices(self):
        with pytest.raises(ValueError, match="no instruction set mmx .*generic"):
            _cpu.set_isa("mmx")

    def test_products_are_of_bfloat16_where_the_processor_has_them(self, isa):
        assert best_weight_dtype() is (BF16 if isa == "amx" else F32)

    def test_the_environment_may_ask_for_others_than_the_best(self, isa, monkeypatch):
        for asked in _cpu.isas():
            monkeypatch.setenv("FLIPFAST_CPU_ISA", asked)
            cpu.use_the_asked_for()
            assert instruction_set() == asked
        monkeypatch.delenv("FLIPFAST_CPU_ISA")
        cpu.use_the_asked_for()
        assert instruction_set() == asked
        monkeypatch.setenv("FLIPFAST_CPU_ISA", "mmx")
        with pytest.raises(ConfigError, match="FLIPFAST_CPU_ISA: no instruction set mmx"):
            cpu.use_the_asked_for()

    def test_the_chosen_instructions_are_named(self, isa):
        assert instruction_set() == isa

    def test_every_cpu_has_the_generic_level(self):
        assert _cpu.isas()[-1] == "generic"
