"""The reward by inversion: the model writes what it believes the instruction was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from flipfast.backends import Inversion, InversionRequest
from flipfast.config import FlipConfig
from flipfast.engine.sampling import request_seed
from flipfast.scores import CUT
from flipfast.scoring.assembly import Parts
from flipfast.scoring.best_of import enter, pruning_rules
from flipfast.scoring.reading import OutputReader
from flipfast.scoring.running import RequestRunner, RunCounts
from flipfast.scoring.samples import Row, Sample
from flipfast.watchers.pruning import OutputRules, Race


class GenerationScorer:
    """Runs the inversions of rows and extracts the instruction from each.

    Args:
        parts: of the reward.
        config: its number of samples, seed, and cache size.
    """

    def __init__(self, parts: Parts, config: FlipConfig) -> None:
        self._parts = parts
        self._config = config
        self._reader = OutputReader(
            parts.inverter,
            parts.parser,
            think_open=parts.think_open,
            forced=config.json == "forced",
        )
        self._runner = RequestRunner(
            parts.inverter, parts.sampling, parts.scorer, config.cache_rewards
        )

    def row(self, instruction: str, response: str, context: str | None) -> Row:
        """Render a row."""
        return Row(instruction, self._parts.renderer.render(response, context))

    def race(self, instruction: str) -> Race | None:
        """Make a race between rows with this instruction; None if no output can be ended early."""
        return None if self._rules is None else Race(instruction, self._rules)

    def score(
        self,
        rows: Sequence[Row],
        on_progress: Callable[[int], None],
        race: Race | None = None,
    ) -> RunCounts:
        """Run the samples of every row that has a prompt.

        Args:
            rows: any.
            on_progress: called from time to time with the number of samples done so far.
            race: the race that the rows take part in, in their order; or None.
        """
        runnable = [row for row in rows if row.prompt is not None]
        n_samples = self._config.samples
        drafts = self._drafts({row.instruction for row in runnable})
        requests = [
            request for row in runnable for request in self._requests(row, drafts[row.instruction])
        ]
        instructions = [row.instruction for row in runnable for _ in range(n_samples)]
        if race is not None:
            requests = enter(race, requests)
        results = self._runner.run(requests, instructions, on_progress)
        found = iter(zip(results.inversions, results.scores, strict=True))
        for row in runnable:
            self._take(row, [self._reader.read(*next(found)) for _ in range(n_samples)])
        self._measure(runnable)
        return results

    def start(self, row: Row, on_end: Callable[[], None]) -> Callable[[], None]:
        """Start a row that has a prompt; the inverter's next steps produce its samples.

        Args:
            row: set once all its samples are done, right before `on_end` is called.
            on_end: called once the row has all its samples; see `Inverter.start` for the thread.

        Returns:
            A function that drops the row, if it has not ended.
        """

        def take(inversions: list[Inversion]) -> None:
            self._take(row, [self._reader.read(inversion) for inversion in inversions])
            self._measure([row])
            on_end()

        drafts = self._drafts({row.instruction})
        return self._runner.start(list(self._requests(row, drafts[row.instruction])), take)

    def _requests(self, row: Row, drafts: tuple[list[int], ...]) -> Iterator[InversionRequest]:
        assert row.prompt is not None
        ids = row.prompt.token_ids
        for k in range(self._config.samples):
            seed = request_seed(self._config.seed, k, ids)
            yield InversionRequest(ids, seed, drafts, self._parts.watch())

    def _take(self, row: Row, samples: list[Sample]) -> None:
        assert row.prompt is not None
        row.samples = samples
        if row.prompt.cut:
            for sample in samples:
                sample.status += CUT

    def _measure(self, rows: Sequence[Row]) -> None:
        """Set the samples' rewards if the metric is not word F1."""
        metric = self._parts.metric
        if metric is None:
            return
        pairs = [(s, row.instruction) for row in rows for s in row.samples if not s.failed]
        values = metric([sample.text for sample, _ in pairs], [text for _, text in pairs])
        for (sample, _), value in zip(pairs, values.tolist(), strict=True):
            sample.reward = value

    @cached_property
    def _rules(self) -> OutputRules | None:
        # With several samples only their mean counts, and the bound holds for unscaled word F1.
        changed = self._parts.metric is not None or self._config.copy_guard == "discount"
        if self._config.samples > 1 or changed:
            return None
        return pruning_rules(self._parts, self._reader, self._config.on_failure)

    def _drafts(self, instructions: set[str]) -> dict[str, tuple[list[int], ...]]:
        write = self._parts.drafts
        return {text: () if write is None else write(text) for text in instructions}
