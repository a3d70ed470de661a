"""The front's side of the access log: a bounded ring of entries, pseudonymised and handed over in batches.

The raw address lives in the ring until the next flush and in the flush's memo while it runs, nowhere else.
What waits for room in the mailbox is pseudonymised already.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from imgserve.adapters.accesslog import schema
from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.adapters.accesslog.settings import Settings
from imgserve.core import privacy, tenants
from imgserve.core.addresses import canonical16
from imgserve.core.days import DAY_S
from imgserve.core.events import AccessEvent, LogEntry
from imgserve.interfaces import Clock

TAG: Final = b"L"

_PAYLOAD_BYTES_MAX: Final = 60_000
_OPERATIONS_CHARS_MAX: Final = 512
_IMAGE_ID_CHARS_MAX: Final = 64
_ROW_BYTES_MAX: Final = 128  # of everything in a row but operations, method and image id, in msgpack
_OTHER_METHOD: Final = "OTHER"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
_PENDING_MAX: Final = 64
_DRAIN_PAUSE_S: Final = 0.005
_KEY_MEMO_S: Final = 0.5  # a replaced key is noticed by then, also by a front whose ring is never empty


class Mailbox(Protocol):
    """The way to the keeper."""

    def try_send(self, tag: bytes, payload: bytes) -> bool:
        """Queue one packet of at most 60,000 bytes; False when there is no room now."""


class _Day:
    """What one flush knows of a tenant's day: its key, and the pseudonyms made so far."""

    __slots__ = ("is_expired", "key", "key_id", "memo", "number", "rows", "tenant")

    def __init__(self, tenant: str, number: int) -> None:
        self.tenant = tenant
        self.number = number
        self.is_expired = False
        self.key: bytes | None = None
        self.key_id = 0
        self.memo: dict[bytes, bytes] = {}
        self.rows: list[schema.Row] = []


class Recorder:
    """Takes entries without waiting (``interfaces.AccessLog``); ``flush`` is called at each interval.

    Everything is counted: ``rows_handed_over``, and what was dropped by its reason. Taking entries is safe
    while a flush runs in another thread; two flushes at once are not.
    """

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        mailbox: Mailbox,
        clock: Clock,
        *,
        token_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._mailbox = mailbox
        self._clock = clock
        self._token_bytes = token_bytes
        self._encode = msgspec.msgpack.Encoder().encode
        self._ring: deque[LogEntry] = deque()
        self._days: dict[tuple[str, int], _Day] = {}
        self._days_since_s = 0.0
        self._pending: deque[tuple[bytes, int]] = deque()
        self.rows_handed_over = 0
        self.rows_dropped_ring = 0
        self.rows_dropped_mailbox = 0
        self.rows_dropped_key = 0
        self.rows_dropped_expired = 0

    @property
    def rows_dropped(self) -> int:
        """Rows that will never be written, for whatever reason."""
        return self.rows_dropped_ring + self.rows_dropped_mailbox + self.rows_dropped_key + self.rows_dropped_expired

    @property
    def waiting(self) -> int:
        """Entries in the ring: raw addresses that the next flush turns into pseudonyms."""
        return len(self._ring)

    @property
    def is_empty(self) -> bool:
        """Whether everything that was recorded is in the mailbox."""
        return not self._ring and not self._pending

    def record(self, event: AccessEvent) -> None:
        """Take one event; when the ring is full it is dropped and counted."""
        if len(self._ring) >= self._settings.ring_max:
            self.rows_dropped_ring += 1
            return
        self._ring.append(
            (
                event.at_s,
                event.tenant,
                canonical16(event.visitor),
                event.method,
                event.image_id,
                event.operations,
                event.status,
                event.sent_bytes,
                event.outcome,  # a text too; its ``value`` would be a slow property
                event.duration_us,
            )
        )

    def extend(self, entries: Iterable[LogEntry]) -> None:
        """Take many entries, such as a drained ring of the fast path; those over the bound are dropped and counted."""
        for entry in entries:
            if len(self._ring) >= self._settings.ring_max:
                self.rows_dropped_ring += 1
            else:
                self._ring.append(entry)

    def flush(self, limit: int = 500) -> int:
        """Pseudonymise up to ``limit`` entries and hand them over; how many were taken.

        Returns 0 when the ring was empty; until then the caller goes on, with other work in between.
        What finds no room in the mailbox waits, up to a bound, for the next call. Blocks for a file operation per
        tenant and day, and to make the key when a day is new.
        """
        self._send_pending()
        if self._days and self._clock.monotonic_s() - self._days_since_s >= _KEY_MEMO_S:
            self._days.clear()
        taken = min(limit, len(self._ring))
        take = self._ring.popleft
        for _ in range(taken):
            self._add(take())
        self._hand_over([day for day in self._days.values() if day.rows])
        if not self._ring:
            self._days.clear()
        return taken

    async def drain(self, deadline_s: float) -> bool:
        """Hand everything over before ``deadline_s`` seconds have passed; the rest is dropped, counted, and False."""
        end_s = self._clock.monotonic_s() + deadline_s
        while self.flush() or self._ring or self._pending:
            if self._clock.monotonic_s() >= end_s:
                break
            await asyncio.sleep(_DRAIN_PAUSE_S if self._pending else 0)
        is_complete = not self._ring and not self._pending
        self.rows_dropped_ring += len(self._ring)
        self.rows_dropped_mailbox += sum(count for _, count in self._pending)
        self._ring.clear()
        self._days.clear()
        self._pending.clear()
        return is_complete

    def _add(self, entry: LogEntry) -> None:
        at_s, tenant, visitor, method, image_id, operations, status, sent_bytes, outcome, duration_us = entry
        place = (tenant, at_s // DAY_S)
        day = self._days.get(place)
        if day is None:
            if not self._days:
                self._days_since_s = self._clock.monotonic_s()
            day = self._days[place] = self._open_day(tenant, place[1])
        if day.key is None:
            if day.is_expired:
                self.rows_dropped_expired += 1
            else:
                self.rows_dropped_key += 1
            return
        name = day.memo.get(visitor)
        if name is None:
            name = day.memo[visitor] = privacy.pseudonym(visitor, day.key)
        day.rows.append(
            (
                at_s,
                name,
                day.key_id,
                method if method in _METHODS else _OTHER_METHOD,  # a method is the caller's free text
                image_id[:_IMAGE_ID_CHARS_MAX],
                operations[:_OPERATIONS_CHARS_MAX],
                status,
                sent_bytes,
                outcome,
                duration_us,
            )
        )

    def _open_day(self, tenant: str, number: int) -> _Day:
        """What a flush needs of that day. Without a usable key its rows are dropped: there is no second choice."""
        day = _Day(tenant, number)
        date = privacy.date_of(number)
        if not tenants.is_name(tenant):
            return day
        today = privacy.day_of(self._clock.now_s())
        if privacy.is_expired(date, today, self._settings.retention_days):
            day.is_expired = True  # its key has been destroyed, and must not come back
            return day
        key = self._keys.key(tenant, date)
        if key is not None:
            day.key = key.secret
            day.key_id = key.id
        return day

    def _hand_over(self, days: list[_Day]) -> None:
        """Send rows in as few packets as hold them."""
        groups: list[schema.Group] = []
        size_bytes = count = 0
        for day in days:
            start = 0
            room_bytes = len(day.tenant) + 32
            for position, row in enumerate(day.rows):
                row_bytes = _size_bytes(row)
                if size_bytes + room_bytes + row_bytes > _PAYLOAD_BYTES_MAX:
                    if position > start:
                        groups.append(schema.Group(tenant=day.tenant, day=day.number, rows=day.rows[start:position]))
                    self._send(groups, count)
                    groups, size_bytes, count, start = [], 0, 0, position
                size_bytes += row_bytes
                count += 1
            groups.append(schema.Group(tenant=day.tenant, day=day.number, rows=day.rows[start:]))
            size_bytes += room_bytes
            day.rows = []
        if groups:
            self._send(groups, count)

    def _send(self, groups: list[schema.Group], count: int) -> None:
        number = int.from_bytes(self._token_bytes(8)) >> 1
        payload = self._encode(schema.Batch(version=schema.BATCH_VERSION, id=number, groups=groups))
        if not self._pending and self._mailbox.try_send(TAG, payload):
            self.rows_handed_over += count
        elif len(self._pending) < _PENDING_MAX:
            self._pending.append((payload, count))
        else:
            self.rows_dropped_mailbox += count

    def _send_pending(self) -> None:
        while self._pending:
            payload, count = self._pending[0]
            if not self._mailbox.try_send(TAG, payload):
                return
            self._pending.popleft()
            self.rows_handed_over += count


def _size_bytes(row: schema.Row) -> int:
    """A row's size in msgpack, or somewhat more."""
    texts = len(row[3]) + len(row[4]) + len(row[5])
    if not row[5].isascii() or not row[4].isascii():
        texts *= 4
    return texts + _ROW_BYTES_MAX
