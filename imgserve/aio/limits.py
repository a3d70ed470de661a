"""Bounds on work: so many at once, so many waiting, and an error for the rest."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable
from types import TracebackType

from imgserve.core.errors import Overloaded


class Limit:
    """``async with limit:`` runs up to ``running_max`` bodies at once; ``queue_max`` wait in turn; more are refused."""

    def __init__(self, name: str, *, running_max: int, queue_max: int, retry_after_s: int = 1) -> None:
        if running_max < 1 or queue_max < 0:
            raise ValueError(f"{name}: running_max must be 1 or more, queue_max 0 or more")
        self._name = name
        self._queue_max = queue_max
        self._retry_after_s = retry_after_s
        self._places = asyncio.Semaphore(running_max)
        self.running = 0
        self.waiting = 0
        self.refused = 0

    async def __aenter__(self) -> None:
        """Wait for a place. Raises Overloaded at once when the queue is full."""
        if self._places.locked() and self.waiting >= self._queue_max:
            self.refused += 1
            message = f"{self._name}: {self.running} running, {self.waiting} waiting"
            raise Overloaded(message, retry_after_s=self._retry_after_s)
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running -= 1
        self._places.release()


class KeyedLimits:
    """One Limit for each key, made when it is needed and forgotten when nobody uses it: so keys need no bound."""

    def __init__(self, name: str, *, running_max: int, queue_max: int, retry_after_s: int = 1) -> None:
        self._name = name
        self._running_max = running_max
        self._queue_max = queue_max
        self._retry_after_s = retry_after_s
        self._limits: dict[Hashable, Limit] = {}
        self._refused_before = 0  # by limits that are forgotten

    def __len__(self) -> int:
        """How many keys are in use."""
        return len(self._limits)

    @property
    def refused(self) -> int:
        """How often any key's queue was full."""
        return self._refused_before + sum(limit.refused for limit in self._limits.values())

    @contextlib.asynccontextmanager
    async def slot(self, key: Hashable) -> AsyncIterator[None]:
        """Run the body in a place of that key. Raises Overloaded when the key's queue is full."""
        limit = self._limits.get(key)
        if limit is None:
            # The name stands for all keys: a host does not belong into an operator's error counts or logs.
            limit = Limit(
                self._name,
                running_max=self._running_max,
                queue_max=self._queue_max,
                retry_after_s=self._retry_after_s,
            )
            self._limits[key] = limit
        try:
            async with limit:
                yield
        finally:
            if limit.running == limit.waiting == 0 and self._limits.get(key) is limit:
                del self._limits[key]
                self._refused_before += limit.refused
