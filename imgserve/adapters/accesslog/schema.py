"""The file of a tenant's day: where it lies, its tables, and how it is opened."""

import os
import re
import sqlite3
from datetime import date
from pathlib import Path
from typing import Final

import msgspec

from imgserve.core.tenants import is_name
from imgserve.disk import files, sqlite

MIGRATIONS: Final = (
    """
    CREATE TABLE requests (
        at_s INTEGER NOT NULL,
        pseudonym BLOB NOT NULL CHECK (length(pseudonym) = 16),
        key_id INTEGER NOT NULL,
        method TEXT NOT NULL,
        image_id TEXT NOT NULL,
        operations TEXT NOT NULL,
        status INTEGER NOT NULL,
        sent_bytes INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        duration_us INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE state (last_batch INTEGER NOT NULL) STRICT;
    INSERT INTO state VALUES (-1);
    """,
)
"""No index: the open day is only written. ``state`` holds the last batch, which a restarted keeper may see again."""

BATCH_VERSION: Final = 1
INSERT: Final = "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

Row = tuple[int, bytes, int, str, str, str, int, int, str, int]
"""at_s, pseudonym, key_id, method, image_id, operations, status, sent_bytes, outcome, duration_us."""

_DAY_FILE: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.db(?:-wal|-shm|-journal)?", re.ASCII)
_BUSY_TIMEOUT_S: Final = 0.25  # nobody else writes here: whoever holds the lock is a stranger
_SUFFIXES: Final = ("-wal", "-shm", "-journal", "")


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one tenant and one UTC day (days since 1970-01-01)."""

    tenant: str
    day: int
    rows: list[Row]


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """What one packet carries, at most one group a file. ``id`` is random: a batch that comes again is known by it."""

    version: int
    id: int
    groups: list[Group]


def folder(data_dir: Path, tenant: str) -> Path:
    """Where a tenant's day files lie. Raises ValueError for what is no tenant's name."""
    if not is_name(tenant):
        raise ValueError("not a tenant's name")
    return data_dir / "tenants" / tenant / "accesslog"


def tenant_folders(parent: Path) -> list[Path]:
    """The folders of tenants below ``parent``; links and strange names are nobody's."""
    try:
        with os.scandir(parent) as entries:
            return [
                parent / entry.name
                for entry in sorted(entries, key=lambda entry: entry.name)
                if entry.is_dir(follow_symlinks=False) and is_name(entry.name)
            ]
    except FileNotFoundError:
        return []


def day_file(data_dir: Path, tenant: str, day: date) -> Path:
    """The file of one day."""
    return folder(data_dir, tenant) / f"{day.isoformat()}.db"


def day_of_file(name: str) -> date | None:
    """The day that a file name belongs to, be it the database or what SQLite keeps beside it."""
    found = _DAY_FILE.fullmatch(name)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that make up a day file; the database last, since the others mean nothing without it."""
    return tuple(path.with_name(path.name + suffix) for suffix in _SUFFIXES)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or create a day file, mode 0600 in a folder of mode 0700.

    A killed process loses nothing that was committed, a power cut perhaps the last seconds, never a half.
    Raises sqlite3.Error, OSError, and Misconfigured for a file of a newer program.
    """
    files.make_folder(str(path.parent))
    return sqlite.connect(path, MIGRATIONS, synchronous="NORMAL", busy_timeout_s=_BUSY_TIMEOUT_S)
