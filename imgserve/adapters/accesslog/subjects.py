"""A subject's rows in the day files: counted, read, and erased so that no byte of the pseudonym is left.

Files are walked in short pieces by row id, each under the writer's lock for a moment only: a year of rows neither
fills the memory nor holds up the log. Works where day files may be opened: in the keeper, and in a command that owns
the data folder while no node runs.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

from imgserve.adapters.accesslog import schema
from imgserve.adapters.accesslog.settings import Settings
from imgserve.adapters.accesslog.writer import DayFiles
from imgserve.core import privacy
from imgserve.core.errors import Misconfigured
from imgserve.core.subjects import Day, Obstacle, Row, Search
from imgserve.disk import sqlite

log = logging.getLogger(__name__)

_PIECE_ROWS: Final = 20_000
_SEARCH_BYTES: Final = 4 << 20
_BUSY_PATIENCE_S: Final = 3.0
_BUSY_PAUSE_S: Final = 0.1

EXPORTED: Final = tuple(name for name, column in privacy.CATALOGUE["accesslog.requests"].items() if column.is_exported)
"""The columns that a subject is shown: the catalogue decides."""

_TROUBLE: Final = (sqlite3.Error, OSError, Misconfigured)


class DayFileSubjects:
    """Finds, shows and erases rows by their pseudonyms. One request at a time is the caller's duty."""

    def __init__(self, settings: Settings, day_files: DayFiles, *, busy_patience_s: float = _BUSY_PATIENCE_S) -> None:
        self._data_dir = settings.data_dir
        self._day_files = day_files
        self._busy_patience_s = busy_patience_s

    async def count(self, search: Search) -> AsyncGenerator[Day, None]:
        """How many rows each day has of the subject."""
        for day in self._days(search):
            yield await asyncio.to_thread(self._count, search, day)

    async def rows(self, search: Search) -> AsyncGenerator[Sequence[Row], None]:
        """The subject's rows, a bounded number at a time, by day and in the order of writing. Days that can't be read
        are left out: ``count`` names them."""
        for day in self._days(search):
            names = tuple(search.names.get(day, {}).values())
            through: int | None = 0
            while names and through is not None:
                rows, through = await asyncio.to_thread(self._piece, search.tenant, day, names, through)
                if rows:
                    yield rows

    async def erase(self, search: Search) -> AsyncGenerator[Day, None]:
        """Delete the subject's rows of each day, and look whether the bytes are gone."""
        for day in self._days(search):
            yield await asyncio.to_thread(self._erase, search, day)

    def _days(self, search: Search) -> list[date]:
        """The days of the period that have files, whether a key of theirs is held or not."""
        try:
            names = os.listdir(schema.folder(self._data_dir, search.tenant))
        except (FileNotFoundError, NotADirectoryError):
            return []
        days = {day for name in names if (day := schema.day_of_file(name)) is not None}
        return sorted(day for day in days if search.first <= day <= search.last)

    # ---- reading ---------------------------------------------------------------------------------

    def _count(self, search: Search, day: date) -> Day:
        names = search.names.get(day, {})
        rows = strange = 0
        obstacles = []
        try:
            for connection, first, last in self._pieces(search.tenant, day):
                rows += _number(connection, _where(names.values()), first, last)
                strange += _number(connection, _without_key(names), first, last)
        except _TROUBLE as error:
            obstacles.append(_unreadable(search.tenant, day, error))
        if strange:
            obstacles.append(Obstacle.KEY_MISSING)
        return Day(day=day, rows=rows, rows_without_key=strange, obstacles=tuple(obstacles))

    def _piece(self, tenant: str, day: date, names: tuple[bytes, ...], through: int) -> tuple[list[Row], int | None]:
        """Rows of one piece after row ``through``, and where the next begins, None after the last."""
        condition, values = _where(names)
        columns = ", ".join(EXPORTED)
        query = f"SELECT {columns} FROM requests WHERE {condition} AND rowid > ? AND rowid <= ?"  # noqa: S608 - ours
        try:
            with self._day_files.opened(tenant, day) as connection:
                end = 0 if connection is None else _last(connection)
                if connection is None or through >= end:
                    return [], None
                last = min(through + _PIECE_ROWS, end)
                found = connection.execute(query, (*values, through, last)).fetchall()
        except _TROUBLE as error:
            _unreadable(tenant, day, error)
            return [], None
        return [_shown(row) for row in found], last

    def _pieces(self, tenant: str, day: date) -> Iterator[tuple[sqlite3.Connection, int, int]]:
        """The file's connection and a range of row ids, again and again through the file; others get turns between."""
        through = 0
        while True:
            with self._day_files.opened(tenant, day) as connection:
                end = 0 if connection is None else _last(connection)
                if connection is None or through >= end:
                    return
                last = min(through + _PIECE_ROWS, end)
                yield connection, through, last
            through = last

    # ---- erasing ---------------------------------------------------------------------------------

    def _erase(self, search: Search, day: date) -> Day:
        """Delete in pieces; then what came meanwhile, the checkpoint and the look at the bytes with nobody between."""
        names = search.names.get(day, {})
        rows = strange = 0
        obstacles: set[Obstacle] = set()
        try:
            for connection, first, last in self._pieces(search.tenant, day):
                rows += _delete(connection, names, first, last)
                strange += _number(connection, _without_key(names), first, last)
            more, obstacles = self._finish(search.tenant, day, names)
            rows += more
        except _TROUBLE as error:
            obstacles = {_unreadable(search.tenant, day, error)}
        if strange:
            obstacles.add(Obstacle.KEY_MISSING)
        return Day(day=day, rows=rows, rows_without_key=strange, obstacles=tuple(sorted(obstacles)))

    def _finish(self, tenant: str, day: date, names: Mapping[int, bytes]) -> tuple[int, set[Obstacle]]:
        """Try until nobody is in the way or patience ends; rows deleted, and what is in the way at the end."""
        rows = 0
        give_up_s = time.monotonic() + self._busy_patience_s
        while True:
            more, obstacles = self._clear(tenant, day, names)
            rows += more
            if Obstacle.BUSY not in obstacles or time.monotonic() >= give_up_s:
                return rows, obstacles
            time.sleep(_BUSY_PAUSE_S)  # in a thread of its own; a reader's end tells nobody

    def _clear(self, tenant: str, day: date, names: Mapping[int, bytes]) -> tuple[int, set[Obstacle]]:
        path = schema.day_file(self._data_dir, tenant, day)
        with self._day_files.closed(tenant, day):
            if not path.exists():
                return 0, set()  # its term has ended meanwhile
            with contextlib.closing(schema.open_for_writing(path)) as connection:
                # All of it: once the last row is deleted its number is given again, to a row that came meanwhile.
                rows = _delete(connection, names, 0, _last(connection))
                obstacles = set() if sqlite.checkpoint_truncate(connection) else {Obstacle.BUSY}
            # Read only while this process has no connection: closing any descriptor of the file drops the locks of all.
            if any(_holds(part, names.values()) for part in schema.parts_of(path)):
                obstacles.add(Obstacle.BYTES_LEFT)
        return rows, obstacles


Condition = tuple[str, tuple[object, ...]]


def _where(names: Collection[bytes]) -> Condition:
    return f"pseudonym IN ({_marks(names)})", tuple(names)


def _without_key(names: Mapping[int, bytes]) -> Condition:
    return f"key_id NOT IN ({_marks(names)})", tuple(names)


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _last(connection: sqlite3.Connection) -> int:
    last: int = connection.execute("SELECT coalesce(max(rowid), 0) FROM requests").fetchone()[0]
    return last


def _number(connection: sqlite3.Connection, condition: Condition, first: int, last: int) -> int:
    """How many rows after row ``first`` up to ``last`` meet the condition."""
    text, values = condition
    query = f"SELECT count(*) FROM requests WHERE {text} AND rowid > ? AND rowid <= ?"  # noqa: S608 - only marks
    number: int = connection.execute(query, (*values, first, last)).fetchone()[0]
    return number


def _delete(connection: sqlite3.Connection, names: Mapping[int, bytes], first: int, last: int) -> int:
    text, values = _where(names.values())
    query = f"DELETE FROM requests WHERE {text} AND rowid > ? AND rowid <= ?"  # noqa: S608 - only marks
    with sqlite.transaction(connection):
        return connection.execute(query, (*values, first, last)).rowcount


def _shown(row: tuple[int | str | bytes, ...]) -> Row:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in zip(EXPORTED, row, strict=True)}


def _unreadable(tenant: str, day: date, error: Exception) -> Obstacle:
    # The kind only: an error's own text may quote values.
    log.warning("day_file_unreadable", extra={"tenant": tenant, "day": str(day), "error_kind": type(error).__name__})
    return Obstacle.UNREADABLE


def _holds(path: Path, names: Collection[bytes]) -> bool:
    """Whether one of the byte strings stands anywhere in the file. Raises OSError."""
    overlap = privacy.PSEUDONYM_BYTES - 1
    tail = b""
    with contextlib.suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
        while piece := file.read(_SEARCH_BYTES):
            window = tail + piece
            if any(name in window for name in names):
                return True
            tail = window[-overlap:]
    return False
