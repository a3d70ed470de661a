"""The keeper's index of cached files: sizes, ages, last uses. It holds no truth: the files' trailers do.

Opaque ids, tenants and names only. The total is kept by triggers, so that it is exact in each transaction.
"""

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imgserve.adapters.cache import journal, names, rules
from imgserve.core.originals import ImageRef
from imgserve.disk import sqlite

TRAILER_BYTES: Final = 256
"""What a trailer adds to a body, about."""

_SCHEMA: Final = (
    """
    CREATE TABLE files(
        tenant TEXT NOT NULL, image TEXT NOT NULL, name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, created_s INTEGER NOT NULL, used_s INTEGER NOT NULL,
        PRIMARY KEY (tenant, image, name)
    ) WITHOUT ROWID;
    CREATE INDEX files_by_use ON files(used_s);
    CREATE INDEX files_by_age ON files(created_s);
    CREATE TABLE total(files INTEGER NOT NULL, size_bytes INTEGER NOT NULL);
    INSERT INTO total VALUES (0, 0);
    CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
        UPDATE total SET files = files + 1, size_bytes = size_bytes + new.size_bytes;
    END;
    CREATE TRIGGER file_changed AFTER UPDATE OF size_bytes ON files BEGIN
        UPDATE total SET size_bytes = size_bytes + new.size_bytes - old.size_bytes;
    END;
    CREATE TRIGGER file_gone AFTER DELETE ON files BEGIN
        UPDATE total SET files = files - 1, size_bytes = size_bytes - old.size_bytes;
    END;
    """,
)
_SELECT: Final = "SELECT tenant, image, name, size_bytes, created_s, used_s FROM files "
_ADD: Final = (
    "INSERT INTO files(tenant, image, name, size_bytes, created_s, used_s) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET size_bytes = excluded.size_bytes, created_s = excluded.created_s,"
    " used_s = max(used_s, excluded.used_s)"
)
_REMOVE: Final = "DELETE FROM files WHERE tenant = ? AND image = ? AND name = ?"
_EMPTY: Final = "DELETE FROM files WHERE tenant = ?"
_USE: Final = "UPDATE files SET used_s = ? WHERE tenant = ? AND image = ? AND name = ? AND used_s < ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A cached file. ``size_bytes`` is what it takes on the disk."""

    image: ImageRef
    name: str
    size_bytes: int
    created_s: int
    used_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """All cached files together."""

    files: int
    size_bytes: int


class Index:
    """The open index; methods block, and may be called from any thread.

    Raises sqlite3.DatabaseError when the file is damaged while it is open: then ``reset`` it and scan the files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.is_new = not path.exists()
        """Whether it knows nothing yet, so that the files must be scanned."""
        self._connection = self._open()

    def close(self) -> None:
        """Close the file; may be called again."""
        with self._lock:
            self._connection.close()

    def reset(self) -> None:
        """Throw it away and begin with an empty one."""
        with self._lock:
            self._connection.close()
            sqlite.remove(self._path)
            self._connection = self._open()
            self.is_new = True

    def apply(self, batch: journal.Batch) -> None:
        """Take over a front's notices, all or none. A use of an unknown file changes nothing."""
        with self._lock, sqlite.transaction(self._connection) as connection:
            connection.executemany(_EMPTY, ((tenant,) for tenant in batch.emptied))
            connection.executemany(_REMOVE, batch.removed)
            connection.executemany(
                _ADD,
                (
                    (tenant, image, name, rules.occupied_bytes(size_bytes + TRAILER_BYTES), created_s, batch.at_s)
                    for tenant, image, name, size_bytes, created_s in batch.stored
                ),
            )
            connection.executemany(_USE, ((batch.at_s, *place, batch.at_s) for place in batch.used))

    def add(self, entries: Iterable[Entry]) -> None:
        """Take over what was found on the disk."""
        rows = [
            (entry.image.tenant, entry.image.id, entry.name, entry.size_bytes, entry.created_s, entry.used_s)
            for entry in entries
        ]
        with self._lock, sqlite.transaction(self._connection) as connection:
            connection.executemany(_ADD, rows)

    def forget(self, files: Iterable[tuple[ImageRef, str]]) -> None:
        """Drop these files."""
        rows = [(image.tenant, image.id, name) for image, name in files]
        with self._lock, sqlite.transaction(self._connection) as connection:
            connection.executemany(_REMOVE, rows)

    def total(self) -> Total:
        """How many files, and what they take."""
        with self._lock:
            files, size_bytes = self._connection.execute("SELECT files, size_bytes FROM total").fetchone()
        return Total(files=files, size_bytes=size_bytes)

    def outside(self, first_s: int, last_s: int, rows_max: int) -> tuple[Entry, ...]:
        """Files fetched before ``first_s`` or after ``last_s``."""
        return self._entries("WHERE created_s < ? OR created_s > ? LIMIT ?", first_s, last_s, rows_max)

    def least_recently_used(self, rows_max: int) -> tuple[Entry, ...]:
        """The files that were not used for the longest time, those first."""
        return self._entries("ORDER BY used_s LIMIT ?", rows_max)

    def names_of(self, image: ImageRef) -> frozenset[str]:
        """The image's files."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT name FROM files WHERE tenant = ? AND image = ?", (image.tenant, image.id)
            ).fetchall()
        return frozenset(name for (name,) in rows)

    def page(self, after: tuple[str, str, str], rows_max: int) -> tuple[Entry, ...]:
        """Files after that tenant, id and name, in this order."""
        return self._entries(
            "WHERE (tenant, image, name) > (?, ?, ?) ORDER BY tenant, image, name LIMIT ?", *after, rows_max
        )

    def _entries(self, condition: str, *parameters: str | int) -> tuple[Entry, ...]:
        with self._lock:
            rows = self._connection.execute(_SELECT + condition, parameters).fetchall()
        return tuple(
            Entry(
                image=names.reference(tenant, image),
                name=names.check_file(name),
                size_bytes=size_bytes,
                created_s=created_s,
                used_s=used_s,
            )
            for tenant, image, name, size_bytes, created_s, used_s in rows
        )

    def _open(self) -> sqlite3.Connection:
        try:
            return sqlite.connect(self._path, _SCHEMA)
        except sqlite3.DatabaseError as error:
            if not sqlite.is_damaged(error):
                raise
        sqlite.remove(self._path)
        self.is_new = True
        return sqlite.connect(self._path, _SCHEMA)
