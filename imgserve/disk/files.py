"""Files that appear at once and whole, and what of them is still true after a crash.

*Publishing.* A file is written without a name (``O_TMPFILE``), linked to a random dot-name beside its target and
renamed over it: a name never shows a part, and the death of the writer leaves nothing, or one dot-name between the
two calls, which ``sweep`` takes away. ``linkat`` cannot overwrite; through ``/proc/self/fd`` as a directory it works
on ext4, tmpfs and overlay, where the plain path fails with EXDEV.

*What is synced.* Files of truth (the map of slots, FORMAT, keys) are fsynced before they get their name. A cached file
is not: an fsync costs milliseconds and a journal commit for each image, and losing one costs a render. A crash of a
process or a kill -9 cannot tear it, since the page cache outlives processes; only a lost kernel can. So a cached file
carries the id of the boot in which its bytes were last known good: its trailer is checked at each open (magic,
lengths against the file's size, CRC of the description), its whole checksum at the first open in another boot. That
reads each file once a boot, when it is used, and never ten gigabytes at a start. A removal is synced (the folder is),
because its receipt says *gone*.
"""

import contextlib
import errno
import os
import random
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

from imgserve.core.errors import Misconfigured, NoSpace
from imgserve.disk import descriptors

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors that say: no room."""

_PUBLISH_ATTEMPTS: Final = 100
_PAUSE_STEP_S: Final = 20e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much a file system has, and has left for us."""

    free_bytes: int
    total_bytes: int


class Disk(Protocol):
    """What the cache needs of a disk, so that a simulator can give another. Paths are absolute; times Unix seconds.

    What makes a descriptor raises Overloaded when none is left, but for ``open_read``, which raises OSError."""

    def boot(self) -> int:
        """A number that is another one after the kernel was started again."""

    def unnamed(self, folder: str) -> int:
        """Descriptor of a new file without a name; the folder is made. Raises NoSpace."""

    def in_memory(self) -> int:
        """Descriptor of a new file that is on no disk."""

    def open_read(self, path: str) -> int:
        """Read-only descriptor; a symlink is refused. Raises OSError."""

    def reopen(self, fd: int, *, writable: bool = False) -> int:
        """Another descriptor of the same file, with its own offset."""

    def size_bytes(self, fd: int) -> int:
        """Length of the file."""

    def read(self, fd: int, count: int, offset: int) -> bytes:
        """Up to that many bytes."""

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of it. Raises NoSpace."""

    def truncate(self, fd: int, size_bytes: int) -> None:
        """Cut the file."""

    def close(self, fd: int) -> None:
        """Give the descriptor back."""

    def publish(self, fd: int, folder: str, name: str) -> None:
        """Give an unnamed file its name; the folder is made. Raises NoSpace."""

    def unlink(self, path: str) -> int | None:
        """Take the name away; the file's size, or None when there was none."""

    def modified_s(self, path: str) -> float | None:
        """When the file was last written, or None when it is not there."""

    def names(self, folder: str) -> tuple[str, ...]:
        """What lies in the folder, sorted; nothing when it is missing."""

    def remove_folder(self, folder: str) -> bool:
        """Remove the folder if it is empty; whether it is gone."""

    def set_aside(self, folder: str) -> str | None:
        """Rename the folder to a dot-name beside it; its path, or None when it is missing."""

    def remove_tree(self, folder: str) -> tuple[int, int]:
        """Remove everything; how many files and bytes."""

    def sync_folder(self, folder: str) -> None:
        """Make what happened in the folder survive a power loss; nothing when it is missing."""

    def room(self, folder: str) -> Room:
        """Room of the folder's file system."""


class LocalDisk:
    """The disk of this machine."""

    def boot(self) -> int:
        """See Disk."""
        return boot()

    def unnamed(self, folder: str) -> int:
        """See Disk."""
        with descriptors.exhausted_is_overloaded():
            return unnamed(folder)

    def in_memory(self) -> int:
        """See Disk."""
        with descriptors.exhausted_is_overloaded():
            return os.memfd_create("image", os.MFD_CLOEXEC)

    def open_read(self, path: str) -> int:
        """See Disk."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def reopen(self, fd: int, *, writable: bool = False) -> int:
        """See Disk."""
        with descriptors.exhausted_is_overloaded():
            return os.open(f"/proc/self/fd/{fd}", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def size_bytes(self, fd: int) -> int:
        """See Disk."""
        return os.fstat(fd).st_size

    def read(self, fd: int, count: int, offset: int) -> bytes:
        """See Disk."""
        return os.pread(fd, count, offset)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """See Disk."""
        write_all(fd, memoryview(data), offset)

    def truncate(self, fd: int, size_bytes: int) -> None:
        """See Disk."""
        os.ftruncate(fd, size_bytes)

    def close(self, fd: int) -> None:
        """See Disk."""
        os.close(fd)

    def publish(self, fd: int, folder: str, name: str) -> None:
        """See Disk."""
        with descriptors.exhausted_is_overloaded():
            publish(fd, folder, name)

    def unlink(self, path: str) -> int | None:
        """See Disk."""
        try:
            size_bytes = os.stat(path, follow_symlinks=False).st_size
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return size_bytes

    def modified_s(self, path: str) -> float | None:
        """See Disk."""
        try:
            return os.stat(path, follow_symlinks=False).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> tuple[str, ...]:
        """See Disk."""
        try:
            return tuple(sorted(os.listdir(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def remove_folder(self, folder: str) -> bool:
        """See Disk."""
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        return True

    def set_aside(self, folder: str) -> str | None:
        """See Disk."""
        parent, _, name = folder.rpartition("/")
        aside = f"{parent}/{_dot_name()}-{name}"
        try:
            os.rename(folder, aside)
        except FileNotFoundError:
            return None
        return aside

    def remove_tree(self, folder: str) -> tuple[int, int]:
        """See Disk."""
        return remove_tree(folder)

    def sync_folder(self, folder: str) -> None:
        """See Disk."""
        with contextlib.suppress(FileNotFoundError):
            sync_folder(folder)

    def room(self, folder: str) -> Room:
        """See Disk."""
        facts = os.statvfs(folder)
        return Room(free_bytes=facts.f_bavail * facts.f_frsize, total_bytes=facts.f_blocks * facts.f_frsize)


@lru_cache(maxsize=1)
def boot() -> int:
    """64 bits that name this start of the kernel."""
    text = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return int.from_bytes(blake2b(text.strip(), digest_size=8).digest(), "little")


@contextlib.contextmanager
def _full_is_no_space(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(f"no room left under {folder}") from error
        raise


def make_folder(folder: str) -> None:
    """Make the folder and its parents, mode 0700, whoever else does it at the same time."""
    os.makedirs(folder, mode=0o700, exist_ok=True)


def _make_folder_again(folder: str, turn: int) -> None:
    """Once; that it is removed again meanwhile (or a parent, or between makedirs' two looks) is for the next turn.

    Not always at once: a remover in a tight loop waits for the same lock of the parent folder and gets it right after
    each mkdir, so that two such loops could run in step for ever.
    """
    time.sleep(random.uniform(0, turn * _PAUSE_STEP_S))  # noqa: S311 - no secret
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        make_folder(folder)


def unnamed(folder: str) -> int:
    """Read-write descriptor of a new file without a name, mode 0600; the folder is made. Raises NoSpace."""
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    with _full_is_no_space(folder):
        for turn in range(_PUBLISH_ATTEMPTS):
            try:
                return os.open(folder, flags, 0o600)
            except FileNotFoundError:
                _make_folder_again(folder, turn)
    raise OSError(errno.ENOENT, "the folder vanishes as often as it is made", folder)


def write_all(fd: int, data: memoryview, offset: int) -> None:
    """Write every byte at that offset. Raises NoSpace."""
    with _full_is_no_space(f"descriptor {fd}"):
        while data:
            written = os.pwrite(fd, data, offset)
            data, offset = data[written:], offset + written


def publish(fd: int, folder: str, name: str) -> None:
    """Give an unnamed file its name at once, over what had it before. Raises NoSpace.

    The folder may be removed by someone who found it empty: then it is made again. Nobody may unlink young dot-names.
    """
    dot = f"{folder}/{_dot_name()}"
    # Opened for each call: /proc/self was resolved at open, and a descriptor from before a fork means the parent's.
    descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _full_is_no_space(folder):
            _link(fd, descriptors, folder, dot)
            try:
                os.rename(dot, f"{folder}/{name}")
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(dot)
                raise
    finally:
        os.close(descriptors)


def _link(fd: int, descriptors: int, folder: str, dot: str) -> None:
    for turn in range(_PUBLISH_ATTEMPTS):
        try:
            os.link(str(fd), dot, src_dir_fd=descriptors, follow_symlinks=True)
            return
        except FileNotFoundError:
            _make_folder_again(folder, turn)
    raise OSError(errno.ENOENT, "the folder vanishes as often as it is made", folder)


def _dot_name() -> str:
    return "." + secrets.token_hex(8)


def sync_folder(folder: str) -> None:
    """Make renames and unlinks in the folder survive a power loss."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(folder: str) -> tuple[int, int]:
    """Remove the folder and all in it; how many files and bytes there were."""
    files = size_bytes = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner_files, inner_bytes = remove_tree(entry.path)
                files, size_bytes = files + inner_files, size_bytes + inner_bytes
                continue
            with contextlib.suppress(FileNotFoundError):
                size_bytes += entry.stat(follow_symlinks=False).st_size
                os.unlink(entry.path)
                files += 1
    shutil.rmtree(folder, ignore_errors=True)  # what came while it was walked, and the folder itself
    return files, size_bytes


def sweep(folder: str, *, before_s: float = float("inf")) -> int:
    """Remove what a killed writer left: everything with a dot-name that last changed before that time, at any depth.

    How many names. With no time given no writer may be alive.
    """
    found = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if not entry.name.startswith("."):
                found += sweep(entry.path, before_s=before_s) if is_folder else 0
                continue
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_ctime >= before_s:
                    continue
                if is_folder:
                    remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
                found += 1
    return found


def check(folder: Path) -> None:
    """Try in the folder what the server does there. Raises Misconfigured when its file system cannot, or NoSpace."""
    try:
        fd = unnamed(str(folder))
        try:
            publish(fd, str(folder), ".check")
        finally:
            os.close(fd)
            (folder / ".check").unlink(missing_ok=True)
    except OSError as error:
        raise Misconfigured(
            "server.data_dir",
            str(folder),
            f"use a local file system with unnamed files, like ext4 or xfs ({error.strerror})",
        ) from error
