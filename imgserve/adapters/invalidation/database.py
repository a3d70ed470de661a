"""A tenant's log as a file: its schema, how it is opened, and how a damaged one is replaced.

A damaged log is never followed by an empty one: all that it had named would be served again. The new one begins with
a rule for all of the tenant, so that every file of before is named; what was accepted has its effect, and its
progress reports are lost.

Opening shares a lock on the tenant's folder with others, replacing excludes them: nobody opens the database of one file
with the WAL of the other. Who has the old file open notices by its identity, and opens the new one.
"""

import contextlib
import logging
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final
from uuid import uuid4

from imgserve.core.invalidation import Scope
from imgserve.disk import files, locks, sqlite

log = logging.getLogger(__name__)

MIGRATIONS: Final = (
    """
    CREATE TABLE rules (
        id INTEGER PRIMARY KEY,
        uuid TEXT NOT NULL,
        at_us INTEGER NOT NULL,
        scope TEXT NOT NULL,
        seq INTEGER NOT NULL,
        image_id TEXT,
        plan_key TEXT,
        state TEXT NOT NULL,
        removed_files INTEGER NOT NULL,
        removed_bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX rules_by_image ON rules (image_id, seq);
    CREATE INDEX rules_by_uuid ON rules (uuid);
    CREATE INDEX rules_by_time ON rules (at_us);
    CREATE INDEX rules_unfinished ON rules (at_us) WHERE state <> 'done';
    """,
)
"""``image_id`` NULL: all of the tenant. ``plan_key`` NULL: all of the image."""

NOT_NUMBERED: Final = 2**63 - 1
"""The ``seq`` of a row whose slot has not been raised yet: later than every stamp."""

INSERT: Final = "INSERT INTO rules VALUES (NULL, ?, ?, ?, ?, ?, ?, 'pending', 0, 0)"
"""A rule that was accepted: uuid, at_us, scope, seq, image_id, plan_key."""

_NAMED_ANEW_AGE_S: Final = 60.0  # so that the keeper's next turn raises the slot and removes the files

Identity = tuple[int, int]
"""Device and inode: what tells a file from the next one of its name."""


class LogFile:
    """The file of one tenant, as one user of it knows it."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._identity: Identity | None = None  # of the file that was opened last

    def connect(self) -> sqlite3.Connection:
        """Open or create it. Raises what ``sqlite.connect`` raises, and OSError."""
        files.make_folder(str(self.path.parent))
        with locks.folder_lock(self.path.parent, shared=True):
            try:
                return sqlite.connect(self.path, MIGRATIONS, synchronous="FULL")
            finally:
                self._identity = _identity(self.path)

    def is_current(self) -> bool:
        """Whether the name still means the file that was opened."""
        return self._identity is not None and self._identity == _identity(self.path)

    def is_missing(self) -> bool:
        """Whether the name means nothing, or an empty file: neither is what becomes of a log."""
        try:
            return self.path.stat().st_size == 0
        except FileNotFoundError:
            return True

    def replace(self, reason: str, now_s: float) -> None:
        """Put the file that was opened aside, under a dot-name that is removed by its age, and begin a new one.

        Does nothing when somebody else has done so. Raises sqlite3.Error and OSError; then the old one is in place.
        """
        folder = self.path.parent
        with locks.folder_lock(folder):
            if not self.is_current() and not self.is_missing():
                return
            aside = folder / f".{secrets.token_hex(8)}-damaged"
            aside.mkdir(mode=0o700)
            new = aside / "new.db"
            _begin(new, now_s)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{aside / self.path.name}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                os.link(self.path, aside / self.path.name)
            os.rename(new, self.path)
            files.sync_folder(str(folder))
        fields = {"tenant": folder.name, "error_kind": reason, "kept_as": aside.name}
        log.error("invalidation_log_damaged", extra=fields)


def garbled() -> sqlite3.DatabaseError:
    """The error that rows are which nobody can have written; ``sqlite.is_damaged`` knows it."""
    error = sqlite3.DatabaseError("rows that make no sense")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    return error


def _begin(path: Path, now_s: float) -> None:
    """A log that names all of its tenant, whole and durable when this returns."""
    at_us = int((now_s - _NAMED_ANEW_AGE_S) * 1_000_000)
    with contextlib.closing(sqlite.connect(path, MIGRATIONS, synchronous="FULL")) as connection:
        connection.execute(INSERT, (str(uuid4()), at_us, Scope.ALL.value, NOT_NUMBERED, None, None))
        sqlite.checkpoint_truncate(connection)


def _identity(path: Path) -> Identity | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
