"""The durable log of invalidations: one SQLite file per tenant, read and written by every front.

A row is durable before anything is done about it. Until the slot has been raised the row has no sequence number,
and names its files whatever their stamp: so nobody who takes a stamp meanwhile can miss it. The number it gets then is
the slot's, taken at the raise: files stamped before it are named, files fetched after it are not.

No URL is kept: image ids and plan keys are all that a node needs to do the work again.
"""

import asyncio
import contextlib
import logging
import re
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import aiosqlite

from imgserve.adapters.invalidation import database
from imgserve.adapters.invalidation.database import NOT_NUMBERED, LogFile
from imgserve.aio.clock import SystemClock
from imgserve.core import invalidation, tenants
from imgserve.core.errors import ImgserveError, Misconfigured, NoSpace, Overloaded
from imgserve.core.invalidation import Entry, Progress, Result, Rule, Scope, State
from imgserve.core.originals import ImageId, ImageRef, PlanKey
from imgserve.disk import files, slots, sqlite
from imgserve.disk.slots import NUMBERS_PER_S, Row, is_plausible, old_head
from imgserve.interfaces import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

_FILE_NAME: Final = "invalidations.db"
_IMAGE: Final = re.compile(r"[a-z2-7]{16}", re.ASCII)
_SCOPES: Final = frozenset(scope.value for scope in Scope)
_HANDLES_MAX: Final = 16
_ATTEMPTS: Final = 3

_COMPLETE: Final = """
UPDATE rules SET seq = ?, state = ?, removed_files = removed_files + ?, removed_bytes = removed_bytes + ?
WHERE uuid = ? AND image_id IS ? AND plan_key IS ?
"""
_WAS_NAMED: Final = """
SELECT EXISTS (SELECT 1 FROM rules WHERE image_id IS NULL AND seq > :since)
    OR EXISTS (SELECT 1 FROM rules WHERE image_id = :image_id AND seq > :since
               AND (plan_key IS NULL OR :plan_key IS NULL OR plan_key = :plan_key))
"""
_PROGRESS: Final = """
SELECT at_us, state, sum(removed_files), sum(removed_bytes) FROM rules WHERE uuid = ? GROUP BY at_us, state
"""
_UNFINISHED: Final = """
SELECT uuid, at_us, scope, image_id, plan_key FROM rules WHERE state <> 'done' AND at_us <= ? ORDER BY id
"""


class _Handle:
    """A tenant's open file. The lock keeps transactions of one process apart."""

    def __init__(self, path: Path) -> None:
        self.file = LogFile(path)
        self.connection: aiosqlite.Connection | None = None
        self.lock = asyncio.Lock()
        self.users = 0

    async def open(self, now_s: float) -> aiosqlite.Connection:
        """The connection to the file that has the name now. One that has vanished counts as damaged."""
        if self.connection is not None and not self.file.is_current():
            await self.close()
            if self.file.is_missing():
                await asyncio.to_thread(self.file.replace, "missing", now_s)
        if self.connection is None:
            self.connection = await sqlite.in_thread(self.file.connect)
        return self.connection

    async def close(self) -> None:
        """Close the connection; may be called again."""
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()


class SqliteInvalidationLog:
    """The log as a process of the node sees it (``interfaces.InvalidationLog``)."""

    def __init__(self, data_dir: Path, *, handles_max: int = _HANDLES_MAX, clock: Clock | None = None) -> None:
        self._data_dir = data_dir
        self._clock: Clock = SystemClock() if clock is None else clock
        self._handles_max = handles_max
        self._handles: OrderedDict[str, _Handle] = OrderedDict()
        self.lookups = 0
        self.lookups_failed = 0

    async def append(self, entry: Entry) -> None:
        """Make a request durable, without numbers yet. Raises NoSpace or Overloaded: then nothing was accepted."""
        rows = [
            (entry.uuid, entry.at_us, entry.scope.value, NOT_NUMBERED, rule.image_id, rule.plan_key)
            for rule in entry.rules
        ]
        await self._write(entry.tenant, database.INSERT, rows)

    async def complete(self, tenant: str, uuid: str, results: Iterable[Result]) -> None:
        """Note what became of rules whose slots have been raised. Raises NoSpace or Overloaded: they stay pending."""
        rows = [
            (
                result.sequence,
                result.state.value,
                result.removed_files,
                result.removed_bytes,
                uuid,
                result.rule.image_id,
                result.rule.plan_key,
            )
            for result in results
        ]
        await self._write(tenant, _COMPLETE, rows)

    async def was_named(self, image: ImageRef, name: str, since: int) -> bool:
        """Whether a rule names this file and is newer than the stamp ``since``; see ``core.invalidation.names``.

        A log that cannot be read names everything: a file too many is made anew, none is served that is gone.
        """
        self.lookups += 1
        if image.tenant not in self._handles and not _path(self._data_dir, image.tenant).exists():
            return False
        asked = {"image_id": image.id, "plan_key": invalidation.variant_of(name), "since": since}
        try:
            rows = await self._use(image.tenant, partial(_fetched, _WAS_NAMED, asked))
        except (sqlite3.Error, OSError, Misconfigured) as error:
            self.lookups_failed += 1
            log.warning("invalidation_log_unreadable", extra={"tenant": image.tenant, "error_kind": _kind(error)})
            return True
        return bool(rows[0][0])

    async def progress(self, tenant: str, uuid: str) -> Progress | None:
        """How far a request of this tenant has come; None for one that this tenant never made, or past its term.

        Raises Overloaded when the log is busy.
        """
        if not _path(self._data_dir, tenant).exists():
            return None
        try:
            rows = await self._use(tenant, partial(_fetched, _PROGRESS, (uuid,)))
        except (sqlite3.Error, OSError) as error:
            raise _translated(error) from error
        states = {state for state in State if any(row[1] == state.value for row in rows)}
        if not states:
            return None
        return Progress(
            uuid=uuid,
            at_us=int(rows[0][0]),
            state=next(state for state in (State.FAILED, State.PENDING, State.DONE) if state in states),
            removed_files=sum(int(row[2]) for row in rows),
            removed_bytes=sum(int(row[3]) for row in rows),
        )

    async def unfinished(self, until_us: int) -> tuple[Entry, ...]:
        """What was accepted up to that time on this node and is not done, of all tenants, with the rules left."""
        return await asyncio.to_thread(_unfinished, self._data_dir, until_us, self._clock.now_s())

    async def compact(self, before_us: int) -> int:
        """Remove what was accepted before that time; how many rules.

        Safe once no cached file can be older: what such a rule names has gone by its age.
        """
        return await asyncio.to_thread(_compact, self._data_dir, before_us, self._clock.now_s())

    async def close(self) -> None:
        """Close all files; may be called again."""
        handles = list(self._handles.values())
        self._handles.clear()
        for handle in handles:
            await handle.close()

    async def _write(self, tenant: str, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """One transaction that is on the disk when this returns."""

        async def act(connection: aiosqlite.Connection) -> None:
            try:
                await connection.execute("BEGIN IMMEDIATE")
                await connection.executemany(statement, rows)
                await connection.commit()
            except BaseException:  # a caller that went away too: what it began is in the thread's queue
                with contextlib.suppress(sqlite3.DatabaseError):
                    await connection.rollback()
                raise

        try:
            await self._use(tenant, act)
        except (sqlite3.Error, OSError) as error:
            raise _translated(error) from error

    async def _use(self, tenant: str, act: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        """Act on the tenant's file, one caller at a time; handles nobody uses are closed beyond the bound.

        A damaged file is replaced first. What was done in a file that has been replaced meanwhile is done again: a
        rule counts only in the file that all others read. Raises sqlite3.Error, OSError and Misconfigured.
        """
        handle = self._handles.setdefault(tenant, _Handle(_path(self._data_dir, tenant)))
        self._handles.move_to_end(tenant)
        handle.users += 1
        failure: Exception = database.garbled()
        try:
            async with handle.lock:
                for _ in range(_ATTEMPTS):
                    try:
                        result = await act(await handle.open(self._clock.now_s()))
                        if handle.file.is_current():
                            return result
                    except sqlite3.Error as error:
                        if not sqlite.is_damaged(error):
                            raise
                        failure = error
                        await handle.close()
                        await asyncio.to_thread(handle.file.replace, _kind(error), self._clock.now_s())
        finally:
            handle.users -= 1
            await self._shrink()
        raise failure

    async def _shrink(self) -> None:
        idle = [tenant for tenant, handle in self._handles.items() if handle.users == 0]
        surplus = idle[: max(0, len(self._handles) - self._handles_max)]
        for handle in [self._handles.pop(tenant) for tenant in surplus]:
            await handle.close()


def replay(data_dir: Path, now_s: float) -> Iterator[Row]:
    """What the map of slots must hold when a node starts: tenant, image (None: all of the tenant), sequence number.

    A rule without a number gets one above all that were given out until ``now_s``: the time bounds them when the old
    map is lost. A damaged log is replaced by one that names all of its tenant; so does one that cannot be read, as
    long as it cannot. Needs no event loop, and nobody else who uses the logs.
    """
    unknown = max(old_head(data_dir / slots.FILE_NAME, now_s) + 1, (int(now_s) + 1) * NUMBERS_PER_S)
    for tenant, file in _logs(data_dir):
        try:
            if file.is_missing():  # empty, that is: no log that was written in ever is
                file.replace("empty", now_s)
            rows = _act_on(file, now_s, partial(_newest, now_s))
        except (sqlite3.Error, OSError, Misconfigured) as error:
            log.warning("invalidation_log_unreadable", extra={"tenant": tenant, "error_kind": _kind(error)})
            rows = [(None, NOT_NUMBERED)]
        for image_id, sequence in rows:
            yield tenant, image_id, unknown if sequence == NOT_NUMBERED else sequence


def _newest(now_s: float, connection: sqlite3.Connection) -> list[tuple[ImageId | None, int]]:
    """The newest number of each image. Raises sqlite3.DatabaseError, also for rows that no node can have written."""
    rows = connection.execute("SELECT image_id, max(seq) FROM rules GROUP BY image_id").fetchall()
    for image_id, sequence in rows:
        is_id = image_id is None or _IMAGE.fullmatch(image_id) is not None
        if not is_id or not (sequence == NOT_NUMBERED or is_plausible(sequence, now_s)):
            raise database.garbled()
    return rows


def _unfinished(data_dir: Path, until_us: int, now_s: float) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for tenant, file in _logs(data_dir):
        try:
            entries += _act_on(file, now_s, partial(_unfinished_of, tenant, until_us))
        except (sqlite3.Error, OSError, Misconfigured) as error:
            log.warning("invalidation_log_unreadable", extra={"tenant": tenant, "error_kind": _kind(error)})
    return tuple(entries)


def _unfinished_of(tenant: str, until_us: int, connection: sqlite3.Connection) -> list[Entry]:
    rules: dict[tuple[str, int, str], list[Rule]] = {}
    for uuid, at_us, scope, image_id, plan_key in connection.execute(_UNFINISHED, (until_us,)).fetchall():
        if scope not in _SCOPES:
            raise database.garbled()
        rule = Rule(
            image_id=None if image_id is None else ImageId(image_id),
            plan_key=None if plan_key is None else PlanKey(plan_key),
        )
        rules.setdefault((uuid, at_us, scope), []).append(rule)
    return [
        Entry(tenant=tenant, uuid=uuid, at_us=at_us, scope=Scope(scope), rules=tuple(found))
        for (uuid, at_us, scope), found in rules.items()
    ]


def _compact(data_dir: Path, before_us: int, now_s: float) -> int:
    removed = 0
    for tenant, file in _logs(data_dir):
        try:
            removed += _act_on(file, now_s, partial(_compact_one, tenant, before_us))
        except (sqlite3.Error, OSError, Misconfigured) as error:
            log.warning("invalidation_log_not_compacted", extra={"tenant": tenant, "error_kind": _kind(error)})
    return removed


def _compact_one(tenant: str, before_us: int, connection: sqlite3.Connection) -> int:
    with sqlite.transaction(connection):
        count = connection.execute("DELETE FROM rules WHERE at_us < ?", (before_us,)).rowcount
    if count and not sqlite.checkpoint_truncate(connection):
        log.info("invalidation_log_keeps_old_pages", extra={"tenant": tenant})
    return count


def _act_on(file: LogFile, now_s: float, act: Callable[[sqlite3.Connection], T]) -> T:
    """Act on a file, which is replaced first when it is damaged. Raises sqlite3.Error, OSError and Misconfigured."""
    try:
        with contextlib.closing(file.connect()) as connection:
            return act(connection)
    except sqlite3.Error as error:
        if not sqlite.is_damaged(error):
            raise
        file.replace(_kind(error), now_s)
    with contextlib.closing(file.connect()) as connection:
        return act(connection)


async def _fetched(
    statement: str, asked: Mapping[str, object] | Sequence[object], connection: aiosqlite.Connection
) -> list[sqlite3.Row]:
    async with connection.execute(statement, asked) as cursor:
        return list(await cursor.fetchall())


def _path(data_dir: Path, tenant: str) -> Path:
    if not tenants.is_name(tenant):
        raise ValueError("not a tenant's name")
    return data_dir / "tenants" / tenant / _FILE_NAME


def _logs(data_dir: Path) -> Iterator[tuple[str, LogFile]]:
    """Tenant and file of each log on disk, whether the tenant is still configured or not."""
    for path in sorted((data_dir / "tenants").glob(f"*/{_FILE_NAME}")):
        if tenants.is_name(path.parent.name):
            yield path.parent.name, LogFile(path)


def _translated(error: sqlite3.Error | OSError) -> ImgserveError:
    is_full = sqlite.is_full(error) if isinstance(error, sqlite3.Error) else error.errno in files.FULL
    if is_full:
        return NoSpace("no room for the invalidation log", public="The server has no room to note the invalidation.")
    if isinstance(error, sqlite3.Error) and sqlite.is_damaged(error):
        return Misconfigured("server.data_dir", _FILE_NAME, "is damaged as often as it is replaced: check the disk")
    return Overloaded(f"the invalidation log could not be written: {_kind(error)}")


def _kind(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
