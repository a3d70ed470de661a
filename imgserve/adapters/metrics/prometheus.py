"""Metrics of all processes of the node, merged at each scrape.

Every process writes value files of its own (prometheus-client's multi-process mode), named by its place
on the node and not by its pid: a replacement goes on counting where its predecessor died.
"""

import contextlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from imgserve.core.events import Outcome

_LATENCY_BUCKETS_US: Final = tuple(digits * 10**zeros for zeros in range(2, 7) for digits in (1, 2.5, 5))
LATENCY_CELLS: Final = len(_LATENCY_BUCKETS_US) + 2
"""A cell for each bucket, one for what is above them all, one for the sum in microseconds."""
_RENDER_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

Source = Callable[[], int]
"""Where a tally comes from."""


def join(folder: Path, process: str) -> None:
    """Make this process write its values into ``folder`` under the name ``process``; once, before any metric."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]  # theirs


def wipe(folder: Path) -> None:
    """Start a node's counts anew: no value file of an earlier node is left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()


class Requests:
    """What a front counts of its requests: in plain integers as they come, published in bulk."""

    def __init__(self, add_to_cell: Callable[[int, int], None]) -> None:
        """``add_to_cell`` adds to one of this process's ``LATENCY_CELLS`` shared counters."""
        registry = CollectorRegistry()
        self._add_to_cell = add_to_cell
        self._counter = Counter(
            "imgserve_requests",
            "Requests answered, by cache outcome and status class.",
            ("outcome", "status"),
            registry=registry,
        )
        self._sent = Counter("imgserve_sent_bytes", "Bytes sent, heads included.", registry=registry)
        self._render = Histogram(
            "imgserve_render_seconds",
            "Time that a worker spent on one variant.",
            buckets=_RENDER_BUCKETS_S,
            registry=registry,
        )
        self._counts: dict[tuple[Outcome, int], int] = {}
        self._cells = [0] * LATENCY_CELLS
        self._sent_bytes = 0

    def observe(self, outcome: Outcome, status: int, duration_us: int, sent_bytes: int) -> None:
        """Count one answered request."""
        kind = (outcome, status // 100)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._cells[bisect_left(_LATENCY_BUCKETS_US, duration_us)] += 1
        self._cells[-1] += duration_us
        self._sent_bytes += sent_bytes

    def rendered(self, duration_us: int) -> None:
        """Count one variant made by a worker."""
        self._render.observe(duration_us / 1e6)

    def publish(self) -> None:
        """Show what was counted since the last call."""
        for (outcome, hundreds), count in self._counts.items():
            self._counter.labels(outcome.value, f"{hundreds}xx").inc(count)
        for number, amount in enumerate(self._cells):
            if amount:
                self._add_to_cell(number, amount)
        self._sent.inc(self._sent_bytes)
        self._counts = {}
        self._cells = [0] * LATENCY_CELLS
        self._sent_bytes = 0


class Tallies:
    """Plain integers that other parts keep, published in bulk: counters grow by what was added since."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters: list[tuple[Counter, Source, list[int]]] = []
        self._gauges: list[tuple[Gauge, Source]] = []

    def counter(self, name: str, documentation: str, source: Source) -> None:
        """Publish an integer that only grows."""
        self._counters.append((Counter(name, documentation, registry=self._registry), source, [0]))

    def gauge(self, name: str, documentation: str, source: Source) -> None:
        """Publish an integer that goes up and down; the node's value is the sum over its processes."""
        gauge = Gauge(name, documentation, registry=self._registry, multiprocess_mode="sum")
        self._gauges.append((gauge, source))

    def publish(self) -> None:
        """Bring the published values up to date."""
        for counter, source, last in self._counters:
            now = source()
            if now > last[0]:
                counter.inc(now - last[0])
                last[0] = now
        for gauge, source in self._gauges:
            gauge.set(source())


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What the supervisor and the fronts keep in memory that all processes share."""

    restarts: Callable[[], Mapping[str, int]]
    is_ready: Callable[[], bool]
    keeper_packets: Callable[[], Mapping[str, int]]  # by what became of them
    latency_cells: Callable[[], Sequence[int]]  # the sum over the fronts


class _NodeCollector(Collector):
    """Shared memory, read at each scrape."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        restarts = CounterMetricFamily("imgserve_restarts", "Processes replaced after they died.", labels=["role"])
        for role, count in self._view.restarts().items():
            restarts.add_metric([role], count)
        yield restarts
        packets = CounterMetricFamily("imgserve_keeper_packets", "Packets at the keeper.", labels=["outcome"])
        for outcome, count in self._view.keeper_packets().items():
            packets.add_metric([outcome], count)
        yield packets
        yield GaugeMetricFamily("imgserve_ready", "1 while the node may serve.", value=float(self._view.is_ready()))
        cells = self._view.latency_cells()
        bounds = [*(f"{bound / 1e6:g}" for bound in _LATENCY_BUCKETS_US), "+Inf"]
        buckets = list(zip(bounds, accumulate(cells[:-1]), strict=True))
        yield HistogramMetricFamily(
            "imgserve_request_seconds",
            "Time from a request's head to the end of its answer.",
            buckets=[(bound, float(count)) for bound, count in buckets],
            sum_value=cells[-1] / 1e6,
        )


class Scrape:
    """The text that Prometheus reads, for the whole node, from any of its processes."""

    def __init__(self, folder: Path, view: NodeView) -> None:
        self._folder = folder
        self._node = _NodeCollector(view)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format; where the value files are gone, what is in shared memory."""
        if self._folder.is_dir():
            with contextlib.suppress(FileNotFoundError):  # they vanish while they are read
                return self._text(has_files=True)
        return self._text(has_files=False)

    def _text(self, *, has_files: bool) -> bytes:
        registry = CollectorRegistry()
        if has_files:
            MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]  # theirs
        registry.register(self._node)
        return generate_latest(registry)
