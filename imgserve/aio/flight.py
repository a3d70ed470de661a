"""One computation per key: in this process, and on the whole node.

A flight belongs to no caller. It runs in the task group of its ``Flights``; a caller that is cancelled leaves it,
and when the last one has left it is cancelled. Its failure is its outcome, which every caller gets.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Final, Generic, Self, TypeVar

from imgserve.core.errors import ImgserveError, Overloaded
from imgserve.disk.locks import LockFile

T = TypeVar("T")

_POLL_FIRST_S: Final = 0.001
_POLL_LONGEST_S: Final = 0.010
_POLL_GROWTH: Final = 1.5

_is_inside: ContextVar[bool] = ContextVar("imgserve_flight_is_inside", default=False)


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    """A computation under way and the callers that wait for it."""

    task: asyncio.Task[tuple[T | None, Exception | None]]
    waiters: list[asyncio.Future[T]] = field(default_factory=list)


class Flights(Generic[T]):
    """Single flight per key in this process; ``async with`` it, and it cancels what still flies at the end.

    ``share`` makes another handle of a result for each further caller, and ``release`` gives up one that nobody
    took: for results that their receivers close, like open files. Without them all callers get the same object.
    """

    def __init__(self, *, share: Callable[[T], T] | None = None, release: Callable[[T], None] | None = None) -> None:
        self._share = share
        self._release = release
        self._group: asyncio.TaskGroup | None = None
        self._flights: dict[bytes, _Flight[T]] = {}
        self.led = 0
        self.joined = 0

    def __len__(self) -> int:
        """How many keys are under way."""
        return len(self._flights)

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        for flight in list(self._flights.values()):
            flight.task.cancel()
        await group.__aexit__(None, None, None)

    async def run(self, key: bytes, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The outcome of one ``work`` for all who ask meanwhile; True for the caller whose ``work`` it was.

        Raises what ``work`` raised. Raises RuntimeError outside of ``async with``.
        """
        if self._group is None:
            raise RuntimeError("flights are closed")
        flight = self._flights.get(key)
        leads = flight is None
        if flight is None:
            flight = _Flight(self._group.create_task(_outcome(work)))
            self._flights[key] = flight
            flight.task.add_done_callback(partial(self._land, key, flight))
            self.led += 1
        else:
            self.joined += 1
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        flight.waiters.append(waiter)
        try:
            return await waiter, leads
        except asyncio.CancelledError:
            self._leave(key, flight, waiter)
            raise

    def _leave(self, key: bytes, flight: _Flight[T], waiter: asyncio.Future[T]) -> None:
        if waiter in flight.waiters:
            flight.waiters.remove(waiter)
            if not flight.waiters:
                flight.task.cancel()
                self._forget(key, flight)  # who comes now starts anew instead of joining what is dying
        elif self._release is not None and not waiter.cancelled() and waiter.exception() is None:
            self._release(waiter.result())  # it had landed, yet this caller will never take it

    def _land(self, key: bytes, flight: _Flight[T], task: asyncio.Task[tuple[T | None, Exception | None]]) -> None:
        self._forget(key, flight)
        waiters = [waiter for waiter in flight.waiters if not waiter.done()]
        flight.waiters.clear()
        if task.cancelled():
            for waiter in waiters:
                waiter.cancel()
            return
        value, error = task.result()
        if error is not None:
            for waiter in waiters:
                waiter.set_exception(error)
            return
        self._hand_out(value, waiters)  # type: ignore[arg-type]  # no error: the value is a T, which may be None

    def _hand_out(self, value: T, waiters: list[asyncio.Future[T]]) -> None:
        for waiter in waiters[1:]:
            try:
                waiter.set_result(value if self._share is None else self._share(value))
            except (OSError, ImgserveError) as error:
                waiter.set_exception(error)
        if waiters:
            waiters[0].set_result(value)
        elif self._release is not None:
            self._release(value)

    def _forget(self, key: bytes, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _outcome(work: Callable[[], Awaitable[T]]) -> tuple[T | None, Exception | None]:
    """What came of it; never raises but when it is cancelled, so that no task group falls with it."""
    try:
        return await work(), None
    except Exception as error:  # noqa: BLE001 - a task's top: every caller gets it
        return None, error


class NodeFlights(Generic[T]):
    """Single flight per key on the node: in this process first, then one byte of a lock file that all processes share.

    Whoever holds the byte works, the others ask for it again and again (1 ms, growing to 10 ms). A holder that is
    killed loses its byte by the kernel, and another process takes over. At most ``flights_max`` keys fly in this
    process, further ones are refused; a flight inside the work of a flight is always let in, since it would wait
    for places that its own kind holds: so locks are bounded by ``flights_max`` times the depth.
    """

    def __init__(
        self,
        locks: LockFile,
        *,
        flights_max: int = 512,
        share: Callable[[T], T] | None = None,
        release: Callable[[T], None] | None = None,
    ) -> None:
        self._locks = locks
        self._flights_max = flights_max
        self._flights: Flights[tuple[T, bool]] = Flights(
            share=None if share is None else lambda result: (share(result[0]), result[1]),
            release=None if release is None else lambda result: release(result[0]),
        )
        self._outermost = 0
        self.led = 0
        self.found = 0
        self.refused = 0

    @property
    def joined(self) -> int:
        """How many callers waited for another one of this process."""
        return self._flights.joined

    async def __aenter__(self) -> Self:
        await self._flights.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._flights.__aexit__(*error)
        self._locks.close()

    async def run(
        self, key: bytes, look: Callable[[], Awaitable[T | None]], work: Callable[[], Awaitable[T]]
    ) -> tuple[T, bool]:
        """What ``look`` finds, else what one ``work`` on the node makes; True for the one caller that did the work.

        ``look`` is asked again once the byte is held, so ``work`` must leave what ``look`` finds. False means that
        this caller found it, waited here for another one, or waited for another process.
        Raises what they raise, and Overloaded when too many keys are under way.
        """
        (result, did_work), leads = await self._flights.run(key, lambda: self._fly(key, look, work))
        return result, leads and did_work

    async def _fly(
        self, key: bytes, look: Callable[[], Awaitable[T | None]], work: Callable[[], Awaitable[T]]
    ) -> tuple[T, bool]:
        with self._place():
            found = await look()
            if found is None:
                async with self._byte(offset(key)):
                    found = await look()
                    if found is None:
                        self.led += 1
                        return await work(), True
            self.found += 1
            return found, False

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """A place among the flights; for good in the context of this flight's task."""
        if _is_inside.get():
            yield
            return
        if self._outermost >= self._flights_max:
            self.refused += 1
            raise Overloaded(f"{self._outermost} images are being made by this process")
        self._outermost += 1
        token = _is_inside.set(True)
        try:
            yield
        finally:
            _is_inside.reset(token)
            self._outermost -= 1

    @contextlib.asynccontextmanager
    async def _byte(self, at: int) -> AsyncIterator[None]:
        pause_s = _POLL_FIRST_S
        while not self._locks.try_lock(at):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _POLL_GROWTH, _POLL_LONGEST_S)
        try:
            yield
        finally:
            self._locks.unlock(at)


def offset(key: bytes) -> int:
    """Which byte stands for the key: 62 bits of its hash, so that two keys practically never meet."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 2
