"""A server's Prometheus metrics."""

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
_LEVELS = {"pages", "peak_pages"}  # those of the engine's counters that can decrease


class Metrics:
    """The metrics of one server, in their own registry.

    Args:
        scorer: its status is read when the metrics are.
        traffic: the server's.
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
        # Looking up a metric by its labels is slow, and there are few label values.
        self._requests = cache(requests.labels)
        self._seconds = cache(seconds.labels)
        self._rows = cache(rows.labels)
        self._rewards = cache(rewards.labels)

    def count_request(self, route: str, code: int, seconds: float) -> None:
        """Count a reply; code 499 means that the client had disconnected."""
        self._requests(route, code).inc()
        self._seconds(route).observe(seconds)

    def count_rows(self, route: str, rows: Sequence[ScoredRow]) -> None:
        """Count the rows of a reply by status."""
        for row in rows:
            self._rewards(row["status"]).inc()
        self._rows(route).observe(len(rows))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Collects the engine's state and totals when the metrics are read."""

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
