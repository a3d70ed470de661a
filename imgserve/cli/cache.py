"""``imgserve cache``: what the cache holds."""

import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn

from imgserve.adapters.cache import scan, trailer
from imgserve.cli import shared
from imgserve.core.days import DAY_S
from imgserve.disk.files import LocalDisk


@click.group("cache")
def command() -> None:
    """Look at the cache."""


@dataclass(slots=True)
class _Count:
    images: int = 0
    originals: int = 0
    original_bytes: int = 0
    variants: int = 0
    variant_bytes: int = 0
    damaged: int = 0
    oldest_s: float = float("inf")


@command.command("stats")
@shared.with_config
def stats(config_path: Path) -> None:
    """Count what is cached, for each tenant.

    Reads the files themselves, so it is exact and may run beside a serving node; it takes a while for many files.
    """
    configuration = shared.loaded(config_path).configuration
    counts = _count(configuration.server.data_dir)
    table = shared.table("tenant", "images", "originals", "variants", "on disk", "oldest", "damaged")
    for tenant, count in sorted(counts.items()):
        oldest = f"{(time.time() - count.oldest_s) / DAY_S:.1f} days" if count.oldest_s < float("inf") else "-"
        table.add_row(
            escape(tenant),
            str(count.images),
            f"{count.originals} ({shared.readable_size(count.original_bytes)})",
            f"{count.variants} ({shared.readable_size(count.variant_bytes)})",
            shared.readable_size(count.original_bytes + count.variant_bytes),
            oldest,
            str(count.damaged),
        )
    shared.results().print(table)
    total = sum(count.original_bytes + count.variant_bytes for count in counts.values())
    shared.say(f"{shared.readable_size(total)} of {shared.readable_size(configuration.cache.size_bytes)}")


def _count(data_dir: Path) -> dict[str, _Count]:
    disk = LocalDisk()
    counts: dict[str, _Count] = {}
    columns = (SpinnerColumn(), TextColumn("{task.completed} images"))
    with Progress(*columns, console=shared.progress(), transient=True) as progress:
        task = progress.add_task("", total=None)
        for folder in scan.folders(disk, str(data_dir)):
            count = counts.setdefault(folder.image.tenant, _Count())
            count.images += 1
            for name in folder.files:
                _add(count, disk, folder, name)
            progress.advance(task)
    return counts


def _add(count: _Count, disk: LocalDisk, folder: scan.Folder, name: str) -> None:
    try:
        entry = scan.entry(disk, folder, name)
    except (trailer.Torn, OSError):
        count.damaged += 1
        return
    if entry is None:
        return
    count.oldest_s = min(count.oldest_s, entry.created_s)
    if name.startswith("o-"):
        count.originals += 1
        count.original_bytes += entry.size_bytes
    else:
        count.variants += 1
        count.variant_bytes += entry.size_bytes
