"""A job that is done again and again until its task is cancelled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from imgserve.interfaces import Clock

log = logging.getLogger(__name__)

Pause = Callable[[float], Awaitable[None]]
"""Waits that many seconds."""


class Periodic:
    """Does a job at once and then every ``every_s`` seconds; ``run`` is a task of the owner's group.

    A failure of the job is logged and counted, and the job is done again in its turn. When one run takes longer than
    the period, the turns it covered are left out.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        job: Callable[[], Awaitable[object]],
        *,
        clock: Clock,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.name = name
        self.runs = 0
        self.failures = 0
        self._every_s = every_s
        self._job = job
        self._clock = clock
        self._pause = pause

    async def run(self) -> None:
        """Work until cancelled; never raises."""
        due_s = self._clock.monotonic_s()
        while True:
            await self._once()
            now_s = self._clock.monotonic_s()
            due_s = max(due_s + self._every_s, now_s)
            await self._pause(due_s - now_s)

    async def _once(self) -> None:
        self.runs += 1
        try:
            await self._job()
        except Exception:  # a task's top: one failed run must not end the others
            self.failures += 1
            log.exception("periodic_job_failed", extra={"job": self.name, "failures": self.failures})
