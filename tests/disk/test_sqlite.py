"""SQLite files: pragmas that hold, schemas that move forward only, bytes that are gone."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from imgserve.core.errors import Misconfigured
from imgserve.disk import sqlite

Fork = Callable[[Callable[[], object]], int]
Wait = Callable[[int], int]

FIRST = """
    CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE seen(text TEXT);
    CREATE TRIGGER note_added AFTER INSERT ON notes BEGIN
        INSERT INTO seen VALUES (new.text); -- one; statement
        INSERT INTO seen VALUES ('a;b');
    END;
"""
SECOND = "ALTER TABLE notes ADD COLUMN at_s INTEGER NOT NULL DEFAULT 0"


def pragma(connection: sqlite3.Connection, name: str) -> object:
    value: object = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def bytes_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))


def test_every_connection_has_the_promised_settings(tmp_path: Path) -> None:
    """WAL, secure_delete fully on, sorts in memory, mode 0600 for all its files."""
    with closing(sqlite.connect(tmp_path / "x.db", (FIRST,), synchronous="FULL")) as connection:
        connection.execute("INSERT INTO notes(text) VALUES ('x')")

        assert "wal" == pragma(connection, "journal_mode")
        assert 1 == pragma(connection, "secure_delete")
        assert 2 == pragma(connection, "synchronous")
        assert 2 == pragma(connection, "temp_store")
        assert 5000 == pragma(connection, "busy_timeout")
        assert {0o600} == {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        assert 3 == len(list(tmp_path.iterdir()))


def test_a_setting_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    """Settings are read back: SQLite takes what it does not know without a word. FAST reads back as 2."""
    with closing(sqlite.connect(tmp_path / "x.db", (FIRST,))) as connection:
        for setting in ("FAST", "OFF"):
            with pytest.raises(Misconfigured, match="secure_delete"):
                sqlite._demand(connection, tmp_path / "x.db", "secure_delete", setting, 1)


async def test_an_async_connection_has_them_too(tmp_path: Path) -> None:
    """It opens through the same door."""
    connection = await sqlite.connect_async(tmp_path / "x.db", (FIRST,), synchronous="FULL")
    try:
        for name, expected in (("secure_delete", 1), ("synchronous", 2), ("user_version", 1)):
            async with connection.execute(f"PRAGMA {name}") as cursor:
                row = await cursor.fetchone()
            assert row is not None
            assert expected == row[0]
        await connection.execute("INSERT INTO notes(text) VALUES ('x')")
        assert await sqlite.checkpoint_truncate_async(connection)
        assert 0 == (tmp_path / "x.db-wal").stat().st_size
    finally:
        await connection.close()


async def test_an_opening_that_is_cancelled_or_fails_leaves_no_thread_behind(tmp_path: Path) -> None:
    """A thread that is left would report to a loop that is closed."""
    before = set(threading.enumerate())
    for _ in range(5):
        opening = asyncio.ensure_future(sqlite.connect_async(tmp_path / "x.db", (FIRST,)))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        with pytest.raises(OSError, match="directory"):
            await sqlite.connect_async(tmp_path / "missing" / "x.db", (FIRST,))
    await asyncio.get_running_loop().shutdown_default_executor()
    assert set() == set(threading.enumerate()) - before


def test_schemas_move_forward_and_keep_the_rows(tmp_path: Path) -> None:
    """Version 1 to 2, triggers with semicolons included; opening again changes nothing."""
    with closing(sqlite.connect(tmp_path / "x.db", (FIRST,))) as connection:
        connection.execute("INSERT INTO notes(text) VALUES ('kept')")
        assert 1 == pragma(connection, "user_version")
    for _ in range(2):
        with closing(sqlite.connect(tmp_path / "x.db", (FIRST, SECOND))) as connection:
            assert 2 == pragma(connection, "user_version")
            assert [("kept", 0)] == connection.execute("SELECT text, at_s FROM notes").fetchall()
            assert [("kept",), ("a;b",)] == connection.execute("SELECT text FROM seen").fetchall()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """By an older program, in one sentence."""
    sqlite.connect(tmp_path / "x.db", (FIRST, SECOND)).close()

    with pytest.raises(Misconfigured, match="a newer imgserve wrote this file"):
        sqlite.connect(tmp_path / "x.db", (FIRST,))


def test_a_failing_migration_changes_nothing(tmp_path: Path) -> None:
    """All scripts that are due are one transaction."""
    with pytest.raises(sqlite3.OperationalError):
        sqlite.connect(tmp_path / "x.db", (FIRST, "CREATE TABLE more(x); SELECT nonsense"))

    with closing(sqlite.connect(tmp_path / "x.db", ())) as connection:
        assert 0 == pragma(connection, "user_version")
        assert [] == connection.execute("SELECT name FROM sqlite_master").fetchall()


def test_processes_that_open_at_the_same_time_migrate_once(tmp_path: Path, fork: Fork, wait_for: Wait) -> None:
    """The version is read again under the write lock."""
    children = [fork(lambda: sqlite.connect(tmp_path / "x.db", (FIRST, SECOND)).close()) for _ in range(8)]

    assert [0] * 8 == [wait_for(child) for child in children]


def test_deleted_bytes_are_gone_after_a_checkpoint_that_says_so(tmp_path: Path) -> None:
    """And not before: the WAL still holds them."""
    path = tmp_path / "x.db"
    marker = b"secret-of-a-visitor"
    with closing(sqlite.connect(path, (FIRST,))) as connection:
        connection.executemany("INSERT INTO notes(text) VALUES (?)", [(f"{marker.decode()}-{n}",) for n in range(200)])
        connection.execute("DELETE FROM notes")
        connection.execute("DELETE FROM seen")
        assert marker in bytes_of(path)
        assert sqlite.checkpoint_truncate(connection)
        assert marker not in bytes_of(path)


def test_a_checkpoint_beside_a_reader_says_that_it_is_not_done(tmp_path: Path) -> None:
    """A reader keeps old pages alive: the deletion may not be called done."""
    path = tmp_path / "x.db"
    with (
        closing(sqlite.connect(path, (FIRST,), busy_timeout_s=0)) as writer,
        closing(sqlite.connect(path, (FIRST,))) as reader,
    ):
        writer.execute("INSERT INTO notes(text) VALUES ('x')")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM notes").fetchall()
        writer.execute("DELETE FROM notes")
        assert not sqlite.checkpoint_truncate(writer)
        reader.execute("COMMIT")
        assert sqlite.checkpoint_truncate(writer)


def test_a_checkpoint_inside_a_transaction_is_not_done(tmp_path: Path) -> None:
    """SQLite refuses with an error there; the answer is the same."""
    with closing(sqlite.connect(tmp_path / "x.db", (FIRST,))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO notes(text) VALUES ('x')")
        assert not sqlite.checkpoint_truncate(connection)


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    """An error inside takes everything back and leaves no lock."""
    with closing(sqlite.connect(tmp_path / "x.db", (FIRST,))) as connection:
        with pytest.raises(sqlite3.IntegrityError), sqlite.transaction(connection):
            connection.executemany("INSERT INTO notes(text) VALUES (?)", [("x",), (None,)])
        assert [] == connection.execute("SELECT * FROM notes").fetchall()
        with sqlite.transaction(connection):
            connection.execute("INSERT INTO notes(text) VALUES ('y')")
        assert [("y",)] == connection.execute("SELECT text FROM notes").fetchall()


@pytest.mark.parametrize("damage", [b"this is no database, whatever its name may say" * 10, bytes(4096)])
def test_damage_is_told_apart_from_other_failures(tmp_path: Path, damage: bytes) -> None:
    """Only a damaged file may be thrown away."""
    (tmp_path / "x.db").write_bytes(damage)

    with pytest.raises(sqlite3.DatabaseError) as caught:
        sqlite.connect(tmp_path / "x.db", (FIRST,))
    assert sqlite.is_damaged(caught.value)
    assert not sqlite.is_full(caught.value)


def test_a_full_disk_is_told_apart_and_leaves_the_file_usable(small_disk: Path) -> None:
    """A file system of 1 MB, filled for real."""
    with closing(sqlite.connect(small_disk / "x.db", (FIRST,))) as connection:
        with pytest.raises(sqlite3.OperationalError) as caught, sqlite.transaction(connection):
            connection.executemany("INSERT INTO notes(text) VALUES (?)", [("x" * 4000,)] * 1000)
        assert sqlite.is_full(caught.value)
        assert not sqlite.is_damaged(caught.value)
        assert [] == connection.execute("SELECT * FROM notes").fetchall()
    assert os.listdir(small_disk)


def test_removing_takes_all_three_files(tmp_path: Path) -> None:
    """The -wal and -shm go with it, also when it was not closed cleanly."""
    connection = sqlite.connect(tmp_path / "x.db", (FIRST,))
    assert 3 == len(list(tmp_path.iterdir()))
    sqlite.remove(tmp_path / "x.db")
    assert [] == list(tmp_path.iterdir())
    connection.close()
