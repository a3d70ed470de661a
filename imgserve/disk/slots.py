"""The memory map of slots: which invalidation last touched an image or a tenant, for all processes of a node.

The file is 64 bytes of header (magic, version, head), 2^20 image slots and 4,096 tenant slots, each a native
64-bit word. A slot holds a sequence number, never a counter: numbers only rise, so a raise that comes late loses
nothing. Words are read without a lock: an aligned 8-byte load through ``memoryview.cast("Q")`` is one instruction
(``struct`` with an explicit byte order would go byte by byte and could see half a number).

How old bytes stay away, in order: the invalidation takes a number and writes its durable row; *then* it raises the
slot to a number that is taken at that moment. A reader that looks again takes ``head()`` first, asks the log, and
stamps with that head. A stamp that was taken before the row could be seen is thus always under the slot. (Raising
to the row's own number would leave a hole: a reader that sees the number in ``head`` before the row is
committed would stamp the old file with it, and keep it alive.)

Each critical section opens the file anew, so that its locks exclude other threads and tasks of the same process too.
Lock order: image byte, tenant byte, header byte.
"""

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from imgserve.core.errors import Misconfigured
from imgserve.core.originals import ImageId, ImageRef
from imgserve.disk import descriptors, files, locks

FILE_NAME: Final = "slots.map"
"""What the map is called in the data folder."""

IMAGE_SLOTS: Final = 1 << 20
TENANT_SLOTS: Final = 1 << 12
HEADER_WORDS: Final = 8
HEAD_WORD: Final = 2
NUMBERS_PER_S: Final = 1 << 20
"""At a node's start numbers jump to the time in seconds times this: no number that power loss undid comes again."""

_ERA_S: Final = 1 << 31  # 68 years
_MAGIC: Final = int.from_bytes(b"imgslots", "little")
_VERSION: Final = 1
_WORDS: Final = HEADER_WORDS + IMAGE_SLOTS + TENANT_SLOTS
_SIZE_BYTES: Final = _WORDS * 8
_LETTERS: Final = {letter: value for value, letter in enumerate("abcdefghijklmnopqrstuvwxyz234567")}

Row = tuple[str, ImageId | None, int]
"""An invalidation as the log knows it: tenant, image (None: all of the tenant), sequence number."""


class SlotMap:
    """The map, opened. Implements ``interfaces.Slots``; may be inherited by fork, or opened by each process."""

    def __init__(self, fd: int) -> None:
        """Takes over ``fd``, an open map file that has been checked."""
        self._fd = fd
        self._map = mmap.mmap(fd, _SIZE_BYTES)
        self.words: Final = memoryview(self._map).cast("Q")
        """All words, header first: what compiled code reads, at ``image_slot`` and ``tenant_slot``."""

    @classmethod
    def open(cls, path: Path) -> "SlotMap":
        """The existing map. Raises Misconfigured when it is missing or no map of this version."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise Misconfigured("server.data_dir", str(path), "the map of slots is missing: start the node") from error
        if not _is_map(fd):
            os.close(fd)
            raise Misconfigured("server.data_dir", str(path), "the map of slots is damaged: start the node again")
        return cls(fd)

    @classmethod
    def rebuild(cls, path: Path, rows: Iterable[Row], *, now_s: float) -> "SlotMap":
        """A new map made from the durable rows of all tenants; the old one gives only its head.

        For the node's start, while no other process has it open. The head jumps over every number that may have
        been given out and then forgotten by a power loss: else a file stamped with such a number would survive
        the invalidation that gets it again. The file is written whole, so that a full disk is an error here and not
        a SIGBUS later, and synced. Raises NoSpace.
        """
        words = memoryview(bytearray(_SIZE_BYTES)).cast("Q")
        words[0], words[1] = _MAGIC, _VERSION
        newest = old_head(path, now_s)
        for tenant, image, sequence in rows:
            slot = tenant_slot(tenant) if image is None else image_slot(image)
            words[slot] = max(words[slot], sequence)
            newest = max(newest, sequence)
        words[HEAD_WORD] = max(newest + NUMBERS_PER_S, int(now_s) * NUMBERS_PER_S)
        fd = files.unnamed(str(path.parent))
        try:
            files.write_all(fd, words.cast("B"), 0)
            os.fsync(fd)
            files.publish(fd, str(path.parent), path.name)
            files.sync_folder(str(path.parent))
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def close(self) -> None:
        """Unmap; may be called again."""
        if self._fd < 0:
            return
        self.words.release()
        self._map.close()
        os.close(self._fd)
        self._fd = -1

    def head(self) -> int:
        """The newest sequence number given out on this node."""
        head: int = self.words[HEAD_WORD]
        return head

    def next_sequence(self) -> int:
        """Give out a number that no process of this node got before."""
        with self._description() as fd:
            return self._take_number(fd)

    def image_slot(self, image: ImageRef) -> int:
        """Index of the image's slot in ``words``."""
        return image_slot(image.id)

    def tenant_slot(self, tenant: str) -> int:
        """Index of the tenant's slot in ``words``."""
        return tenant_slot(tenant)

    def read(self, slot: int) -> int:
        """The sequence number in that word."""
        value: int = self.words[slot]
        return value

    def is_alive(self, image: ImageRef, stamp: int) -> bool:
        """False means: look again in the log."""
        words = self.words
        return bool(stamp >= words[image_slot(image.id)] and stamp >= words[tenant_slot(image.tenant)])

    def raise_image(self, image: ImageRef, sequence: int) -> int:
        """Make every stamp given so far look again, for this image and those that share its slot; the slot's new value.

        Call it when the row ``sequence`` is durable. The value is at least ``sequence``. Waits for
        publishers of this slot, who hold it for the time of a link and a rename.
        """
        return self._raise(image_slot(image.id), sequence)

    def raise_tenant(self, tenant: str, sequence: int) -> int:
        """The same for all images of the tenant."""
        return self._raise(tenant_slot(tenant), sequence)

    @contextlib.contextmanager
    def publishing(self, image: ImageRef) -> Iterator[None]:
        """Hold off raises of this image and its tenant: compare the stamp and show the file inside.

        Blocks the thread while a raise is under way. Never await inside: a raise in the same loop would wait for ever.
        """
        with self._description() as fd:
            locks.set_lock(fd, image_slot(image.id) * 8, shared=True, wait=True)
            locks.set_lock(fd, tenant_slot(image.tenant) * 8, shared=True, wait=True)
            yield

    @contextlib.contextmanager
    def excluding(self, image: ImageRef) -> Iterator[None]:
        """Hold off publishers of this image: what lies half-named in its folder now, nobody will finish."""
        with self._description() as fd:
            locks.set_lock(fd, image_slot(image.id) * 8, wait=True)
            yield

    @contextlib.contextmanager
    def excluding_tenant(self, tenant: str) -> Iterator[None]:
        """Hold off all publishers of this tenant."""
        with self._description() as fd:
            locks.set_lock(fd, tenant_slot(tenant) * 8, wait=True)
            yield

    def _raise(self, slot: int, sequence: int) -> int:
        with self._description() as fd:
            locks.set_lock(fd, slot * 8, wait=True)
            value = max(self.words[slot], sequence, self._take_number(fd))
            self.words[slot] = value
            return value

    def _take_number(self, fd: int) -> int:
        locks.set_lock(fd, 0, wait=True)
        number: int = self.words[HEAD_WORD] + 1
        self.words[HEAD_WORD] = number
        locks.clear_lock(fd, 0)
        return number

    @contextlib.contextmanager
    def _description(self) -> Iterator[int]:
        """The same file, opened anew; closing it gives all its locks back. Raises Overloaded."""
        with descriptors.exhausted_is_overloaded():
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def image_slot(image: ImageId) -> int:
    """Index of an image's word: the first 20 bits of its id. Raises KeyError for what is no id."""
    letters = _LETTERS
    bits = letters[image[0]] << 15 | letters[image[1]] << 10 | letters[image[2]] << 5 | letters[image[3]]
    return HEADER_WORDS + bits


@lru_cache(maxsize=TENANT_SLOTS)
def tenant_slot(tenant: str) -> int:
    """Index of a tenant's word."""
    digest = blake2b(tenant.encode(), digest_size=8).digest()
    return HEADER_WORDS + IMAGE_SLOTS + int.from_bytes(digest, "little") % TENANT_SLOTS


def _is_map(fd: int) -> bool:
    if os.fstat(fd).st_size != _SIZE_BYTES:
        return False
    header = memoryview(os.pread(fd, HEADER_WORDS * 8, 0)).cast("Q")
    return bool(header[0] == _MAGIC and header[1] == _VERSION)


def old_head(path: Path, now_s: float) -> int:
    """The newest number that the map at this path gave out; 0 when there is none, or none that can be believed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    try:
        if not _is_map(fd):
            return 0
        head = int(memoryview(os.pread(fd, HEADER_WORDS * 8, 0)).cast("Q")[HEAD_WORD])
        return head if is_plausible(head, now_s) else 0
    finally:
        os.close(fd)


def is_plausible(sequence: int, now_s: float) -> bool:
    """Whether a node can have given out this number until now. Clocks that were wrong meanwhile are allowed for: one
    that began at 1970, or ran decades ahead; a file that was damaged says something else almost surely."""
    return sequence < (max(now_s, _ERA_S) + _ERA_S) * NUMBERS_PER_S
