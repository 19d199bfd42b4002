"""Curves: figures at several sizes, in the form that a report draws without knowing the topic.

A benchmark's `extra_info` has `curve`, its points; `x_name` and `y_name`, what of a point is drawn;
`series`, the line's name. Lines of the same `benchmark.group` share a picture, and the points that
benchmarks of the same series have there are one line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Figures = dict[str, float]
Run = Callable[[], Figures]


@dataclass(frozen=True)
class Curve:
    """What a curve shows.

    Attributes:
        x_name: that a point has its size under.
        y_name: that it has its main figure under.
        series: whose figures these are.
    """

    x_name: str
    y_name: str
    series: str

    @property
    def group(self) -> str:
        """Of the benchmarks whose curves share a picture."""
        return f"{self.y_name} against {self.x_name}"

    def measure(
        self, benchmark: Any, xs: Sequence[int], prepare: Callable[[int], Run], *, rounds: int
    ) -> None:
        """Time a sweep over all sizes, after one that is not timed; note medians of the figures.

        Args:
            benchmark: the fixture.
            xs: sizes, rising.
            prepare: for a size gives a run, which raises AssertionError where its results are
                wrong and else returns its figures. What `prepare` does itself is not timed.
            rounds: sweeps that are timed.
        """
        benchmark.group = self.group
        for x in xs:
            prepare(x)()
        sweeps: list[list[Figures]] = []
        benchmark.pedantic(
            lambda runs: sweeps.append([run() for run in runs]),
            setup=lambda: (([prepare(x) for x in xs],), {}),
            rounds=rounds,
        )
        found = [_medians(runs) for runs in zip(*sweeps, strict=True)]
        points = [{self.x_name: x, **point} for x, point in zip(xs, found, strict=True)]
        self.note(benchmark, points)

    def note(self, benchmark: Any, points: Sequence[Figures]) -> None:
        """Write points down with a benchmark, whose group has to be set before it is timed.

        Raises:
            ValueError: a point lacks x or y.
        """
        for point in points:
            lacking = {self.x_name, self.y_name} - point.keys()
            if lacking:
                raise ValueError(f"the point {point} has no {', '.join(sorted(lacking))}")
        benchmark.extra_info.update(
            curve=list(points), x_name=self.x_name, y_name=self.y_name, series=self.series
        )


def _medians(runs: Sequence[Figures]) -> Figures:
    return {name: median(run[name] for run in runs) for name in runs[0]}
