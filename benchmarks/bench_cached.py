"""Cached images over HTTP: imgserve, imgserve without its fast path, and nginx with proxy_cache.

All three answer with the same bytes and headers, over 32 connections that stay open, to a browser's headers. Each has
one core and one process that answers, a front or an nginx worker; beside it on that core runs all that the server
needs, so the keeper that writes imgserve's access log as well. nginx writes its log, buffered. wrk has another core.
*aiohttp alone* is the same node with ``cache.memory = "0MB"``: nothing is remembered, each hit is looked up on disk.
Without wrk there is nothing to measure; without nginx the other two are.
"""

import contextlib
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import bench_new, harness, servers

SIZES: Final = {"1.5 KB": 1_500, "24 KB": 24_000, "150 KB": 150_000}
CONNECTIONS: Final = 32
ROUNDS: Final = 5
ROUND_S: Final = 3
_WARM_UP_S: Final = 1
_FAST: Final = "imgserve"
_SLOW: Final = "aiohttp alone"
_NGINX: Final = "nginx"
_DROPPED: Final = "imgserve_log_rows_dropped_total"
_OWN_HEADERS: Final = frozenset({"content-type", "content-length", "date", "connection", "server", "cache-status"})
_SEARCH_STEPS: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRow(harness.Row):
    """A row, with the throughput against nginx by pairs of rounds (0 without nginx) and CPU time by process.

    ``others``: how much of the machine's cores other programs had in the worst round.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    body_bytes: int
    cpu_us_by_process: dict[str, float]
    log_rows_dropped: int
    others: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A cached image that all three serve."""

    target: str
    headers: dict[str, str]
    body: bytes


class Side:
    """One server in one case; keeps every sample, for ratios by pairs."""

    def __init__(self, server: servers.Node | servers.Nginx, target: str, core: int) -> None:
        self._server = server
        self._target = target
        self._core = core
        self._dropped_before = self._dropped()
        self.rates: list[float] = []
        self.cpu_us: defaultdict[str, list[float]] = defaultdict(list)
        self.others: list[float] = []

    def __call__(self) -> harness.Sample:
        """Take a sample; the first one is short, since it only warms up."""
        load = servers.wrk(
            self._server.port,
            self._target,
            pid=self._server.pid,
            seconds=ROUND_S if self.rates else _WARM_UP_S,
            connections=CONNECTIONS,
            core=self._core,
        )
        self.rates.append(load.sample.operations / load.sample.wall_s)
        self.others.append(load.others)
        for name, seconds in load.cpu_s.items():
            self.cpu_us[name].append(seconds / load.sample.operations * 1e6)
        return load.sample

    @property
    def log_rows_dropped(self) -> int:
        """Requests of this case that are in no log, as far as the server knows."""
        return self._dropped() - self._dropped_before

    def _dropped(self) -> int:
        return 0 if isinstance(self._server, servers.Nginx) else int(self._server.metric(_DROPPED))


def main() -> None:
    """Each size, in turns."""
    if servers.missing(["wrk"]):
        print("bench_cached needs wrk, which is not installed: apt-get install wrk", file=sys.stderr)
        return
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        originals = bench_new.originals(stack)
        with servers.on_core(cores[0]):
            fast = stack.enter_context(servers.Node(originals[0], processes=1, workers=1))
            slow = stack.enter_context(servers.Node(originals[0], processes=1, workers=1, memory="0MB"))
        original = originals[0] / originals[1][0]
        pictures = {name: _picture(fast, original.name, size) for name, size in SIZES.items()}
        nginx = _nginx(stack, pictures, cores[0])
        rows: list[CachedRow] = []
        for name, picture in pictures.items():
            _demand_same(slow.port, picture.target, picture)
            sides = {
                _FAST: Side(fast, picture.target, cores[-1]),
                _SLOW: Side(slow, picture.target, cores[-1]),
            }
            if nginx is not None:
                path = f"/{name.replace(' ', '')}"
                _demand_same(nginx.port, path, picture)
                sides[_NGINX] = Side(nginx, path, cores[-1])
            found = harness.compare(f"{name} ({len(picture.body):,} bytes)", sides, rounds=ROUNDS)
            rows += [
                _joined(row, side, sides.get(_NGINX), len(picture.body))
                for row, side in zip(found, sides.values(), strict=True)
            ]
    harness.report("cached", rows, about="cached images, one core for the server, one for wrk")
    _show(rows)


def _nginx(stack: contextlib.ExitStack, pictures: dict[str, Picture], core: int) -> servers.Nginx | None:
    if servers.missing(["nginx"]):
        print("nginx is not installed: imgserve is measured without it", file=sys.stderr)
        return None
    first = next(iter(pictures.values()))
    headers = {name: value for name, value in first.headers.items() if name.lower() not in _OWN_HEADERS}
    bodies = {name.replace(" ", ""): picture.body for name, picture in pictures.items()}
    with servers.on_core(core):
        return stack.enter_context(servers.Nginx(bodies, headers, first.headers["Content-Type"]))


def _picture(node: servers.Node, name: str, size_bytes: int) -> Picture:
    """The variant whose body comes nearest to that size: the width is searched by halving."""
    low, high = 16, 4096
    best: Picture | None = None
    for _ in range(_SEARCH_STEPS):
        width = (low + high) // 2
        target = f"/v7/_corpus_/{name}?w={width}"
        headers, body = servers.get(node.port, target)
        if best is None or abs(len(body) - size_bytes) < abs(len(best.body) - size_bytes):
            best = Picture(target=target, headers=dict(headers), body=body)
        low, high = (width, high) if len(body) < size_bytes else (low, width)
    assert best is not None
    return best


def _demand_same(port: int, target: str, picture: Picture) -> None:
    """Ask twice: the first brings it into the cache; raises RuntimeError when the body is another."""
    servers.get(port, target)
    headers, body = servers.get(port, target)
    if body != picture.body or "hit" not in f"{headers.get('Cache-Status')} {headers.get('X-Cache', '').lower()}":
        raise RuntimeError(f"{target} on {port}: another body, or no hit: {headers}")


def _joined(row: harness.Row, side: Side, nginx: Side | None, body_bytes: int) -> CachedRow:
    """The harness's row with ratios; the first sample was the warm-up."""
    ratios = [0.0]
    if nginx is not None:
        ratios = [own / other for own, other in zip(side.rates[1:], nginx.rates[1:], strict=True)]
    return CachedRow(
        **asdict(row),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        body_bytes=body_bytes,
        cpu_us_by_process={name: round(statistics.median(each[1:]), 2) for name, each in side.cpu_us.items()},
        log_rows_dropped=side.log_rows_dropped,
        others=max(side.others[1:]),
    )


def _show(rows: Sequence[CachedRow]) -> None:
    """What the harness's table does not say."""
    table = Table(title="throughput against nginx, and where CPU time went", title_justify="left")
    for heading in ("case", "variant", "ratio", "lowest, highest", "CPU µs per request", "log rows lost", "others"):
        table.add_column(heading, justify="left" if heading in {"case", "variant"} else "right")
    for row in rows:
        by_process = sorted(row.cpu_us_by_process.items(), key=lambda pair: -pair[1])
        table.add_row(
            row.case,
            row.variant,
            f"{row.ratio:.2f}",
            f"{row.ratio_low:.2f}, {row.ratio_high:.2f}",
            ", ".join(f"{name} {spent:.1f}" for name, spent in by_process if spent >= 0.05),
            f"{row.log_rows_dropped:,}",
            f"{row.others:.0%}",
        )
    Console(stderr=True, width=120).print(table)


if __name__ == "__main__":
    main()
