"""The cache of images on disk, as fronts use it.

What blocks where: ``open`` of a file of this boot is four system calls (open, fstat, pread, and close later) on what
the kernel has in memory nearly always; they take half of a hop to a thread, so they run in the event loop, and
so does making a draft. All that may wait for the file system's journal or reads whole bodies (publish, remove, the
first check of a file after a boot) runs in a thread, on descriptors of its own: when the caller is cancelled, the
thread still ends its work on them, and nothing is written into a number that was given to another file meanwhile.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from imgserve.adapters.cache import names, rules, trailer
from imgserve.adapters.cache.settings import Settings
from imgserve.core.days import DAY_S
from imgserve.core.errors import NoSpace, Overloaded, Superseded
from imgserve.core.originals import ImageRef
from imgserve.disk import descriptors
from imgserve.disk.files import Disk, LocalDisk
from imgserve.disk.slots import SlotMap
from imgserve.interfaces import CachedFile, Clock, Draft, FileMeta, Removed

log = logging.getLogger(__name__)

T = TypeVar("T")

MISSING_LIFE_S: Final = 60
"""How long an origin's 404 is remembered."""

_CHUNK_BYTES: Final = 1 << 20


class Removals(Protocol):
    """Who is told of removals: the journal."""

    def removed(self, image: ImageRef, name: str) -> None:
        """A file was unlinked."""

    def removed_all(self, tenant: str) -> None:
        """All files of the tenant were unlinked."""


class OpenFile:
    """An open cached file; implements ``interfaces.CachedFile``. Its descriptor is read-only, its offset its own."""

    __slots__ = ("_disk", "fd", "meta")

    def __init__(self, fd: int, meta: FileMeta, disk: Disk) -> None:
        self.fd = fd
        self.meta = meta
        self._disk = disk

    def close(self) -> None:
        """Close the descriptor; may be called again."""
        if self.fd >= 0:
            self._disk.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        # A result that a cancelled caller never took has nobody else to close it.
        self.close()


class UnnamedFile:
    """A file that nobody can see yet; implements ``interfaces.Draft``."""

    __slots__ = ("_disk", "fd", "is_stored")

    def __init__(self, fd: int, disk: Disk, *, is_stored: bool) -> None:
        self.fd = fd
        self.is_stored = is_stored
        self._disk = disk

    def close(self) -> None:
        """Give it up; may be called again, and after publishing."""
        if self.fd >= 0:
            self._disk.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        self.close()


class DiskCache:
    """Files of images under ``data_dir/tenants``. Implements ``interfaces.ImageCache``."""

    def __init__(
        self, settings: Settings, *, slots: SlotMap, clock: Clock, removals: Removals, disk: Disk | None = None
    ) -> None:
        self._data_dir = str(settings.data_dir.absolute())
        self._max_age_s = settings.max_age_days * DAY_S
        self._slots = slots
        self._clock = clock
        self._removals = removals
        self._disk: Disk = LocalDisk() if disk is None else disk
        self._boot = self._disk.boot()
        self.opened = 0
        self.expired = 0
        self.torn = 0
        self.failed_reads = 0
        self.verified = 0
        self.published = 0
        self.superseded = 0
        self.without_room = 0

    async def draft(self, tenant: str, *, in_memory: bool = False) -> Draft:
        """A new unnamed file in the tenant's folder; in memory when asked for, or when the disk has no room.

        Raises Overloaded when descriptors run out, as do all that open a file.
        The last part of a disk is left to the logs: without room for an invalidation's row no promise can be kept.
        """
        folder = names.images_folder(self._data_dir, tenant)
        if not in_memory:
            try:
                fd = self._disk.unnamed(folder)
            except NoSpace:
                self.without_room += 1
            else:
                if not rules.is_nearly_full(self._disk.room(folder)):
                    return UnnamedFile(fd, self._disk, is_stored=True)
                self._disk.close(fd)
                self.without_room += 1
        return UnnamedFile(self._disk.in_memory(), self._disk, is_stored=False)

    async def open(self, image: ImageRef, name: str) -> CachedFile | None:
        """The file if it is whole and younger than the maximum age. Liveness is the caller's question.

        Also absent: a remembered 404 after a minute, and a file with a stamp that this node never gave out (it came
        from another folder, and no invalidation here could reach it).
        """
        path = f"{names.image_folder(self._data_dir, image)}/{names.check_file(name)}"
        try:
            fd = self._disk.open_read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._unreadable(error)
            return None
        file = OpenFile(fd, _NOTHING, self._disk)
        try:
            found = trailer.read(self._disk, fd)
            if found.meta.stamp > self._slots.head():
                raise trailer.Torn("a stamp of another node")
            if self._has_expired(found.meta, image, name):
                file.close()
                return None
            if found.boot != self._boot:
                await _in_thread(lambda own: self._verify(own, found), self._disk.reopen(fd, writable=True), self._disk)
        except trailer.Torn as error:
            self._discard(image, name, error)
            file.close()
            return None
        except OSError as error:
            file.close()
            self._unreadable(error)
            return None
        except Overloaded:
            file.close()
            raise
        file.meta = found.meta
        self.opened += 1
        return file

    async def publish(self, draft: Draft, image: ImageRef, name: str, meta: FileMeta) -> CachedFile:
        """Write the trailer and show the file under its name, at once and whole.

        Raises Superseded when the image was invalidated since ``meta.stamp``. When the disk has no room left the file
        is returned without a name, and ``draft.is_stored`` becomes False.
        """
        folder = names.image_folder(self._data_dir, image)
        names.check_file(name)
        own = self._disk.reopen(draft.fd, writable=True)
        is_stored = draft.is_stored

        def act(fd: int) -> tuple[OpenFile, bool]:
            return self._publish(fd, folder, image, name, meta, is_stored=is_stored)

        try:
            file, draft.is_stored = await _in_thread(act, own, self._disk)
        except Superseded:
            self.superseded += 1
            raise
        if draft.is_stored:
            self.published += 1
        elif is_stored:
            self.without_room += 1
        return file

    async def count(self, image: ImageRef) -> int:
        """How many files of the image are stored: names of one small folder, read where we are."""
        found = self._disk.names(names.image_folder(self._data_dir, image))
        return sum(not name.startswith(".") for name in found)

    async def restamp(self, file: CachedFile, stamp: int) -> None:
        """Remember that this file was looked at and is alive as of ``stamp``, which was the head before the look."""
        try:
            own = self._disk.reopen(file.fd, writable=True)
            try:
                end = self._disk.size_bytes(own)
                # A file in memory, or one that found no room, has no trailer: its stamp lives in the record only.
                if end > file.meta.body_bytes:
                    self._disk.write(own, trailer.pack_word(stamp), end - trailer.STAMP_FROM_END)
            finally:
                self._disk.close(own)
        except (OSError, NoSpace, Overloaded) as error:
            # The old stamp stays: the next reader looks again.
            log.warning("restamp_failed", extra={"errno": getattr(error, "errno", None)})
        file.meta = trailer.stamped(file.meta, stamp)

    async def remove(self, image: ImageRef, plan_keys: frozenset[str] | None) -> Removed:
        """Unlink all files of the image, or only the variants of these plans. Call it after the slot was raised.

        When it returns, a power loss brings none back.
        """
        folder = names.image_folder(self._data_dir, image)
        files, size_bytes = await asyncio.to_thread(self._remove, image, folder, plan_keys)
        for name in files:
            self._removals.removed(image, name)
        return Removed(files=len(files), size_bytes=size_bytes)

    async def remove_all(self, tenant: str) -> Removed:
        """Unlink all images of the tenant. Call it after the slot was raised; then a power loss brings none back."""
        folder = names.images_folder(self._data_dir, tenant)
        removed = await asyncio.to_thread(self._remove_all, tenant, folder)
        self._removals.removed_all(tenant)
        return removed

    def share(self, file: CachedFile) -> CachedFile:
        """Another handle of the same file, for another receiver that will close it. Raises Overloaded."""
        return OpenFile(self._disk.reopen(file.fd), file.meta, self._disk)

    def _verify(self, fd: int, found: trailer.Trailer) -> None:
        """Read the whole body, once in each boot; raises Torn. A writable ``fd``: the boot is noted in the trailer."""
        if not trailer.is_whole(found, self._hash(fd, found.meta.body_bytes)):
            raise trailer.Torn("the checksum does not hold")
        end = self._disk.size_bytes(fd)
        with contextlib.suppress(NoSpace):
            self._disk.write(fd, trailer.pack_word(self._boot), end - trailer.BOOT_FROM_END)
        self.verified += 1

    def _hash(self, fd: int, body_bytes: int) -> trailer.Hash:
        body = trailer.hasher()
        for offset in range(0, body_bytes, _CHUNK_BYTES):
            body.update(self._disk.read(fd, min(_CHUNK_BYTES, body_bytes - offset), offset))
        return body

    def _has_expired(self, meta: FileMeta, image: ImageRef, name: str) -> bool:
        now_s = self._clock.now_s()
        if meta.is_missing and rules.has_expired(meta.created_s, now_s, MISSING_LIFE_S):
            self._drop(image, name)  # too short-lived to wait for the keeper
            return True
        if rules.has_expired(meta.created_s, now_s, self._max_age_s):
            self.expired += 1  # the keeper removes it and counts what that frees
            return True
        return False

    def _discard(self, image: ImageRef, name: str, why: trailer.Torn) -> None:
        self.torn += 1
        log.warning("cached_file_discarded", extra={"reason": str(why)})
        self._drop(image, name)

    def _drop(self, image: ImageRef, name: str) -> None:
        # Whoever published a new file under the name just now loses it: a render, and never a wrong answer.
        with contextlib.suppress(OSError):
            self._disk.unlink(f"{names.image_folder(self._data_dir, image)}/{name}")
            self._removals.removed(image, name)

    def _unreadable(self, error: OSError) -> None:
        if error.errno in descriptors.EXHAUSTED:
            raise Overloaded("no descriptor left for a cached file") from error
        self.failed_reads += 1
        log.warning("cached_file_unreadable", extra={"errno": error.errno})

    def _publish(
        self, fd: int, folder: str, image: ImageRef, name: str, meta: FileMeta, *, is_stored: bool
    ) -> tuple[OpenFile, bool]:
        """In a thread; the file and whether it got its name."""
        body_bytes = self._disk.size_bytes(fd)
        body = self._hash(fd, body_bytes)
        meta = FileMeta(
            content_type=meta.content_type,
            etag=meta.etag or trailer.etag(body),
            created_s=meta.created_s,
            stamp=meta.stamp,
            body_bytes=body_bytes,
            location=meta.location,
            is_missing=meta.is_missing,
        )
        if is_stored:
            try:
                self._disk.write(fd, trailer.pack(body, meta, self._boot), body_bytes)
                with self._slots.publishing(image):
                    self._demand_alive(image, meta)
                    self._disk.publish(fd, folder, name)
            except NoSpace:
                is_stored = False
        if not is_stored:
            self._disk.truncate(fd, body_bytes)
            self._demand_alive(image, meta)
        return OpenFile(self._disk.reopen(fd), meta, self._disk), is_stored

    def _demand_alive(self, image: ImageRef, meta: FileMeta) -> None:
        if not self._slots.is_alive(image, meta.stamp):
            raise Superseded(f"image {image.id} was invalidated after {meta.stamp}")

    def _remove(self, image: ImageRef, folder: str, plan_keys: frozenset[str] | None) -> tuple[tuple[str, ...], int]:
        """In a thread; names and bytes. With publishers held off, dot-names here are what killed ones left."""
        removed = []
        total_bytes = 0
        with self._slots.excluding(image):
            for name in self._disk.names(folder):
                if plan_keys is not None and not name.startswith(".") and _plan_key(name) not in plan_keys:
                    continue
                size_bytes = self._disk.unlink(f"{folder}/{name}")
                if size_bytes is not None:
                    removed.append(name)
                    total_bytes += size_bytes
            if removed:
                self._disk.sync_folder(folder)
            self._disk.remove_folder(folder)
        return tuple(name for name in removed if not name.startswith(".")), total_bytes

    def _remove_all(self, tenant: str, folder: str) -> Removed:
        """In a thread. Set aside first, so that all files are gone at one moment, between two publishers."""
        with self._slots.excluding_tenant(tenant):
            aside = self._disk.set_aside(folder)
        if aside is None:
            return Removed()
        files, size_bytes = self._disk.remove_tree(aside)
        self._disk.sync_folder(folder.rpartition("/")[0])
        return Removed(files=files, size_bytes=size_bytes)


_NOTHING: Final = FileMeta(content_type="", etag="", created_s=0, stamp=0, body_bytes=0)


def _plan_key(name: str) -> str:
    """The plan's key in a variant's name; "" for an original."""
    return name[2:].partition(".")[0] if name.startswith("v-") else ""


async def _in_thread(act: Callable[[int], T], fd: int, disk: Disk) -> T:
    """Run ``act(fd)`` in a thread that closes ``fd`` at the end, whatever becomes of the caller."""

    def run() -> T:
        try:
            return act(fd)
        finally:
            disk.close(fd)

    return await asyncio.to_thread(run)
