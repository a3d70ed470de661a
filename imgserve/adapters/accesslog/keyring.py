"""Day keys: one random key per tenant and UTC day, the same for every process that asks.

A key is made whole under no name and then linked: whoever links first wins, all others read that one.
It is derived from nothing, so once its file is gone nobody can make it again.

``DAY.key`` is the day's present key. A key that is replaced within its day stays as ``DAY.ID.key``, for the rows that
carry its id, until the day's term ends. The new one gets such a name too, before it is anyone's present key: so of
two that replace a key at once neither loses the other's, and no lock is needed.
"""

import contextlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Final

from imgserve.adapters.accesslog import schema
from imgserve.core import tenants
from imgserve.core.errors import Misconfigured, NoSpace
from imgserve.core.privacy import KEY_BYTES, DayKey, day_key
from imgserve.disk import files

log = logging.getLogger(__name__)

_KEY_FILE: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.[0-9a-f]{8})?\.key", re.ASCII)
_RECEIPT_KEY: Final = "receipt.key"

Identity = tuple[int, int, int]


class KeyRing:
    """The keys below one folder. Safe to use from threads; every process has its own."""

    def __init__(self, keys_dir: Path, *, token_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._keys_dir = keys_dir
        self._token_bytes = token_bytes
        self._held: dict[tuple[str, date], tuple[Identity, DayKey]] = {}
        self.keys_unusable = 0

    def key(self, tenant: str, day: date) -> DayKey | None:
        """The key of that day, made if there is none yet; None when there is no usable one.

        Whoever gets None drops the row: there is no second choice. One stat where the key is held already.
        Raises ValueError for what is no tenant's name.
        """
        path = self._path(tenant, day)
        try:
            held = self._held.get((tenant, day))
            if held is not None and held[0] == _identity(os.lstat(path)):
                return held[1]
        except FileNotFoundError:
            pass  # destroyed by another process, or never made
        except OSError:
            self._count_unusable(tenant, "unreadable")
            return None
        self._held.pop((tenant, day), None)
        return self._load(tenant, day, path)

    def rotate(self, tenant: str, day: date) -> DayKey:
        """Replace the day's key; what it was is kept beside it. Processes that look again use the new one.

        Raises OSError or NoSpace, then the old one is still in use; ValueError for what is no tenant's name.
        """
        path = self._path(tenant, day)
        if _read(path) is None:
            self._create(path)  # so that nobody makes the first one between here and the renaming
        _keep(path)
        secret = self._token_bytes(KEY_BYTES)
        key = day_key(secret)
        descriptor = self._written(path.parent, secret)
        try:
            _link(descriptor, _numbered(path, key))
            files.publish(descriptor, str(path.parent), path.name)
        finally:
            os.close(descriptor)
        files.sync_folder(str(path.parent))
        return key

    def held(self, tenant: str, first: date, last: date) -> Mapping[date, tuple[DayKey, ...]]:
        """Every usable key on disk of each day from ``first`` to ``last``, replaced ones too; none is made.

        Raises OSError when the folder can't be read; ValueError for what is no tenant's name.
        """
        folder = self._path(tenant, first).parent
        found: dict[date, dict[int, DayKey]] = {}
        for day, path in _key_files(folder):
            if first <= day <= last:
                secret = self._secret(tenant, path)
                if secret is not None:
                    key = day_key(secret)
                    found.setdefault(day, {})[key.id] = key
        return {day: tuple(keys.values()) for day, keys in found.items()}

    def destroy(self, tenant: str, day: date) -> bool:
        """Overwrite and unlink all keys of the day; True if there was one. Raises OSError when one can't be removed."""
        self._held.pop((tenant, day), None)
        folder = self._path(tenant, day).parent
        paths = [path for found, path in _key_files(folder) if found == day]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                with contextlib.suppress(PermissionError):  # read-only: unlinking may still be allowed
                    _overwrite(path)
                path.unlink()
        if paths:
            files.sync_folder(str(folder))
        return bool(paths)

    def days(self) -> Iterator[tuple[str, date]]:
        """Tenant and day of each key on disk, once, whether the tenant is still configured or not."""
        for tenant_dir in schema.tenant_folders(self._keys_dir):
            for day in sorted({day for day, _ in _key_files(tenant_dir)}):
                yield tenant_dir.name, day

    def receipt_key(self) -> bytes:
        """The key that receipts are signed with, made at its first use. Raises Misconfigured, OSError or NoSpace."""
        path = self._keys_dir / _RECEIPT_KEY
        if _read(path) is None:
            self._create(path)
        key = self.known_receipt_key()
        assert key is not None, "nobody removes it"
        return key

    def known_receipt_key(self) -> bytes | None:
        """The same, None where there is none yet."""
        path = self._keys_dir / _RECEIPT_KEY
        read = _read(path)
        if read is None:
            return None
        if not _is_usable(read[1]):
            raise Misconfigured("privacy.keys_dir", str(path), "the key is damaged: restore it, or remove it")
        return read[1]

    def _path(self, tenant: str, day: date) -> Path:
        if not tenants.is_name(tenant):
            raise ValueError("not a tenant's name")
        return self._keys_dir / tenant / f"{day.isoformat()}.key"

    def _secret(self, tenant: str, path: Path) -> bytes | None:
        """A key file's bytes; None for one that can't be used, which is counted, or that has just gone."""
        try:
            read = _read(path)
        except OSError:
            self._count_unusable(tenant, "unreadable")
            return None
        if read is not None and not _is_usable(read[1]):
            self._count_unusable(tenant, "damaged")
            return None
        return None if read is None else read[1]

    def _load(self, tenant: str, day: date, path: Path) -> DayKey | None:
        try:
            read = _read(path)
            if read is None:
                self._create(path)
                read = _read(path)
        except (OSError, NoSpace):
            self._count_unusable(tenant, "unreadable")
            return None
        if read is None or not _is_usable(read[1]):
            self._count_unusable(tenant, "damaged")
            return None
        identity, secret = read
        key = day_key(secret)
        # A key that its file has lost must not live on in memory: only those of neighbouring days are held.
        self._held = {place: held for place, held in self._held.items() if abs((place[1] - day).days) <= 1}
        self._held[(tenant, day)] = (identity, key)
        return key

    def _create(self, path: Path) -> None:
        """Link a new key under its name, unless another process was first."""
        is_new = not path.parent.is_dir()
        files.make_folder(str(self._keys_dir))
        descriptor = self._written(path.parent, self._token_bytes(KEY_BYTES))
        try:
            _link(descriptor, path)
        finally:
            os.close(descriptor)
        files.sync_folder(str(path.parent))
        if is_new:
            files.sync_folder(str(self._keys_dir))

    def _written(self, folder: Path, secret: bytes) -> int:
        """Descriptor of a file without a name that holds these bytes for good. Raises OSError or NoSpace."""
        descriptor = files.unnamed(str(folder))
        try:
            os.fchmod(descriptor, 0o600)
            files.write_all(descriptor, memoryview(secret), 0)
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _count_unusable(self, tenant: str, reason: str) -> None:
        self.keys_unusable += 1
        log.warning("day_key_unusable", extra={"tenant": tenant, "reason": reason})


def _key_files(folder: Path) -> Iterator[tuple[date, Path]]:
    """Day and path of each key file of a tenant's folder; nothing where there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(names):
        found = _KEY_FILE.fullmatch(name)
        with contextlib.suppress(ValueError):  # 2026-02-30 is nobody's day
            if found:
                yield date.fromisoformat(found[1]), folder / name


def _numbered(path: Path, key: DayKey) -> Path:
    """Where a key of a day lies when it is not, or not only, the present one."""
    return path.with_name(f"{path.stem}.{key.id:08x}.key")


def _is_usable(secret: bytes) -> bool:
    return len(secret) == KEY_BYTES and any(secret)


def _keep(path: Path) -> None:
    """Give the present key its numbered name as well; one that is damaged made no rows, and needs none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        secret = os.read(descriptor, KEY_BYTES + 1)
        if _is_usable(secret):
            _link(descriptor, _numbered(path, day_key(secret)))
    finally:
        os.close(descriptor)


def _identity(facts: os.stat_result) -> Identity:
    return facts.st_dev, facts.st_ino, facts.st_ctime_ns


def _read(path: Path) -> tuple[Identity, bytes] | None:
    """Identity and bytes of a key file; None where there is no file. Others are kept from reading it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:  # as a restored copy may be
            os.fchmod(descriptor, 0o600)
        return _identity(os.fstat(descriptor)), os.read(descriptor, KEY_BYTES + 1)
    finally:
        os.close(descriptor)


def _link(descriptor: int, path: Path) -> None:
    """Give an open file a name, unless something has it already.

    Through the descriptor of /proc/self/fd: a plain link there fails with EXDEV.
    """
    own_fds = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(str(descriptor), path, src_dir_fd=own_fds, follow_symlinks=True)
    finally:
        os.close(own_fds)


def _overwrite(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(descriptor, bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
