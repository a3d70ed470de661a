"""What several commands share: the --config option, and where results and progress go."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from imgserve import settings
from imgserve.settings import Loaded

_WIDTH_OF_PIPES: Final = 160

with_config: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="IMGSERVE_CONFIG",
    default=Path("imgserve.toml"),
    metavar="FILE",
    help="Configuration file.  [default: $IMGSERVE_CONFIG, else imgserve.toml]",
)


def loaded(config_path: Path) -> Loaded:
    """The configuration; its warnings go to standard error. Raises Misconfigured."""
    result = settings.load(config_path)
    for warning in result.warnings:
        say(f"warning: {warning}")
    return result


def say(line: str) -> None:
    """A line of progress, on standard error."""
    click.echo(line, err=True)


def results() -> Console:
    """Standard output for tables; a pipe is as wide as most tables need, and has no colours."""
    width = None if sys.stdout.isatty() else _WIDTH_OF_PIPES
    return Console(file=sys.stdout, width=width, highlight=False)


def progress() -> Console:
    """Standard error, for progress bars."""
    return Console(stderr=True)


def table(*columns: str) -> Table:
    """An empty table in the look of all commands; without names of columns it has no header."""
    made = Table(header_style="dim", box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def readable_size(size_bytes: float) -> str:
    """Bytes for people, in powers of ten: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 100 else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"
