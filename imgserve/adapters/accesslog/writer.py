"""The keeper's side of the access log: batches into one SQLite file per tenant and UTC day.

A full disk or a locked file is waited for, for a while, by trying the batch again; any other failure, and one that
stays, costs the rows of that file. What is lost is counted.
"""

import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Final, TypeGuard

import msgspec

from imgserve.adapters.accesslog import schema
from imgserve.adapters.accesslog.settings import Settings
from imgserve.core import privacy, tenants
from imgserve.core.errors import Misconfigured
from imgserve.disk import files, sqlite
from imgserve.interfaces import Clock

log = logging.getLogger(__name__)

_HANDLES_MAX: Final = 64
_PATIENCE_S: Final = 30.0
_PASSING_CODES: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

Place = tuple[str, date]


class DayFiles:
    """Writes batches; the only holder of open day files. Methods may be called from any thread, one works at a time."""

    def __init__(
        self, settings: Settings, clock: Clock, *, handles_max: int = _HANDLES_MAX, patience_s: float = _PATIENCE_S
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._handles_max = handles_max
        self._patience_s = patience_s
        self._failing_since_s: dict[Place, float] = {}
        self._handles: OrderedDict[Place, sqlite3.Connection] = OrderedDict()
        self._lock = threading.Lock()
        self._decode = msgspec.msgpack.Decoder(schema.Batch).decode
        self.rows_written = 0
        self.rows_failed = 0
        self.rows_expired = 0
        self.rows_refused = 0
        self.batches_refused = 0
        self.batches_repeated = 0

    @property
    def open_files(self) -> int:
        """How many day files are open now."""
        return len(self._handles)

    def write(self, payload: bytes) -> None:
        """Insert one batch: one transaction for each file that it touches, each of them whole or not at all.

        A batch may come again, because the keeper died between writing and consuming it, or because this method
        raised: what was written of it is not written twice. Raises sqlite3.OperationalError or OSError when a file had
        no room or was locked and the batch should be tried again; after ``patience_s`` of that its rows are given up.
        """
        try:
            batch = self._decode(payload)
        except msgspec.MsgspecError:
            batch = None
        if batch is None or batch.version != schema.BATCH_VERSION:
            self.batches_refused += 1
            log.warning("access_log_batch_refused", extra={"size_bytes": len(payload)})
            return
        with self._lock:
            failures = [self._write_group(batch.id, group) for group in batch.groups]
        for error in failures:
            if error is not None:
                raise error

    def _write_group(self, batch: int, group: schema.Group) -> sqlite3.Error | OSError | None:
        """Write one group; the error if it may pass and there is patience left."""
        try:
            day = privacy.date_of(group.day)
        except OverflowError:
            day = None
        if day is None or not tenants.is_name(group.tenant):
            self.rows_refused += len(group.rows)
            return None
        if privacy.is_expired(day, privacy.day_of(self._clock.now_s()), self._settings.retention_days):
            self.rows_expired += len(group.rows)  # came so late that the day has been swept: it stays gone
            return None
        place = (group.tenant, day)
        try:
            self._insert(self._handle(place), batch, group.rows)
            self._failing_since_s.pop(place, None)
        except (sqlite3.Error, OSError, Misconfigured) as error:
            self._close(place)
            if _may_pass(error) and self._has_patience(place):
                return error
            self.rows_failed += len(group.rows)
            # The kind only: an error's own text and its traceback may quote values.
            log.warning("access_log_rows_lost", extra={"rows": len(group.rows), "error_kind": type(error).__name__})
        return None

    def _has_patience(self, place: Place) -> bool:
        """Whether this file has not been failing for too long; once given up it costs no waiting until it works."""
        now_s = self._clock.monotonic_s()
        return now_s - self._failing_since_s.setdefault(place, now_s) < self._patience_s

    def _insert(self, connection: sqlite3.Connection, batch: int, rows: list[schema.Row]) -> None:
        with sqlite.transaction(connection):
            if connection.execute("UPDATE state SET last_batch = ?1 WHERE last_batch <> ?1", (batch,)).rowcount == 0:
                self.batches_repeated += 1
                return
            connection.executemany(schema.INSERT, rows)
        self.rows_written += len(rows)

    def _handle(self, place: Place) -> sqlite3.Connection:
        connection = self._handles.get(place)
        if connection is not None:
            self._handles.move_to_end(place)
            return connection
        while len(self._handles) >= self._handles_max:
            self._close(next(iter(self._handles)))
        connection = schema.open_for_writing(schema.day_file(self._settings.data_dir, *place))
        self._handles[place] = connection
        return connection

    def _close(self, place: Place) -> None:
        connection = self._handles.pop(place, None)
        if connection is not None:
            connection.close()

    @contextmanager
    def opened(self, tenant: str, day: date) -> Iterator[sqlite3.Connection | None]:
        """The writer's own connection, None where there is no such file: nobody else opens one in this process.

        Inside nothing is written, so stay short. Raises sqlite3.Error, OSError, or Misconfigured.
        """
        with self._lock:
            path = schema.day_file(self._settings.data_dir, tenant, day)
            if (tenant, day) not in self._handles and not path.exists():
                yield None
                return
            yield self._handle((tenant, day))

    @contextmanager
    def closed(self, tenant: str, day: date) -> Iterator[None]:
        """Keep this day file closed inside: who unlinks an open one loses the rows that come after."""
        with self._lock:
            self._close((tenant, day))
            yield

    def close_all_but(self, day: date) -> None:
        """Close the files of all other days, so that their WAL is brought home; a late row opens them again."""
        with self._lock:
            for place in [place for place in self._handles if place[1] != day]:
                self._close(place)
            self._failing_since_s = {place: since for place, since in self._failing_since_s.items() if place[1] == day}

    def close(self) -> None:
        """Close all files; may be called again."""
        with self._lock:
            for place in list(self._handles):
                self._close(place)


def _may_pass(error: sqlite3.Error | OSError | Misconfigured) -> TypeGuard[sqlite3.Error | OSError]:
    """Whether the same rows may be written later: the disk is full, or somebody else holds the file."""
    if isinstance(error, sqlite3.Error):
        code: int = getattr(error, "sqlite_errorcode", 0)  # missing when the module itself complains
        return code & 0xFF in _PASSING_CODES
    return isinstance(error, OSError) and error.errno in files.FULL
