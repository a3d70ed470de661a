"""SQLite files that forget what is deleted from them.

Every connection: WAL, ``secure_delete=ON`` read back (``FAST`` leaves bytes behind), sorts and temporary tables in
memory and not in /tmp, mode 0600. Deleted rows are overwritten in the database, yet their old pages stay in the WAL
until ``checkpoint_truncate`` says True: only then may a deletion be called done. Connections are in autocommit
mode: who wants a transaction says BEGIN, or uses ``transaction``.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal

import aiosqlite

from imgserve.core.errors import Misconfigured

Synchronous = Literal["OFF", "NORMAL", "FULL"]
"""NORMAL loses the last commits in a power loss, FULL none; neither can damage the file."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CHUNK_ROWS: Final = 64


def connect(
    path: Path, migrations: tuple[str, ...], *, synchronous: Synchronous = "NORMAL", busy_timeout_s: float = 5.0
) -> sqlite3.Connection:
    """Open or create the file and bring its schema up to date. For one thread at a time, not always the same.

    ``migrations`` is the history of the schema: script N leads from ``user_version`` N to N + 1, and is never
    edited. Raises Misconfigured for a file with more versions than we know, or an SQLite that cannot keep the
    promises; sqlite3.DatabaseError for a damaged file (see ``is_damaged``).
    """
    # Created here, since SQLite would use 0666 less the umask; its -wal and -shm files copy this mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        _demand(connection, path, "journal_mode", "WAL", "wal")
        _demand(connection, path, "secure_delete", "ON", 1)
        _demand(connection, path, "temp_store", "MEMORY", 2)
        _demand(connection, path, "synchronous", synchronous, {"OFF": 0, "NORMAL": 1, "FULL": 2}[synchronous])
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_async(
    path: Path, migrations: tuple[str, ...], *, synchronous: Synchronous = "NORMAL", busy_timeout_s: float = 5.0
) -> aiosqlite.Connection:
    """The same, with a thread of its own; the caller closes it."""
    return await in_thread(partial(connect, path, migrations, synchronous=synchronous, busy_timeout_s=busy_timeout_s))


async def in_thread(opener: Callable[[], sqlite3.Connection]) -> aiosqlite.Connection:
    """What ``opener`` opens, by a thread of its own that calls it; the caller closes it. Raises what it raises."""
    connection = aiosqlite.Connection(opener, _CHUNK_ROWS)
    try:
        return await connection
    except BaseException:
        # Its thread still opens the file, closes it and then tells the loop, which must not be gone by then.
        await asyncio.to_thread(connection._thread.join)  # noqa: SLF001 - the library has no other way to wait for it
        raise


def checkpoint_truncate(connection: sqlite3.Connection) -> bool:
    """Move the WAL into the database and cut it to nothing; False when a reader or writer was in the way."""
    try:
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        raise
    return busy == 0


async def checkpoint_truncate_async(connection: aiosqlite.Connection) -> bool:
    """The same for an async connection."""
    try:
        async with connection.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
            row = await cursor.fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        raise
    assert row is not None, "wal_checkpoint always answers one row"
    return int(row[0]) == 0


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing; the write lock is taken at once, so that it cannot fail half-way as busy."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    try:
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk fails the COMMIT itself
            connection.execute("ROLLBACK")
        raise


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether the error says that the file is no whole database, rather than busy or out of room."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED


def is_full(error: sqlite3.Error) -> bool:
    """Whether the error says that the disk is full."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_FULL


def remove(path: Path) -> None:
    """Unlink the database with its -wal and -shm; every connection must be closed."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _demand(connection: sqlite3.Connection, path: Path, pragma: str, setting: str, expected: object) -> None:
    connection.execute(f"PRAGMA {pragma}={setting}")
    actual = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    if actual != expected:
        raise Misconfigured(
            str(path), f"{pragma}={actual}", f"use a local disk and an SQLite build that keeps {pragma}={setting}"
        )


def _migrate(connection: sqlite3.Connection, path: Path, migrations: tuple[str, ...]) -> None:
    if _version(connection, path, migrations) == len(migrations):
        return
    with transaction(connection):
        # Read again: another process may have migrated while this one waited for the write lock.
        version = _version(connection, path, migrations)
        for script in migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(migrations)}")


def _version(connection: sqlite3.Connection, path: Path, migrations: tuple[str, ...]) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise Misconfigured(
            str(path), f"schema {version}", f"a newer imgserve wrote this file (known: {len(migrations)}); upgrade"
        )
    return version


def _statements(script: str) -> Iterator[str]:
    """The script cut into statements; ``executescript`` would commit between them."""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n\t;"):
                yield statement
            statement = ""
