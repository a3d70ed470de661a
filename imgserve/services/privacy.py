"""A subject's rights: export and erasure of a tenant's log rows, as the processor's help to the controller.

The address stays in the process that was asked: what goes on to the keeper are its pseudonyms. Neither requests nor
receipts are kept; a receipt is handed out, and holds no address, pseudonym or URL.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Protocol
from uuid import uuid4

from imgserve.core import receipts, subjects
from imgserve.core.privacy import DayKey
from imgserve.core.subjects import Day, Request, Row, Search
from imgserve.interfaces import Clock


class Keys(Protocol):
    """The day keys that are still there. The method blocks on files."""

    def held(self, tenant: str, first: date, last: date) -> Mapping[date, tuple[DayKey, ...]]:
        """Every key of each day of the period, replaced ones too."""


class Store(Protocol):
    """The rows. Every method covers what was answered before its first step, and raises Overloaded when it can't."""

    def count(self, search: Search) -> AsyncGenerator[Day, None]:
        """What each day has of the subject."""

    def rows(self, search: Search) -> AsyncGenerator[Sequence[Row], None]:
        """The rows themselves, in bounded portions."""

    def erase(self, search: Search) -> AsyncGenerator[Day, None]:
        """Delete them, and say for each day whether anything may be left."""


class Subjects:
    """Finds, shows and erases what the access log has about an address."""

    def __init__(self, *, store: Store, keys: Keys, receipt_key: Callable[[], bytes], node: str, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._receipt_key = receipt_key
        self._node = node
        self._clock = clock

    async def count(self, tenant: str, asked: Request) -> dict[str, object]:
        """How many rows each day has; ``is_complete`` is false where some could not be looked through.

        Raises Overloaded when the log could not be brought up to date.
        """
        days = [day async for day in self._store.count(self._search(tenant, asked))]
        return {
            "tenant": tenant,
            "from": asked.first.isoformat(),
            "to": asked.last.isoformat(),
            "rows": sum(day.rows for day in days),
            "is_complete": not any(day.obstacles for day in days),
            "days": [_shown(day) for day in days],
        }

    def rows(self, tenant: str, asked: Request) -> AsyncGenerator[Sequence[Row], None]:
        """The rows in bounded portions. Raises Overloaded as ``count`` does, or when they end too early."""
        return self._store.rows(self._search(tenant, asked))

    async def erase(self, tenant: str, asked: Request) -> dict[str, object]:
        """Erase the rows and return the signed receipt, whose ``status`` is ``complete`` only if no byte is left.

        Raises Overloaded when the log could not be brought up to date, or the keeper went away: then nothing is said
        about what was deleted, and the request may be made again.
        """
        receipt_key = self._receipt_key()  # without one nothing is deleted that could not be receipted
        accepted = self._now()
        days = [day async for day in self._store.erase(self._search(tenant, asked))]
        is_complete = not any(day.obstacles for day in days)
        receipt = {
            "kind": "erasure",
            "version": 1,
            "id": str(uuid4()),
            "node": self._node,
            "tenant": tenant,
            "from": asked.first.isoformat(),
            "to": asked.last.isoformat(),
            "accepted_at": accepted,
            "finished_at": self._now(),
            "status": "complete" if is_complete else "incomplete",
            "rows": sum(day.rows for day in days),
            "days": [_shown(day) for day in days],
        }
        return receipts.sealed(receipt, receipt_key)

    def _search(self, tenant: str, asked: Request) -> Search:
        return subjects.search(tenant, asked, self._keys.held(tenant, asked.first, asked.last))

    def _now(self) -> str:
        return datetime.fromtimestamp(int(self._clock.now_s()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_complete(answer: Mapping[str, object]) -> bool:
    """Whether a count looked at everything, or a receipt says that nothing is left."""
    return answer.get("status", "complete") == "complete" and answer.get("is_complete", True) is True


def _shown(day: Day) -> dict[str, object]:
    return {
        "day": day.day.isoformat(),
        "rows": day.rows,
        "rows_without_key": day.rows_without_key,
        "obstacles": [obstacle.value for obstacle in day.obstacles],
    }
