"""Originals from local folders, opened beneath their root and nowhere else."""

import asyncio
import ctypes
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from errno import (
    EAGAIN,
    EINVAL,
    ELOOP,
    ENAMETOOLONG,
    ENOENT,
    ENOSYS,
    ENOTDIR,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    EXDEV,
)
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from imgserve.adapters.origins.settings import Settings
from imgserve.aio.limits import Limit
from imgserve.core.errors import Denied, NoSpace, NotFound, OriginFailed, OverLimit, TimedOut
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant
from imgserve.disk import descriptors, files
from imgserve.interfaces import Fetched

threads_max: Final = 8
copy_bytes: Final = 4_194_304

_SCHEME: Final = "file://"
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

# openat2(2), which Python doesn't have; the number is the same on all architectures since 5.6.
_SYS_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_BENEATH: Final = 0x08
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class LocalFolder:
    """Serves ``file://`` aliases. Regular files only; symbolic links may not lead out of the folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads: ThreadPoolExecutor | None = None
        self.limit = Limit("copies from folders", running_max=threads_max, queue_max=settings.queue_max)
        self.fetches = 0
        self.failures = 0
        self.fetched_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the threads go; may be called again."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def fetch(self, original: Original, tenant: Tenant, into_fd: int) -> Fetched:  # noqa: ARG002
        """See ``interfaces.Origin``. Only an alias leads here, so the tenant's allow-list has no say:
        no URL of a visitor names a file."""
        self.fetches += 1
        try:
            root, names = split(original)
            async with asyncio.timeout(self._settings.fetch_timeout_s), self.limit:
                size_bytes = await self._copy(root, names, into_fd)
        except TimeoutError as error:
            self.failures += 1
            raise TimedOut("the folder took too long") from error
        except BaseException:
            self.failures += 1
            raise
        self.fetched_bytes += size_bytes
        return Fetched(size_bytes=size_bytes)

    async def _copy(self, root: bytes, names: tuple[bytes, ...], into_fd: int) -> int:
        # A thread can't be interrupted, and the caller may close its descriptor, whose number then means
        # another file: so the thread gets a descriptor of its own, and closes it itself.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(threads_max, "local")
        with descriptors.exhausted_is_overloaded():
            target_fd = os.dup(into_fd)
        copy = _Copy(root=root, names=names, target_fd=target_fd, limit=self._settings.max_original_bytes)
        future = self._threads.submit(copy.run)
        try:
            return await asyncio.wrap_future(future)
        finally:
            copy.stop.set()
            if future.cancel():
                os.close(copy.target_fd)  # It never ran.


class _Copy:
    """One copy of one file, run in a thread."""

    def __init__(self, *, root: bytes, names: tuple[bytes, ...], target_fd: int, limit: int) -> None:
        self._root = root
        self._names = names
        self._limit = limit
        self.target_fd = target_fd
        self.stop = threading.Event()

    def run(self) -> int:
        """Copy the whole file; its size. Closes the target."""
        try:
            with descriptors.exhausted_is_overloaded():
                source_fd = open_file(self._root, self._names)
            try:
                return self._copy_all(source_fd)
            finally:
                os.close(source_fd)
        except OSError as error:
            if error.errno in files.FULL:
                raise NoSpace("no room for the original") from error
            raise OriginFailed(f"the folder failed: {error.strerror}") from error
        finally:
            os.close(self.target_fd)

    def _copy_all(self, source_fd: int) -> int:
        before = os.fstat(source_fd)
        if before.st_size > self._limit:
            raise OverLimit(
                f"original over render.max_original_bytes = {self._limit}",
                public=f"The original is larger than {self._limit:,} bytes, the limit of this server.",
            )
        offset = 0
        while offset < before.st_size and not self.stop.is_set():
            count = _copy_range(source_fd, self.target_fd, min(copy_bytes, before.st_size - offset), offset)
            if count == 0:
                break
            offset += count
        after = os.fstat(source_fd)
        is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if offset != before.st_size or not is_same:
            raise OriginFailed("the file changed while it was copied")
        if offset == 0:
            raise OriginFailed("the file is empty")
        return offset


def split(original: Original) -> tuple[bytes, tuple[bytes, ...]]:
    """The root folder, and the names that lead from it to the file, each decoded exactly once.

    Raises Denied for a place that no alias named, and for a name that is empty, ``.``, ``..``, or holds
    a slash or NUL after decoding. A name that is encoded twice is looked up as it stands after one decoding.
    """
    root = original.root.rstrip("/")
    if not original.by_alias or not root.startswith(_SCHEME + "/") or not original.location.startswith(root + "/"):
        raise Denied("no alias names this file")
    path = original.location.removeprefix(root + "/")
    names = tuple(unquote_to_bytes(name) for name in path.split("/"))
    if "?" in path or "#" in path or any(name in {b"", b".", b".."} or b"/" in name or b"\0" in name for name in names):
        raise Denied("the name leads out of the folder, or can't be one of a file")
    return unquote_to_bytes(root.removeprefix(_SCHEME)), names


def open_file(root: bytes, names: tuple[bytes, ...]) -> int:
    """Open the regular file of these names beneath the root; the descriptor is the caller's.

    Raises NotFound, Denied for a link that leads out or what isn't a regular file, OriginFailed; OSError when no
    descriptor is left.
    """
    try:
        root_fd = os.open(root, _FOLDER_FLAGS)
    except OSError as error:
        if error.errno in descriptors.EXHAUSTED:
            raise
        raise OriginFailed(f"the folder of an alias can't be opened: {error.strerror}") from error
    try:
        fd = _open_by_best_means(root_fd, names)
    except OSError as error:
        if error.errno in {ENOENT, ENOTDIR, ENAMETOOLONG}:
            raise NotFound("no such file") from error
        if error.errno in {EXDEV, ELOOP, ENXIO}:
            raise Denied("the name leads out of the folder, or is no regular file") from error
        if error.errno in descriptors.EXHAUSTED:
            raise
        raise OriginFailed(f"the file can't be opened: {error.strerror}") from error
    finally:
        os.close(root_fd)
    if not stat.S_ISREG(mode := os.fstat(fd).st_mode):
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise NotFound("the name is a folder's")
        raise Denied("the name is no regular file's")
    return fd


def open_beneath(root_fd: int, names: tuple[bytes, ...]) -> int:
    """openat2(2) with RESOLVE_BENEATH: the kernel refuses every step that leaves the root, also by a link.
    Raises OSError: EXDEV for such a step, ENOSYS or EPERM where the call itself isn't to be had."""
    how = _OpenHow(_FILE_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    path = b"/".join(names)
    for _ in range(16):
        fd: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root_fd),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return fd
        # EAGAIN: something was renamed while a link with ".." was followed, so the kernel can't be sure.
        if (number := ctypes.get_errno()) != EAGAIN:
            raise OSError(number, os.strerror(number))
    raise OSError(EAGAIN, os.strerror(EAGAIN))


def open_step_by_step(root_fd: int, names: tuple[bytes, ...]) -> int:
    """The same one name at a time, for kernels before 5.6 and containers that forbid openat2: follows no
    symbolic link at all. Raises OSError: ELOOP or ENOTDIR for a link."""
    folder_fd = os.dup(root_fd)
    try:
        for name in names[:-1]:
            next_fd = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder_fd)
            os.close(folder_fd)
            folder_fd = next_fd
        return os.open(names[-1], _FILE_FLAGS | os.O_NOFOLLOW, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)


def _open_by_best_means(root_fd: int, names: tuple[bytes, ...]) -> int:
    try:
        return open_beneath(root_fd, names)
    except OSError as error:
        if error.errno not in {ENOSYS, EPERM}:
            raise
    return open_step_by_step(root_fd, names)


def _copy_range(source_fd: int, target_fd: int, count: int, offset: int) -> int:
    try:
        return os.copy_file_range(source_fd, target_fd, count, offset, offset)
    except OSError as error:
        if error.errno not in {EXDEV, EINVAL, ENOSYS, EOPNOTSUPP, EPERM}:
            raise
    # These file systems can't copy among themselves.
    return os.pwrite(target_fd, os.pread(source_fd, count, offset), offset)
