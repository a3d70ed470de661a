"""The keeper's hand on the cache: least recently used first, age whatever the use, an index that may be lost."""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from imgserve.adapters.cache import scan
from imgserve.adapters.cache.eviction import RESCAN_AFTER_S, Evictor
from imgserve.adapters.cache.index import Index
from imgserve.adapters.cache.journal import Batch, Journal
from imgserve.adapters.cache.settings import Settings
from imgserve.core.originals import ImageRef
from imgserve.disk import sqlite

NAMES = ["v-" + letter * 26 + ".webp" for letter in "abcdefghij"]
BODY = 1_500_000
DAY_S = 86_400


class Node:
    """A cache and its keeper, joined by a journal without a mailbox between."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.payloads: list[bytes] = []
        self.journal = Journal(self._send, bench)
        self.settings = Settings(data_dir=bench.data_dir, size_bytes=10_000_000)
        self.evictor = Evictor(self.settings, clock=bench)

    def _send(self, tag: bytes, payload: bytes) -> bool:
        assert b"C" == tag
        self.payloads.append(payload)
        return True

    async def put(self, name: str, body_bytes: int = BODY, image: ImageRef | None = None, **meta: object) -> None:
        image = image or self.bench.image()
        file = await self.bench.put(name, bytes(body_bytes), image=image, **meta)
        self.journal.stored(image, name, file.meta.body_bytes, file.meta.created_s)
        file.close()

    async def deliver(self) -> None:
        self.journal.flush()
        for payload in self.payloads:
            await self.evictor.apply(payload)
        self.payloads.clear()

    def present(self, image: ImageRef | None = None) -> list[str]:
        folder = self.bench.folder(image or self.bench.image())
        return sorted(os.listdir(folder)) if folder.exists() else []


def fill(folder: Path) -> None:
    """Leave no block of the file system free."""
    with (folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert 0 == os.statvfs(folder).f_bavail


@pytest.fixture
def node(bench: Any) -> Node:
    """A node on an ample disk, whose cache may hold 10 MB."""
    return Node(bench)


async def test_the_least_recently_used_go_first_and_only_as_many_as_needed(node: Node) -> None:
    """Ten files of 1.5 MB in 10 MB: four go, those that were used stay although they are older."""
    async with node.evictor:
        for name in NAMES:
            await node.put(name)
            await node.deliver()
            node.bench.at_s += 10
        for name in NAMES[:3]:
            node.journal.used(node.bench.image(), name)
        await node.deliver()
        await node.evictor.sweep()
        assert NAMES[:3] + NAMES[7:] == node.present()
        assert (4, 0) == (node.evictor.evicted_files, node.evictor.expired_files)
        assert node.evictor.cache_bytes < 9_500_000
        await node.evictor.sweep()
        assert 4 == node.evictor.evicted_files == 10 - node.evictor.cache_files
        assert node.evictor.evicted_bytes >= 4 * BODY


async def test_age_takes_a_file_however_often_it_is_used(node: Node) -> None:
    """To the second; the folder goes with its last file; from the future counts as expired."""
    ahead, image = node.bench.image("b"), node.bench.image()
    async with node.evictor:
        await node.put(NAMES[0], 10)
        await node.put(NAMES[1], 10, ahead, created_s=int(node.bench.at_s) + 30 * DAY_S + 301)
        node.bench.at_s += 30 * DAY_S - 1
        node.journal.used(image, NAMES[0])
        await node.deliver()
        await node.evictor.sweep()
        assert [NAMES[0]] == node.present()
        assert [] == node.present(ahead)
        node.bench.at_s += 1
        await node.evictor.sweep()
        assert not node.bench.folder(image).exists()
        assert (2, 0, 0) == (node.evictor.expired_files, node.evictor.cache_files, node.evictor.cache_bytes)


async def test_removals_of_fronts_reach_the_total(node: Node) -> None:
    """By file and by tenant; a row without a file does not keep a sweep busy."""
    async with node.evictor:
        for letter in "abc":
            await node.put(NAMES[0], 10_000, node.bench.image(letter))
        await node.put(NAMES[0], 10_000, node.bench.image("a", "other"))
        await node.deliver()
        await node.evictor.sweep()
        assert (4, 4 * 12_288) == (node.evictor.cache_files, node.evictor.cache_bytes)
        node.journal.removed(node.bench.image("a"), NAMES[0])
        node.journal.removed_all("other")
        await node.deliver()
        await node.evictor.sweep()
        assert (2, 2 * 12_288) == (node.evictor.cache_files, node.evictor.cache_bytes)


@pytest.mark.parametrize("damage", ["missing", "garbage"])
async def test_a_lost_index_is_rebuilt_from_the_files(node: Node, damage: str) -> None:
    """Sizes, ages and last uses come back, so eviction and age go on as before."""
    async with node.evictor:
        for name in NAMES[:4]:
            await node.put(name)
        await node.deliver()
    for path in node.bench.data_dir.glob("index.db*"):
        path.unlink()
    if damage == "garbage":
        (node.bench.data_dir / "index.db").write_bytes(b"no database" * 1000)
    evictor = Evictor(node.settings, clock=node.bench)
    async with evictor:
        needed_scan = evictor.needs_scan
        await evictor.sweep()
        assert (True, False) == (needed_scan, evictor.needs_scan)
        assert (4, 4, 1) == (evictor.cache_files, evictor.found_files, evictor.index_rebuilds)
        node.bench.at_s += 30 * DAY_S
        await evictor.sweep()
        assert 4 == evictor.expired_files


async def test_an_index_that_breaks_while_it_is_open_is_thrown_away_and_rebuilt(node: Node) -> None:
    """The batch in hand goes into the new one, the scan brings the rest."""
    index = node.bench.data_dir / "index.db"
    async with node.evictor as evictor:
        for name in NAMES[:4]:
            await node.put(name)
        await node.deliver()
        await evictor.reconcile()
        connection = evictor._opened()._connection
        assert sqlite.checkpoint_truncate(connection)
        with index.open("r+b") as file:
            file.write(b"x" * index.stat().st_size)
        connection.execute("PRAGMA shrink_memory")  # else SQLite would answer from its own pages
        await node.put(NAMES[4])
        await node.deliver()
        assert evictor.needs_scan
        await evictor.reconcile()
        assert (5, 2) == (evictor.cache_files, evictor.index_rebuilds)


async def test_a_scan_finds_what_the_journal_lost_and_drops_what_is_gone(node: Node) -> None:
    """Files without a row, rows without a file, torn files, strangers, leftovers of killed ones."""
    bench = node.bench
    async with node.evictor:
        for letter in "abcd":
            await node.put(NAMES[0], 10, bench.image(letter))
        node.payloads.clear()
        node.journal.flush()
        payload = node.payloads.pop()
        (bench.folder(bench.image("a")) / NAMES[0]).unlink()
        (bench.folder(bench.image("b")) / NAMES[0]).write_bytes(b"torn")
        await node.evictor.reconcile()
        assert (2, 1, 2) == (node.evictor.found_files, node.evictor.torn_files, node.evictor.cache_files)
        await node.evictor.apply(payload)
        await node.evictor.reconcile()
        assert 2 == node.evictor.cache_files
        assert not bench.folder(bench.image("b")).exists()

        stranger = bench.folder(bench.image("c")) / "stranger"
        dot = bench.folder(bench.image("c")) / ".0123456789abcdef"
        young = bench.folder(bench.image("c")) / ".young"
        aside = bench.data_dir / "tenants" / "acme" / ".0123-images"
        (aside / "ab").mkdir(parents=True)
        for path in (stranger, dot, young, aside / "ab" / "file"):
            path.write_bytes(b"x")
        old_s = bench.at_s - scan.LEFTOVER_AGE_S - 1
        for path in (stranger, dot, aside):
            os.utime(path, (old_s, old_s))
        os.utime(young, (bench.at_s, bench.at_s))
        await node.evictor.reconcile()
        assert [young.name, NAMES[0]] == node.present(bench.image("c"))
        assert not aside.exists()
        assert 3 == node.evictor.orphan_files


async def test_a_batch_that_cannot_be_read_is_counted_and_asks_for_a_scan(node: Node) -> None:
    """It would stay at the head of the mailbox for ever otherwise."""
    async with node.evictor:
        await node.evictor.reconcile()
        await node.evictor.apply(b"junk")
        assert 1 == node.evictor.lost_batches
        node.bench.at_s += RESCAN_AFTER_S
        needed_scan = node.evictor.needs_scan
        await node.evictor.reconcile()
        assert (True, False) == (needed_scan, node.evictor.needs_scan)


async def test_a_sweep_makes_up_for_lost_batches_but_scans_no_more_often_than_it_should(node: Node) -> None:
    """A file whose notice was lost is known after the next sweep, and a flood of bad batches costs no scans."""
    async with node.evictor as evictor:
        await evictor.sweep()
        await node.put(NAMES[0])
        node.journal.flush()
        node.payloads.clear()
        await evictor.apply(b"junk")
        await evictor.sweep()
        known_too_soon = evictor.found_files
        node.bench.at_s += RESCAN_AFTER_S
        await evictor.sweep()
        assert (0, 1) == (known_too_soon, evictor.found_files)


async def test_on_a_full_disk_the_evictor_makes_room(small_bench: Any) -> None:
    """A file system of 1 MB, filled for real: it shrinks the cache until a part is free."""
    node = Node(small_bench)
    async with node.evictor:
        for letter in "abcdefgh":
            await node.put(NAMES[0], 60_000, node.bench.image(letter))
            node.bench.at_s += 1
        await node.deliver()
        fill(small_bench.data_dir)
        await node.put(NAMES[1], 10, in_memory=True)
        await node.deliver()
        await node.evictor.sweep()
        facts = os.statvfs(small_bench.data_dir)
        assert facts.f_bavail * facts.f_frsize >= 50_000
        assert node.evictor.evicted_files >= 1
        assert [] == node.present(node.bench.image("a"))
        assert [NAMES[0]] == node.present(node.bench.image("h"))


async def test_removals_of_the_keeper_itself_reach_the_total(node: Node) -> None:
    """It has no mailbox to itself: the evictor is told at once."""
    async with node.evictor:
        for letter in "ab":
            await node.put(NAMES[0], 10, node.bench.image(letter))
        await node.deliver()
        await node.evictor.reconcile()
        node.evictor.removed(node.bench.image("a"), NAMES[0])
        await node.evictor.sweep()
        assert 1 == node.evictor.cache_files
        node.evictor.removed_all("acme")
        await node.evictor.sweep()
        assert 0 == node.evictor.cache_files


async def test_a_scan_stops_when_the_keeper_ends(node: Node) -> None:
    """Leaving while it runs waits for the folder in hand only."""
    for letter in "abcdefghij":
        await node.put(NAMES[0], 10, node.bench.image(letter))
    async with node.evictor:
        await node.evictor.reconcile()
        node.evictor._is_closing = True
        found = node.evictor.found_files
        await node.put(NAMES[1], 10)
        await node.evictor.reconcile()
        assert found == node.evictor.found_files


def test_index_totals_are_exact_through_replacement(tmp_path: Path) -> None:
    """Storing again replaces the size; a late, older use does not turn the clock back."""
    index = Index(tmp_path / "index.db")
    place = ("acme", "a" * 16, NAMES[0])
    index.apply(Batch(at_s=10, stored=((*place, 1, 1),)))
    index.apply(Batch(at_s=20, stored=((*place, 9000, 2),), used=(place, ("acme", "b" * 16, NAMES[0]))))
    index.apply(Batch(at_s=5, used=(place,)))
    assert (1, 12_288) == (index.total().files, index.total().size_bytes)
    assert [(20, 2)] == [(entry.used_s, entry.created_s) for entry in index.least_recently_used(9)]
    index.close()
    index.close()
    with pytest.raises(sqlite3.ProgrammingError):
        index.total()
