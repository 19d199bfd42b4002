"""Sequences that join in groups: simulated with a runner that only writes tokens."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from flipfast.engine.engine import Engine
from flipfast.engine.model_runner import StepResult
from flipfast.engine.prefix_cache import PrefixCache
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import StepPlan

N_SHARED, N_PROMPT = 160, 650
LONG = (500, 500)  # tokens of an output that does not end by itself here


class Simulation:
    """An engine without a model, and how many of its steps are of each kind.

    A "mixed" step runs prompts beside sequences that decode.
    """

    def __init__(
        self,
        *,
        max_seqs: int = 256,
        max_tokens: int = 8192,
        n_pages: int = 20_000,
        groups: bool = True,
    ) -> None:
        self.scheduler = Scheduler(
            PrefixCache(n_pages, 16), max_seqs=max_seqs, max_tokens=max_tokens, groups=groups
        )
        self.engine = Engine(self, self.scheduler, end_ids=frozenset(), overlap=True)  # type: ignore[arg-type]
        self.kinds: Counter[str] = Counter()

    def wait_for_caller(self) -> None:
        """There is no stream."""

    def run(self, plan: StepPlan) -> StepResult:
        reads, writes = bool(plan.prefilling), len(plan.prefilling) < len(plan.chunks)
        self.kinds["mixed" if reads and writes else "prefill" if reads else "decode"] += 1
        chunks = [chunk for chunk in plan.chunks if chunk.samples]
        return StepResult(chunks, torch.full((len(chunks),), 7), None)

    def add(self, n: int, n_out: tuple[int, int] = LONG, *, samples: int = 1) -> None:
        """Queue requests whose prompts share a start."""
        rng = random.Random(0)
        prompts = [
            [*range(N_SHARED), *[1000 + i] * (N_PROMPT - N_SHARED)]
            for i in range(n)
            for _ in range(samples)
        ]
        self.engine.start([Sequence(x, SamplingParams(rng.randint(*n_out))) for x in prompts])

    def fill(self) -> None:
        """Run steps until as many run as can."""
        n_running = -1
        while n_running < (n_running := len(self.scheduler.running)):
            self.engine.step()

    def end(self, n: int) -> None:
        """Let some running sequences end."""
        for sequence in self.scheduler.running[:n]:
            self.engine.cancel(sequence)

    def joined(self) -> int:
        """How many sequences join in the next step."""
        before = len(self.scheduler.waiting)
        self.engine.step()
        return before - len(self.scheduler.waiting)


@pytest.mark.slow
def test_most_steps_only_decode_and_their_number_hardly_grows() -> None:
    """2,048 requests of 40 to 100 tokens that come at once."""
    found = {}
    for groups in (False, True):
        simulation = Simulation(groups=groups)
        simulation.add(2048, (40, 100))
        while not simulation.scheduler.idle:
            simulation.engine.step()
        found[groups] = simulation.kinds
    assert found[False]["mixed"] > 2 / 3 * found[False].total()
    assert found[True]["mixed"] <= 1 / 3 * found[True].total()
    assert found[True].total() <= 1.01 * found[False].total()


@pytest.mark.parametrize(("max_seqs", "group"), [(512, 8), (256, 8), (64, 2), (32, 1), (4, 1)])
def test_a_group_joins_as_soon_as_there_is_room_for_it(max_seqs: int, group: int) -> None:
    simulation = Simulation(max_seqs=max_seqs, max_tokens=2**17)
    simulation.add(max_seqs + 30)
    simulation.fill()
    for _ in range(2):
        assert len(simulation.scheduler.running) == max_seqs
        simulation.end(group - 1)
        assert simulation.joined() == 0
        simulation.end(1)
        assert simulation.joined() == group


def test_a_group_that_waits_for_pages() -> None:
    """Rather than for places: 100 sequences fill the cache."""
    n_pages = 1 + N_SHARED // 16 + 100 * (-(-N_PROMPT // 16) - N_SHARED // 16) + 100
    simulation = Simulation(n_pages=n_pages, max_tokens=2**17)
    simulation.add(150)
    simulation.fill()
    assert len(simulation.scheduler.running) == 100
    simulation.end(2)
    assert simulation.joined() == 0
    simulation.end(1)
    assert simulation.joined() == 3


def test_nobody_waits_while_there_is_room() -> None:
    """Not where none has waited before, nor where prompts are too long for one step."""
    simulation = Simulation(max_tokens=4096)
    simulation.add(200)
    while simulation.scheduler.waiting:
        assert simulation.joined() > 0
    for _ in range(3):
        simulation.add(1)
        assert simulation.joined() == 1
    simulation.add(53)
    simulation.fill()
    assert len(simulation.scheduler.running) == 256
    simulation.end(2)
    simulation.add(1)
    assert simulation.joined() == 1


def test_whoever_comes_after_a_queue_that_was_called_off_does_not_wait() -> None:
    simulation = Simulation(max_tokens=2**17)
    simulation.add(257)
    simulation.fill()
    simulation.engine.cancel(simulation.scheduler.waiting[0])
    simulation.end(1)
    simulation.add(1)
    assert simulation.joined() == 1


def test_samples_follow_their_leader_at_once() -> None:
    """They read no prompt, so they are not held until others have ended."""
    simulation = Simulation(max_tokens=2**17)
    simulation.add(40, samples=8)
    simulation.fill()
    simulation.end(8)
    assert simulation.joined() == 1
    assert len(simulation.scheduler.running) == 249
    assert simulation.joined() == 7


def test_without_groups_each_takes_the_next_place() -> None:
    simulation = Simulation(max_tokens=2**17, groups=False)
    simulation.add(270)
    simulation.fill()
    simulation.end(1)
    assert simulation.joined() == 1
