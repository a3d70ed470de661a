"""Byte-range locks that belong to an open file, not to a process (``F_OFD_SETLK``, fcntl(2)).

The kernel frees them when the last descriptor of that open file is closed, so also after kill -9. Two opens
of one file conflict even inside one process; a fork shares them. Nothing is ever written to a lock file.
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from imgserve.core.errors import Misconfigured
from imgserve.disk import descriptors

FORMAT_VERSION: Final = 1
"""Version of everything that lies under the data folder."""

_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_FORMAT_MAX_BYTES: Final = 64


def set_lock(fd: int, offset: int, length: int = 1, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock bytes ``offset`` to ``offset + length`` of the open file; False when another open file holds them.

    The kernel finds no deadlock between such locks: who takes several takes them in one order.
    With ``wait`` it blocks the thread and always returns True. ``shared`` needs a readable, else a writable ``fd``.
    """
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, offset, length, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def clear_lock(fd: int, offset: int, length: int = 1) -> None:
    """Unlock those bytes of the open file."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, length, 0))


@contextlib.contextmanager
def folder_lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Exclude all others, or with ``shared`` those who do not share, from what belongs to the folder (flock(2)).

    Blocks the thread. Raises OSError when there is no such folder.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Held(Misconfigured):
    """Another node, or a command, owns the data folder now."""


class LockFile:
    """A file whose bytes are locks, opened at first use, and anew after a fork.

    For one thread. What this object holds already, it refuses to itself, although the kernel would grant it.
    Offsets reach to 2^63 - 1. The first use raises Overloaded when no descriptor is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._pid = 0
        self._held: set[tuple[int, int]] = set()

    @property
    def held(self) -> int:
        """How many ranges this object holds."""
        return len(self._held)

    def try_lock(self, offset: int, length: int = 1, *, shared: bool = False) -> bool:
        """Take the range if nobody else, and not this object either, holds a byte of it."""
        fd = self._open()
        if self._overlaps(offset, length) or not set_lock(fd, offset, length, shared=shared):
            return False
        self._held.add((offset, length))
        return True

    def lock(self, offset: int, length: int = 1, *, shared: bool = False) -> None:
        """Block the thread until the range is taken. Raises RuntimeError if this object holds it."""
        fd = self._open()
        if self._overlaps(offset, length):
            raise RuntimeError(f"bytes {offset}+{length} of {self._path} are locked by this very object")
        set_lock(fd, offset, length, shared=shared, wait=True)
        self._held.add((offset, length))

    def unlock(self, offset: int, length: int = 1) -> None:
        """Give the range back. Raises KeyError if it is not held."""
        fd = self._open()
        self._held.remove((offset, length))
        clear_lock(fd, offset, length)

    def is_locked(self, offset: int, length: int = 1) -> bool:
        """Whether another open file holds a byte of the range, in any mode."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, length, 0)
        answer = fcntl.fcntl(self._open(), fcntl.F_OFD_GETLK, asked)
        kind: int = _FLOCK.unpack(answer)[0]
        return kind != fcntl.F_UNLCK

    def close(self) -> None:
        """Give everything back; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._held.clear()

    def _overlaps(self, offset: int, length: int) -> bool:
        return any(offset < start + size and start < offset + length for start, size in self._held)

    def _open(self) -> int:
        # A descriptor that came by fork shares its locks with the parent: closing it here takes nothing from there.
        if self._pid != os.getpid():
            self.close()
        if self._fd < 0:
            with descriptors.exhausted_is_overloaded():
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._pid = os.getpid()
        return self._fd


class Owner:
    """The one node that may use a data folder, for as long as one of its processes lives.

    Children that are forked share the lock on purpose: after a kill -9 of the supervisor no second node may
    start while old fronts still write.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor that holds the lock: a child keeps it open to be an owner too."""
        return self._fd

    def close(self) -> None:
        """Let go of the folder; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def own(data_dir: Path) -> Owner:
    """Become the owner of the folder, which is created with mode 0700 when missing.

    Raises Held when another node owns it, Misconfigured when its FORMAT is not one that this program knows.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(data_dir / "FORMAT", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Misconfigured(
            "server.data_dir", str(data_dir), f"choose a folder that can be written ({error.strerror})"
        ) from error
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        if not set_lock(fd, 0):
            raise Held("server.data_dir", str(data_dir), "another node uses this folder: give each its own")
        _check_format(fd, data_dir)
        undo.pop_all()
    return Owner(fd)


def _check_format(fd: int, data_dir: Path) -> None:
    text = os.pread(fd, _FORMAT_MAX_BYTES, 0).decode("ascii", "replace").strip()
    if not text:  # a new folder, or one whose first start was cut short
        os.pwrite(fd, f"{FORMAT_VERSION}\n".encode(), 0)
        os.fsync(fd)
        return
    if not text.isdecimal():
        raise Misconfigured("server.data_dir", str(data_dir), "its FORMAT file is damaged: choose a new folder")
    if int(text) > FORMAT_VERSION:
        raise Misconfigured(
            "server.data_dir",
            str(data_dir),
            f"a newer imgserve wrote it (format {text}, known {FORMAT_VERSION}): upgrade, or choose a new folder",
        )
