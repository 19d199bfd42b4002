"""What a server has done and is doing, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from flipfast.scores import ScoredRow
from flipfast.serving.limits import Traffic
from flipfast.serving.scorer import ServedScorer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_LEVELS = {"pages", "peak_pages"}  # of the engine's counters those that can fall


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
        scorer: asked for its state when the metrics are read.
        traffic: of the server.
    """

    def __init__(self, scorer: ServedScorer, traffic: Traffic) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(scorer, traffic))
        ProcessCollector(namespace="flipfast_server", registry=self._registry)
        registry = self._registry
        requests = Counter(
            "flipfast_requests", "Requests answered.", ("route", "code"), registry=registry
        )
        seconds = Histogram(
            "flipfast_request_seconds",
            "From a request's head to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        rows = Histogram(
            "flipfast_request_rows",
            "Rows of a request.",
            ("route",),
            buckets=_ROWS,
            registry=registry,
        )
        rewards = Counter("flipfast_rewards", "Rows answered.", ("status",), registry=registry)
        # There are few values of labels, and the way to a metric by them is long.
        self._requests = cache(requests.labels)
        self._seconds = cache(seconds.labels)
        self._rows = cache(rows.labels)
        self._rewards = cache(rewards.labels)

    def count_request(self, route: str, code: int, seconds: float) -> None:
        """Count an answer; code 499 stands for a client that had gone."""
        self._requests(route, code).inc()
        self._seconds(route).observe(seconds)

    def count_rows(self, route: str, rows: Sequence[ScoredRow]) -> None:
        """Count the rows of an answer by their statuses."""
        for row in rows:
            self._rewards(row["status"]).inc()
        self._rows(route).observe(len(rows))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """The engine's own state and totals, read only when somebody asks."""

    def __init__(self, scorer: ServedScorer, traffic: Traffic) -> None:
        self._scorer = scorer
        self._traffic = traffic

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        status = self._scorer.status()
        levels = {
            "flipfast_ready": ("Whether rows are taken.", status.state == "ready"),
            "flipfast_draining": ("Whether the server is stopping.", self._traffic.draining),
            "flipfast_rows_waiting": ("Rows that wait for the engine.", status.queued),
            "flipfast_rows_running": ("Rows in the engine.", status.running),
            "flipfast_requests_in_flight": ("Requests worked on.", self._traffic.in_flight),
            "flipfast_body_bytes": ("Of the requests in flight.", self._traffic.body_bytes),
        }
        for name, (meaning, level) in levels.items():
            yield GaugeMetricFamily(name, meaning, value=level)
        for name, total in status.counters.items():
            family = GaugeMetricFamily if name in _LEVELS else CounterMetricFamily
            yield family(f"flipfast_engine_{name}", f"The engine's {name}.", value=total)
