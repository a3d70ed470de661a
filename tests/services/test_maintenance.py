"""The keeper's jobs."""

import threading
from datetime import date

from imgserve.core import privacy
from imgserve.services import maintenance


class Recorded:
    """Every part that the jobs speak to; remembers who was called, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.threads: set[int] = set()

    def now_s(self) -> float:
        return 100 * 86_400.0

    def monotonic_s(self) -> float:
        return 0.0

    def sweep_log(self) -> object:
        self.threads.add(threading.get_ident())
        self.calls.append("log")
        return None

    async def sweep(self) -> object:
        self.calls.append("cache")
        return None

    async def reconcile(self) -> object:
        self.calls.append("index")
        return None

    async def compact(self, before_us: int) -> int:
        self.calls.append(before_us)
        return 0

    async def resume(self) -> int:
        self.calls.append("resume")
        return 0


class _Retention:
    def __init__(self, recorded: Recorded) -> None:
        self.sweep = recorded.sweep_log


async def test_every_job_does_its_part() -> None:
    """Names are unique, periods are positive, each call reaches one part; files are swept outside the loop's thread."""
    seen = Recorded()
    jobs = maintenance.jobs(
        retention=_Retention(seen), cache=seen, invalidation_log=seen, invalidations=seen, clock=seen, max_age_days=30
    )
    for job in jobs:
        await job.run()

    assert ["log", "cache", "index", "resume", (100 - 32) * 86_400 * 1_000_000] == seen.calls
    assert len(jobs) == len({job.name for job in jobs})
    assert all(job.every_s > 0 for job in jobs)
    assert threading.get_ident() not in seen.threads


async def test_keys_are_made_for_the_day_of_an_hour_later() -> None:
    """For the tenants of that moment, outside the loop's thread."""
    made: list[tuple[str, date]] = []
    threads: set[int] = set()
    tenants = ["one"]

    class Keys:
        def key(self, tenant: str, day: date) -> None:
            threads.add(threading.get_ident())
            made.append((tenant, day))

    class Clock(Recorded):
        at_s = privacy.start_of(date(2026, 11, 24)) - 3_601

        def now_s(self) -> float:
            return self.at_s

    clock = Clock()
    job = maintenance.early_keys(Keys(), lambda: tenants, clock)
    await job.run()
    clock.at_s += 1
    tenants.append("two")
    await job.run()

    assert [("one", date(2026, 11, 23)), ("one", date(2026, 11, 24)), ("two", date(2026, 11, 24))] == made
    assert threading.get_ident() not in threads
    assert 0 < job.every_s <= 600
