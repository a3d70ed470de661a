"""What the keeper does again and again, as data: a name, how often, and the call."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final, Protocol

from imgserve.core import privacy
from imgserve.core.days import DAY_S
from imgserve.interfaces import Clock

_KEY_LEAD_S: Final = 3_600
_MARGIN_DAYS: Final = 2  # an invalidation outlives what it names by more than any clock is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A periodic job; the first turn is at once."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[object]]


class Retention(Protocol):
    """Removes what is past its term from the access log."""

    def sweep(self) -> object:
        """Remove expired days, then their keys. Blocks on files."""


class DayKeys(Protocol):
    """The keys of pseudonyms."""

    def key(self, tenant: str, day: date) -> object:
        """The key of that day, made if there is none yet: who comes first makes it, all others use that one."""


class CacheUpkeep(Protocol):
    """Keeps the cache within its room and its age."""

    async def sweep(self) -> object:
        """Remove every file past its age, used or not, then the least recently used down to the size."""

    async def reconcile(self) -> object:
        """Bring the index in line with what lies on the disk."""


class InvalidationLog(Protocol):
    """The durable record of invalidations."""

    async def compact(self, before_us: int) -> int:
        """Remove what was accepted before that time."""


class Invalidations(Protocol):
    """The use case that finishes what was interrupted."""

    async def resume(self) -> int:
        """Apply again what is unfinished."""


def jobs(
    *,
    retention: Retention,
    cache: CacheUpkeep,
    invalidation_log: InvalidationLog,
    invalidations: Invalidations,
    clock: Clock,
    max_age_days: int,
) -> tuple[Job, ...]:
    """Every periodic job of the keeper that needs no tenant. ``max_age_days`` is that of cached files."""

    async def sweep() -> object:
        return await asyncio.to_thread(retention.sweep)

    async def compact() -> object:
        term_s = (max_age_days + _MARGIN_DAYS) * DAY_S
        return await invalidation_log.compact(int((clock.now_s() - term_s) * 1_000_000))

    return (
        Job(name="access_log_retention", every_s=60, run=sweep),
        Job(name="cache_sweep", every_s=5, run=cache.sweep),
        Job(name="cache_reconciliation", every_s=6 * 3_600, run=cache.reconcile),
        Job(name="invalidation_resumption", every_s=30, run=invalidations.resume),
        Job(name="invalidation_compaction", every_s=3_600, run=compact),
    )


def early_keys(keys: DayKeys, tenants: Callable[[], Iterable[str]], clock: Clock) -> Job:
    """Makes each tenant's key of a day an hour before the day begins, so that at midnight every front finds it.

    Where the keeper was late the first front makes it: whoever is first, all use that one.
    """

    def make() -> None:
        day = privacy.day_of(clock.now_s() + _KEY_LEAD_S)
        for tenant in tenants():
            keys.key(tenant, day)

    async def run() -> None:
        await asyncio.to_thread(make)

    return Job(name="day_keys", every_s=60, run=run)
