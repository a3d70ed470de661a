"""How everything here is measured: in turns, warmed up, by medians, with CPU time beside wall time.

A benchmark compares variants of one thing. Each round runs every variant once, A B A B, so that what disturbs the
machine disturbs them all; the first round only warms up. A result is a JSON file, a bar chart beside it, and a table
on standard error. ``python -m benchmarks`` runs each benchmark in a process of its own.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

RESULTS: Final = Path(__file__).parent / "results"
ROUNDS: Final = 7
_ROUND_S: Final = 0.1
_GREYS: Final = ("#2b6cb0", "#a0aec0", "#d69e2e", "#718096")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of one variant: how much was done, in which time."""

    operations: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The medians of one variant in one case. ``spread`` is the widest deviation from the median of wall time."""

    case: str
    variant: str
    rounds: int
    wall_us: float
    cpu_us: float
    per_second: float
    spread: float


def compare(case: str, variants: Mapping[str, Callable[[], Sample]], *, rounds: int = ROUNDS) -> list[Row]:
    """Run the variants in turns, and take the median of each."""
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            sample = run()
            if number:
                samples[name].append(sample)
    return [_row(case, name, taken) for name, taken in samples.items()]


def calls(function: Callable[[], object]) -> Callable[[], Sample]:
    """A variant that is one call, repeated for about a tenth of a second."""
    count = 1
    while _timed(function, count).wall_s < _ROUND_S / 4:
        count *= 2
    return lambda: _timed(function, count * 4)


def report(name: str, rows: Sequence[Row], *, about: str) -> None:
    """Write the result, draw it, and show the table."""
    RESULTS.mkdir(exist_ok=True)
    result = {"name": name, "about": about, "machine": _machine(), "rows": [asdict(row) for row in rows]}
    _write(RESULTS / f"{name}.json", json.dumps(result, indent=2) + "\n")
    _write(RESULTS / f"{name}.svg", _chart(about, rows))
    table = Table(title=f"{name}: {about}", title_justify="left")
    for heading in ("case", "variant", "wall", "CPU", "per second", "CPU against the last", "spread"):
        table.add_column(heading, justify="left" if heading in {"case", "variant"} else "right")
    for row in rows:
        last = [other for other in rows if other.case == row.case][-1]
        table.add_row(
            row.case,
            row.variant,
            _duration(row.wall_us),
            _duration(row.cpu_us),
            f"{row.per_second:,.0f}",
            f"{last.cpu_us / row.cpu_us:.2f} x",
            f"{row.spread:.0%}",
        )
    Console(stderr=True, width=120).print(table)


def _timed(function: Callable[[], object], count: int) -> Sample:
    turns = range(count)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for _ in turns:
        function()
    return Sample(operations=count, wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s)


def _row(case: str, variant: str, samples: Sequence[Sample]) -> Row:
    walls = [sample.wall_s / sample.operations * 1e6 for sample in samples]
    median = statistics.median(walls)
    return Row(
        case=case,
        variant=variant,
        rounds=len(samples),
        wall_us=median,
        cpu_us=statistics.median(sample.cpu_s / sample.operations * 1e6 for sample in samples),
        per_second=1e6 / median,
        spread=max(abs(wall - median) for wall in walls) / median,
    )


def _machine() -> dict[str, object]:
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    }
    return {
        "cpu": ", ".join(sorted(models)) or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _write(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _duration(microseconds: float) -> str:
    if microseconds < 1:
        return f"{microseconds * 1e3:.0f} ns"
    return f"{microseconds:.2f} µs" if microseconds < 1e3 else f"{microseconds / 1e3:.2f} ms"


def _chart(about: str, rows: Sequence[Row]) -> str:
    """Bars of operations per second; each case has its own scale."""
    cases = list(dict.fromkeys(row.case for row in rows))
    lines, y = [], 34
    for case in cases:
        lines.append(f'<text x="8" y="{y}" font-weight="bold">{escape(case)}</text>')
        group = [row for row in rows if row.case == case]
        best = max(row.per_second for row in group)
        for row, colour in zip(group, _GREYS, strict=False):
            width = max(1, round(360 * row.per_second / best))
            lines += [
                f'<text x="8" y="{y + 20}">{escape(row.variant)}</text>',
                f'<rect x="150" y="{y + 8}" width="{width}" height="16" fill="{colour}"/>',
                f'<text x="{158 + width}" y="{y + 20}">{row.per_second:,.0f}/s</text>',
            ]
            y += 22
        y += 26
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y}" font-family="sans-serif" font-size="12">'
    return "\n".join((head, f'<text x="8" y="14">{escape(about)}</text>', *lines, "</svg>", ""))
