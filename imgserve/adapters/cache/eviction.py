"""Taking files away: those past their age, the least recently used when room is short, and what nobody knows of.

The index says which; it may lack files whose notices were lost. ``reconcile`` finds those on the disk, so the
promise of age holds as long as it runs more often than files may be old.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

from imgserve.adapters.cache import journal, names, rules, scan, trailer
from imgserve.adapters.cache.index import Entry, Index, Total
from imgserve.adapters.cache.settings import Settings
from imgserve.core.days import DAY_S
from imgserve.core.originals import ImageRef
from imgserve.disk import sqlite
from imgserve.disk.files import Disk, LocalDisk
from imgserve.interfaces import Clock

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

RESCAN_AFTER_S: Final = 300
"""Where batches are lost again and again, the disk is scanned no more often than this."""

_ROWS: Final = 500


class Evictor:
    """The keeper's hand on the cache; ``async with`` it. One for a data folder.

    Order everywhere: first the file goes, then its row. A death in between leaves a row without a file, which the
    next sweep drops; and on a full disk it is the unlinking that makes room for the index to write.
    """

    def __init__(self, settings: Settings, *, clock: Clock, disk: Disk | None = None) -> None:
        self._data_dir = str(settings.data_dir.absolute())
        self._index_path = settings.data_dir / "index.db"
        self._size_max_bytes = settings.size_bytes
        self._max_age_s = settings.max_age_days * DAY_S
        self._clock = clock
        self._disk: Disk = LocalDisk() if disk is None else disk
        self._index: Index | None = None
        self._is_closing = False
        self._is_scanning = False
        self._batches_made_up_for = 0
        self._scanned_s = float("-inf")
        self.cache_bytes = 0
        self.cache_files = 0
        self.evicted_files = 0
        self.evicted_bytes = 0
        self.expired_files = 0
        self.expired_bytes = 0
        self.orphan_files = 0
        self.torn_files = 0
        self.found_files = 0
        self.index_rebuilds = 0
        self.lost_batches = 0

    async def __aenter__(self) -> Self:
        """Open the index; when it is missing or damaged, an empty one: ``needs_scan`` says so."""
        self._index = await asyncio.to_thread(Index, self._index_path)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop a scan that is under way, and close the index."""
        self._is_closing = True
        if self._index is not None:
            await asyncio.to_thread(self._index.close)

    @property
    def needs_scan(self) -> bool:
        """Whether ``reconcile`` should run now rather than in its turn."""
        if self._opened().is_new:
            return True
        has_lost = self.lost_batches > self._batches_made_up_for
        return has_lost and self._clock.monotonic_s() >= self._scanned_s + RESCAN_AFTER_S

    async def apply(self, payload: bytes) -> None:
        """Take over a batch of the journal. One that cannot be read or written is counted: the next scan sees to it."""
        try:
            batch = journal.decode(payload)
            await asyncio.to_thread(self._on_index, Index.apply, batch)
        except ValueError:
            self.lost_batches += 1
            log.warning("cache_batch_unreadable", extra={"size_bytes": len(payload)})
        except sqlite3.Error as error:
            self.lost_batches += 1
            log.warning("cache_batch_lost", extra={"error": getattr(error, "sqlite_errorname", type(error).__name__)})

    async def sweep(self) -> None:
        """Remove what has expired, then the least recently used down to the size. Every few seconds.

        An index that knows nothing, since it was damaged, is filled first; one that missed batches is made up to date.
        """
        if self.needs_scan:
            await self.reconcile()
        await asyncio.to_thread(self._sweep)

    async def reconcile(self) -> None:
        """Make the index agree with the disk, and remove what should not be there. At start, and every few hours.

        Nothing when it is under way already.
        """
        if self._is_scanning:
            return
        self._is_scanning = True
        try:
            await asyncio.to_thread(self._reconcile)
        finally:
            self._is_scanning = False

    def removed(self, image: ImageRef, name: str) -> None:
        """Drop the row of a file that this very process removed; blocks for a moment."""
        self._on_index(Index.forget, [(image, name)])

    def removed_all(self, tenant: str) -> None:
        """The same for all of a tenant."""
        self._on_index(Index.apply, journal.Batch(at_s=int(self._clock.now_s()), emptied=(tenant,)))

    def _opened(self) -> Index:
        if self._index is None:
            raise RuntimeError("the index is not open")
        return self._index

    def _on_index(self, act: Callable[Concatenate[Index, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Act on the index; a damaged one is thrown away first, and knows nothing then."""
        index = self._opened()
        try:
            return act(index, *args, **kwargs)
        except sqlite3.DatabaseError as error:
            if not sqlite.is_damaged(error):
                raise
            log.warning("cache_index_damaged")
            index.reset()
            return act(index, *args, **kwargs)

    def _sweep(self) -> None:
        self._expire()
        self._evict()
        self._note_total()

    def _expire(self) -> None:
        now_s = int(self._clock.now_s())
        first_s = now_s - self._max_age_s + 1  # at exactly the maximum age a file has expired
        last_s = now_s + rules.AHEAD_MAX_S
        while entries := self._on_index(Index.outside, first_s, last_s, _ROWS):
            files, size_bytes = self._take_away(entries)
            self.expired_files += files
            self.expired_bytes += size_bytes
            if self._is_closing:
                return

    def _evict(self) -> None:
        total = self._note_total()
        need_bytes = rules.bytes_to_free(total.size_bytes, self._size_max_bytes, self._disk.room(self._data_dir))
        while need_bytes > 0 and not self._is_closing:
            candidates = self._on_index(Index.least_recently_used, _ROWS)
            chosen = rules.choose(candidates, need_bytes)
            if not chosen:
                return
            files, size_bytes = self._take_away(chosen)
            self.evicted_files += files
            self.evicted_bytes += size_bytes
            # Rows without a file count too: what they claimed is gone from the total.
            need_bytes -= sum(entry.size_bytes for entry in chosen)

    def _note_total(self) -> Total:
        total = self._on_index(Index.total)
        self.cache_files, self.cache_bytes = total.files, total.size_bytes
        return total

    def _take_away(self, entries: Iterable[Entry]) -> tuple[int, int]:
        """Unlink these files and drop their rows; how many there were, and what they took."""
        entries = tuple(entries)
        files = size_bytes = 0
        for entry in entries:
            folder = names.image_folder(self._data_dir, entry.image)
            try:
                found = self._disk.unlink(f"{folder}/{entry.name}")
                self._disk.remove_folder(folder)
            except OSError as error:
                # Its row goes too, so that a sweep ends; the next scan finds the file again.
                log.warning("cached_file_not_removed", extra={"errno": error.errno})
                continue
            if found is not None:
                files += 1
                size_bytes += entry.size_bytes
        self._on_index(Index.forget, [(entry.image, entry.name) for entry in entries])
        return files, size_bytes

    def _reconcile(self) -> None:
        index = self._opened()
        was_new, lost = index.is_new, self.lost_batches
        before_s = self._clock.now_s() - scan.LEFTOVER_AGE_S
        for path in scan.leftovers(self._disk, self._data_dir, before_s):
            self.orphan_files += self._disk.remove_tree(path)[0]
        for folder in scan.folders(self._disk, self._data_dir):
            if self._is_closing:
                return
            self._reconcile_folder(folder, before_s)
        self._drop_rows_without_file()
        if was_new:
            index.is_new = False
            self.index_rebuilds += 1
        self._batches_made_up_for = lost
        self._scanned_s = self._clock.monotonic_s()
        self._note_total()

    def _reconcile_folder(self, folder: scan.Folder, before_s: float) -> None:
        for name in folder.strangers:
            self._remove_stranger(f"{folder.path}/{name}", before_s)
        known = self._on_index(Index.names_of, folder.image)
        found = tuple(
            entry for name in sorted(folder.files - known) if (entry := self._read_entry(folder, name)) is not None
        )
        if found:
            self.found_files += len(found)
            self._on_index(Index.add, found)
        if not folder.files:
            self._disk.remove_folder(folder.path)

    def _remove_stranger(self, path: str, before_s: float) -> None:
        modified_s = self._disk.modified_s(path)
        if modified_s is not None and modified_s < before_s:
            with contextlib.suppress(OSError):
                self._disk.unlink(path)
                self.orphan_files += 1

    def _read_entry(self, folder: scan.Folder, name: str) -> Entry | None:
        try:
            return scan.entry(self._disk, folder, name)
        except trailer.Torn:
            self.torn_files += 1
            with contextlib.suppress(OSError):
                self._disk.unlink(f"{folder.path}/{name}")
        except OSError as error:
            log.warning("cached_file_unreadable", extra={"errno": error.errno})
        return None

    def _drop_rows_without_file(self) -> None:
        after = ("", "", "")
        folder: scan.Folder | None = None
        while entries := self._on_index(Index.page, after, _ROWS):
            gone = []
            for entry in entries:
                if folder is None or entry.image != folder.image:
                    folder = scan.read(self._disk, self._data_dir, entry.image)
                if entry.name not in folder.files:
                    gone.append((entry.image, entry.name))
            self._on_index(Index.forget, gone)
            last = entries[-1]
            after = (last.image.tenant, last.image.id, last.name)
